#pragma once

#include <hdf5.h>

#include <memory>

#include "data/packed/hdf5.h"

// File access for the HDF5 library. Internal to data/.

namespace voca::data::hdf5 {

/// Routes the library's access to one file through a descriptor of the caller, and records system errors. The
/// library is not notified of a failed write: it would be left with a file that it cannot close and would
/// crash at exit. The caller must therefore check error() after flushing or closing the file.
class FileAccess {
 public:
  /// `descriptor` must stay open as long as the library has the file open.
  explicit FileAccess(int descriptor);
  ~FileAccess();
  FileAccess(const FileAccess&) = delete;
  FileAccess& operator=(const FileAccess&) = delete;

  /// Access property list for H5Fopen and H5Fcreate; this object must outlive the file opened with it.
  [[nodiscard]] Handle properties() const;
  /// errno of the first failed read or write; 0 if none failed.
  [[nodiscard]] int error() const;

  struct State;

 private:
  std::unique_ptr<State> state_;
};

}  // namespace voca::data::hdf5
