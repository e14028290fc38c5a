#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "data/packed/hdf5.h"
#include "data/packed/trial_run.h"

// Reads a packed file with the HDF5 library. Internal to data/; must be used within a Session.

namespace voca::data::hdf5 {

/// Returns the name of an array's entry for messages: "real/id00012_clip3".
using NameOfEntry = std::function<std::string(std::size_t)>;

/// Validating reader: all data returned are present in the file, complete, and within the range of their
/// type. Throws DataError naming file and object; IoError when reading failed, std::bad_alloc when memory is
/// low.
class Reader {
 public:
  /// `descriptor` refers to the file of `file_bytes` bytes and must stay open while this object exists.
  /// For a trial run: calls `report`, and reads variable-length strings with the library, which overwrites
  /// memory where their heap is damaged.
  Reader(std::string path, int descriptor, std::uint64_t file_bytes, TrialReport report);
  /// For the process that goes on: `texts` are the variable-length strings that the trial run has found. They
  /// must outlive this object.
  Reader(std::string path, int descriptor, std::uint64_t file_bytes, const TextsOfObjects& texts);

  [[nodiscard]] bool has(const std::string& name) const;
  /// Opens the dataset `name` ("/visual/frames"). It must be reached through hard links only, be neither
  /// external nor virtual, and have all elements written.
  [[nodiscard]] Handle dataset(const std::string& name);
  [[nodiscard]] std::vector<hsize_t> extents(const Handle& dataset) const;
  /// A one-dimensional dataset of integers of any width, each within T; any length if `length` is −1.
  template <typename T>
  [[nodiscard]] std::vector<T> integers(const std::string& name, std::int64_t length,
                                        const NameOfEntry& name_of = {});
  [[nodiscard]] std::vector<std::string> strings(const std::string& name);

  [[nodiscard]] std::optional<std::string> text_attribute(const char* name) const;
  /// Of any stored width, within the range of T.
  template <typename T>
  [[nodiscard]] std::optional<T> integer_attribute(const char* name) const;
  [[nodiscard]] std::vector<double> real_attribute(const char* name) const;

  /// Reports the failure of the last call: throws DataError with the path and `what`, unless the cause was a
  /// system error or lack of memory.
  template <typename... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> what, Args&&... args) const {
    refuse_as(fmt::format(what, std::forward<Args>(args)...));
  }

 private:
  Reader(std::string path, int descriptor, std::uint64_t file_bytes, TrialReport report,
         const TextsOfObjects* texts);
  /// Reads `count` strings of `type` through `read(memory type, buffer)`.
  template <typename Read>
  [[nodiscard]] std::vector<std::string> read_strings(const std::string& object, const Handle& type,
                                                      const Handle& space, std::size_t count,
                                                      Read read) const;
  [[noreturn]] void refuse_as(const std::string& what) const;
  [[nodiscard]] Handle attribute(const char* name) const;
  void check_links(const std::string& name) const;
  /// Requires that all filters are known and none occurs twice.
  void check_filters(const Handle& plist, const std::string& name) const;
  void check_storage(const Handle& dataset, const std::string& name);
  void check_chunks(const Handle& dataset, const Handle& plist, const std::string& name,
                    std::uint64_t data_bytes) const;

  std::string path_;
  std::uint64_t file_bytes_;
  TrialReport report_;
  const TextsOfObjects* texts_;     ///< null in a trial run
  std::uint64_t stored_bytes_ = 0;  ///< total of all datasets so far
  FileAccess access_;
  Handle file_;  // closed before access_
};

}  // namespace voca::data::hdf5
