#pragma once

#include <filesystem>
#include <vector>

#include "engine/base/unique_fd.h"

namespace voca::data {

/// A feature tree under way: a folder in the one it is for, which takes its class folders once all videos are
/// written. Until then that one holds no half of a tree; destroyed before, nothing stays of what was made.
class UnfinishedTree {
 public:
  /// Makes `out`, where it is not there, and the folder in it; removes what killed processes left there.
  /// Throws IoError.
  explicit UnfinishedTree(const std::filesystem::path& out);
  ~UnfinishedTree();
  UnfinishedTree(const UnfinishedTree&) = delete;
  UnfinishedTree& operator=(const UnfinishedTree&) = delete;

  /// Where real/ and fake/ go for now.
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  /// Puts them into `out`, both or none. Throws IoError.
  void move_into_place();

 private:
  void remove_leftovers() const;
  void remove_made() const;

  std::filesystem::path out_;
  std::filesystem::path path_;
  std::vector<std::filesystem::path> made_;  ///< `out` and above, the deepest first
  engine::UniqueFd lock_;                    ///< on path_: it is no leftover
  bool done_ = false;
};

}  // namespace voca::data
