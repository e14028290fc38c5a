#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

// Trial run, in a child process, of a library that may crash on a file. Internal to data/.

namespace voca::data {

/// Strings by the object that holds them.
using TextsOfObjects = std::map<std::string, std::vector<std::string>>;

/// What `work` of a trial run calls.
struct TrialReport {
  /// Before each object that it reads.
  std::function<void(std::string_view object)> begin;
  /// With the strings, none of which contains a NUL, that the caller of run_trial() is not to read itself. If
  /// called again for an object, the last strings count.
  std::function<void(const std::string& object, const std::vector<std::string>& texts)> found;
};

/// Runs `work` in a child process, because the HDF5 library crashes, never returns or overwrites memory on
/// some damaged files, and an inspection beforehand cannot tell. Returns what `work` has found. If the child
/// succeeds, the caller may do the rest of the work itself. `work` must only read. Rethrows the DataError,
/// IoError or std::bad_alloc of `work`; throws DataError naming `path` and the object when the child crashed
/// or exceeded its CPU time limit, which grows with the file size; IoError when no child can be started.
[[nodiscard]] TextsOfObjects run_trial(const std::string& path, std::uint64_t file_bytes,
                                       const std::function<void(const TrialReport&)>& work);

}  // namespace voca::data
