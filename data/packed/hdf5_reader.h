#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "data/packed/hdf5.h"
#include "data/packed/hdf5_file.h"
#include "data/packed/rehearsal.h"

// A packed file opened for reading with the HDF5 library. Internal to data/; used within a Session.

namespace voca::data::hdf5 {

/// Names an entry of a row of numbers, for a message: "real/id00012_clip3".
using NameOfEntry = std::function<std::string(std::size_t)>;

/// Everything it gives out is checked to be in the file, whole and within the bounds of its type. Throws
/// DataError naming file and object; IoError where reading failed, std::bad_alloc where memory did.
class Reader {
 public:
  /// `descriptor` is of the file, `file_bytes` long, and stays open for as long as this lives; `announce`, if
  /// any, is told of each object before it is read.
  Reader(std::string path, int descriptor, std::uint64_t file_bytes, Announce announce);

  [[nodiscard]] bool has(const std::string& name) const;
  /// The dataset `name` ("/visual/frames"), reached through hard links only, neither external nor virtual,
  /// all of its elements written.
  [[nodiscard]] Handle dataset(const std::string& name);
  [[nodiscard]] std::vector<hsize_t> extents(const Handle& dataset) const;
  /// A one-dimensional dataset of whole numbers of any width, each within T; −1 for any length.
  template <typename T>
  [[nodiscard]] std::vector<T> integers(const std::string& name, std::int64_t length,
                                        const NameOfEntry& name_of = {});
  [[nodiscard]] std::vector<std::string> strings(const std::string& name);

  [[nodiscard]] std::optional<std::string> text_attribute(const char* name) const;
  /// Of any width, within T.
  template <typename T>
  [[nodiscard]] std::optional<T> integer_attribute(const char* name) const;
  [[nodiscard]] std::vector<double> real_attribute(const char* name) const;

  /// Says why the last call failed: throws DataError with the path before `what`, unless the system or the
  /// memory was at fault.
  [[noreturn]] void refuse(const std::string& what) const;

 private:
  [[nodiscard]] Handle attribute(const char* name) const;
  void check_links(const std::string& name) const;
  /// That its filters are known ones, each there once.
  void check_filters(const Handle& plist, const std::string& name) const;
  void check_storage(const Handle& dataset, const std::string& name);
  void check_chunks(const Handle& dataset, const Handle& plist, const std::string& name,
                    std::uint64_t data_bytes) const;

  std::string path_;
  std::uint64_t file_bytes_;
  Announce announce_;
  std::uint64_t stored_bytes_ = 0;  ///< of all datasets so far
  FileAccess access_;
  Handle file_;  // closed before its access
};

}  // namespace voca::data::hdf5
