#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

// Opening a file with a library that may crash on it. Internal to data/.

namespace voca::data {

/// What a rehearsal calls before each object that it is about to read.
using Announce = std::function<void(std::string_view object)>;

/// Runs `work` in a child process: on some damaged files the HDF5 library crashes, or does not come to an
/// end, and a look at the file beforehand cannot tell. What the child survived the caller may do itself.
/// `work` reads and nothing else, and calls what it is given before each object. Throws what `work` threw as
/// DataError or IoError; DataError naming `path` and the object where the child crashed or used up its
/// processor time, which grows with the file's size; IoError when no child can be started.
void rehearse(const std::string& path, std::uint64_t file_bytes,
              const std::function<void(const Announce&)>& work);

}  // namespace voca::data
