#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

// Trial run, in a child process, of a library that may crash on a file. Internal to data/.

namespace voca::data {

/// Callback that `work` calls before each object that it reads.
using Announce = std::function<void(std::string_view object)>;

/// Runs `work` in a child process, because the HDF5 library crashes or never returns on some damaged files,
/// and an inspection beforehand cannot tell. If the child succeeds, the caller may do the same work itself.
/// `work` must only read, and must call its argument before each object. Rethrows the DataError, IoError or
/// std::bad_alloc of `work`; throws DataError naming `path` and the object when the child crashed or exceeded
/// its CPU time limit, which grows with the file size; IoError when no child can be started.
void run_trial(const std::string& path, std::uint64_t file_bytes,
               const std::function<void(const Announce&)>& work);

}  // namespace voca::data
