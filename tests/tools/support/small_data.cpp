#include "tests/tools/support/small_data.h"

#include "data/packed/pack.h"
#include "data/synth.h"

namespace voca::tools::testing {

void make_small_tree(const std::filesystem::path& tree, std::int64_t videos) {
  data::synthesize_features({.out = tree,
                             .videos = videos,
                             .frames_min = 10,
                             .frames_max = 20,
                             .visual_dim = 24,
                             .audio_dim = 16,
                             .progress = {}});
}

void pack_small_tree(const std::filesystem::path& tree, const std::filesystem::path& packed,
                     std::uint64_t split_seed) {
  data::PackOptions options;
  options.features_root = tree;
  options.out = packed;
  options.split_seed = split_seed;
  static_cast<void>(data::pack_features(options));
}

}  // namespace voca::tools::testing
