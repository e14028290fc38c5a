#include "engine/base/activity.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>

#include "data/batches/batch_source.h"
#include "data/batches/resident_batch_source.h"
#include "data/packed/pack.h"
#include "data/synth.h"
#include "engine/core/device.h"
#include "tests/data/support/scratch.h"

namespace voca::data {
namespace {

/// What takes long before the first step is told sample by sample, so that it is not taken for a hang.
TEST(Activity, OfFramesThatAreLoadedIsToldSampleBySample) {
  const testing::Scratch scratch;
  constexpr std::int64_t kVideos = 10;
  synthesize_features({.out = scratch / "tree",
                       .videos = kVideos,
                       .frames_min = 10,
                       .frames_max = 20,
                       .visual_dim = 24,
                       .audio_dim = 16,
                       .progress = {}});
  PackOptions pack;
  pack.features_root = scratch / "tree";
  pack.out = scratch / "packed.h5";
  static_cast<void>(pack_features(pack));
  const auto dataset = std::make_shared<const Dataset>(scratch / "packed.h5");
  std::vector<std::int64_t> samples(kVideos);
  std::iota(samples.begin(), samples.end(), std::int64_t{0});
  const auto device = engine::make_cpu_device(1);

  std::map<std::string, std::int64_t> told;
  const engine::ActivityListener listener([&](const char* what) { ++told[what]; });
  BatchSourceOptions options{.sampler = {.training = false, .batch_size = 4}, .seq_len = 12};
  options.residency = Residency::kHost;
  const PackedBatchSource on_host(dataset, samples, options);
  EXPECT_EQ(told["loading frames into memory"], kVideos);
  const ResidentBatchSource on_device(dataset, samples, options, *device);
  EXPECT_GE(told["uploading frames"], 2 * kVideos);  // both streams
}

}  // namespace
}  // namespace voca::data
