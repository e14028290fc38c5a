#pragma once

#include <cstdint>
#include <filesystem>

namespace voca::tools::testing {

/// Writes a tree of so many videos of 10 to 20 frames, 24 and 16 numbers a frame: what small_training()
/// takes.
void make_small_tree(const std::filesystem::path& tree, std::int64_t videos);
/// Packs it.
void pack_small_tree(const std::filesystem::path& tree, const std::filesystem::path& packed,
                     std::uint64_t split_seed = 0);

}  // namespace voca::tools::testing
