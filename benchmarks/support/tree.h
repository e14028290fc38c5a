#pragma once

#include <cstdint>
#include <filesystem>

#include "data/synth.h"

// The feature tree that the benchmarks of packing and loading share with their rivals.

namespace voca::benchmarks {

/// A tree of synthetic videos of 260 to 340 frames and 512 numbers a frame in each stream, float32 as
/// np.savez or np.savez_compressed writes it. Made where there is none yet.
inline void make_tree(const std::filesystem::path& tree, std::int64_t videos, bool compressed) {
  if (std::filesystem::exists(tree)) return;
  data::SynthOptions options;
  options.out = tree;
  options.videos = videos;
  options.seed = 1;
  options.frames_min = 260;
  options.frames_max = 340;
  options.compressed = compressed;
  data::synthesize_features(options);
}

}  // namespace voca::benchmarks
