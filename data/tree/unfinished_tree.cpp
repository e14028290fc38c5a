#include "data/tree/unfinished_tree.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <system_error>

#include "engine/base/error.h"

namespace voca::data {
namespace {

namespace fs = std::filesystem;
using engine::IoError;

constexpr std::string_view kPrefix = ".synth.";

engine::UniqueFd open_folder(const fs::path& folder) {
  return engine::UniqueFd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

}  // namespace

UnfinishedTree::UnfinishedTree(const fs::path& out) : out_(out) {
  std::error_code error;
  fs::path missing = out.has_filename() ? out : out.parent_path();
  for (; !missing.empty() && !fs::exists(missing, error) && !error; missing = missing.parent_path())
    made_.push_back(missing);
  fs::create_directories(out, error);
  std::string name = (out / (std::string(kPrefix) + "XXXXXX")).string();
  if (error || ::mkdtemp(name.data()) == nullptr) {
    const std::string reason = error ? error.message() : std::strerror(errno);
    remove_made();
    throw IoError("{}: cannot create the folder: {}", out.string(), reason);
  }
  path_ = name;
  ::chmod(name.c_str(), 0755);
  lock_ = open_folder(path_);
  static_cast<void>(::flock(lock_.get(), LOCK_EX | LOCK_NB));
  remove_leftovers();
}

UnfinishedTree::~UnfinishedTree() {
  std::error_code error;
  if (done_) {
    fs::remove(path_, error);  // empty by now
  } else {
    fs::remove_all(path_, error);
    remove_made();
  }
}

void UnfinishedTree::move_into_place() {
  const fs::path real = out_ / "real";
  std::error_code error;
  for (const fs::path& place : {real, out_ / "fake"}) {
    const fs::path from = path_ / place.filename();
    if (!fs::exists(from, error) && !error) continue;
    if (!error) fs::rename(from, place, error);
    if (!error) continue;
    std::error_code ignored;
    if (place != real) fs::rename(real, path_ / "real", ignored);
    throw IoError("{}: cannot be put into place: {}", place.string(), error.message());
  }
  done_ = true;
}

/// Removes leftover folders that no process has locked.
void UnfinishedTree::remove_leftovers() const {
  std::error_code error;
  std::vector<fs::path> found;
  for (fs::directory_iterator entry(out_, error), end; !error && entry != end; entry.increment(error)) {
    const bool unfinished = entry->path().filename().string().starts_with(kPrefix);
    if (unfinished && entry->path().filename() != path_.filename()) found.push_back(entry->path());
  }
  for (const fs::path& folder : found) {
    const engine::UniqueFd descriptor = open_folder(folder);
    if (descriptor.get() >= 0 && ::flock(descriptor.get(), LOCK_EX | LOCK_NB) == 0)
      fs::remove_all(folder, error);
  }
}

void UnfinishedTree::remove_made() const {
  std::error_code error;
  for (const fs::path& folder : made_) fs::remove(folder, error);  // fails unless empty
}

}  // namespace voca::data
