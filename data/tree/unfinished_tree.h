#pragma once

#include <filesystem>
#include <vector>

#include "engine/base/unique_fd.h"

namespace voca::data {

/// A feature tree in progress: a temporary folder inside the output folder. Its class folders are moved to
/// the output once all videos are written, so the output never contains a partial tree. If destroyed earlier,
/// everything created is removed.
class UnfinishedTree {
 public:
  /// Creates `out`, if it is missing, and the temporary folder in it; removes temporary folders of killed
  /// processes. Throws IoError.
  explicit UnfinishedTree(const std::filesystem::path& out);
  ~UnfinishedTree();
  UnfinishedTree(const UnfinishedTree&) = delete;
  UnfinishedTree& operator=(const UnfinishedTree&) = delete;

  /// Temporary parent of real/ and fake/.
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  /// Moves real/ and fake/ to `out`, both or none. Throws IoError.
  void move_into_place();

 private:
  void remove_leftovers() const;
  void remove_made() const;

  std::filesystem::path out_;
  std::filesystem::path path_;
  std::vector<std::filesystem::path> made_;  ///< `out` and its created parents, the deepest first
  engine::UniqueFd lock_;                    ///< lock on path_, which marks the folder as in use
  bool done_ = false;
};

}  // namespace voca::data
