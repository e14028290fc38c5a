#pragma once

#include <hdf5.h>

#include <memory>

#include "data/packed/hdf5.h"

// Reading and writing under the HDF5 library. Internal to data/.

namespace voca::data::hdf5 {

/// How the library gets at the bytes of one file: through a descriptor of the caller's. What the system
/// refuses is kept here. The library is not told of a write that failed: it would be left with a file that it
/// cannot close, and crash over it when the program ends. So the caller asks for error() when it has flushed
/// or closed the file.
class FileAccess {
 public:
  /// `descriptor` stays open for as long as the library has the file.
  explicit FileAccess(int descriptor);
  ~FileAccess();
  FileAccess(FileAccess&&) noexcept;
  FileAccess& operator=(FileAccess&&) noexcept;
  FileAccess(const FileAccess&) = delete;
  FileAccess& operator=(const FileAccess&) = delete;

  /// An access list for H5Fopen and H5Fcreate; this object outlives the file that they open.
  [[nodiscard]] Handle properties() const;
  /// errno's value of the first read or write that failed; 0: none did.
  [[nodiscard]] int error() const;

  struct State;

 private:
  std::unique_ptr<State> state_;
};

}  // namespace voca::data::hdf5
