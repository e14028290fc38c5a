#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "data/synth.h"
#include "tools/options/option_set.h"

// Feature tree that the benchmarks of packing and loading share with their rivals.

namespace voca::benchmarks {

/// Synthetic videos of 260 to 340 frames with 512 numbers per frame and stream, in float32 as written by
/// np.savez or np.savez_compressed, and the options that describe them.
struct Tree {
  std::string work;  ///< folder of the tree and of everything made from it
  bool compressed = false;
  std::int64_t videos = 192;

  void add_to(tools::OptionSet& options) {
    options.add(work, {"work", "DIR", "for the tree and what is packed of it"});
    options.add(compressed, {"compressed", "", "the tree as np.savez_compressed writes it"});
    options.add(videos, {"videos", "N", "in the tree"});
  }
  [[nodiscard]] std::filesystem::path folder() const { return work; }
  [[nodiscard]] std::filesystem::path path() const {
    return folder() / (compressed ? "tree-compressed" : "tree-stored");
  }
  /// Creates the tree unless it exists.
  void make() const {
    if (std::filesystem::exists(path())) return;
    data::SynthOptions options;
    options.out = path();
    options.videos = videos;
    options.seed = 1;
    options.frames_min = 260;
    options.frames_max = 340;
    options.compressed = compressed;
    data::synthesize_features(options);
  }
};

}  // namespace voca::benchmarks
