#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>

#include "engine/core/dtype.h"

namespace voca::data {

inline constexpr std::int64_t kMaxSynthVideos = 10'000'000;  // 500 times FakeAVCeleb

struct SynthOptions {
  std::filesystem::path out;  ///< created; must not contain a tree already
  std::int64_t videos = 200;  ///< from 1 to kMaxSynthVideos
  std::uint64_t seed = 0;
  std::int64_t frames_min = 60;
  std::int64_t frames_max = 120;
  double fake_ratio = 0.5;  ///< from 0 to 1
  std::int64_t visual_dim = 512;
  std::int64_t audio_dim = 512;
  engine::DType dtype = engine::DType::kF32;  ///< kF16 or kF32
  bool compressed = false;                    ///< use np.savez_compressed's deflate
  int num_workers = 0;                        ///< threads; 0 and 1 write in the calling thread
  std::function<void(std::int64_t done, std::int64_t total)> progress;
  /// Called before each video, by any thread; if it throws, the work ends and the tree is removed.
  std::function<void()> check_stop = {};
};

struct SynthReport {
  std::int64_t real = 0;
  std::int64_t fake = 0;
  std::int64_t frames = 0;  ///< total of both streams
};

/// Writes a synthetic feature tree <out>/{real,fake}/<video>/ for trials and tests (docs/data.md describes
/// the process). Equal options give equal bytes, whatever num_workers. Throws UsageError naming the option
/// that is out of range, or --out if it holds a tree already, IoError.
SynthReport synthesize_features(const SynthOptions& options);

}  // namespace voca::data
