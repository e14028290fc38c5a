#pragma once

#include "kernels/types.h"

// Gather and augment: assembles one stream of a batch from packed frames by index arithmetic. Row r of sample
// b of the output is frame
//
//   first_frame + ((min(start + r, frames − 1) − shift) mod frames)
//
// so that a crop starts at `start`, a short clip repeats its last frame, and a shift s > 0 rolls the stream
// cyclically by s (like numpy.roll) over the `frames` frames that both streams have.

namespace voca::kernels {

enum class FrameType : std::uint8_t { kHalf, kFloat };

/// Location of the rows of one sample in one stream, and how they are read.
struct FrameWindow {
  std::int64_t first_frame = 0;  ///< row of the packed array where the video begins
  std::int64_t frames = 0;       ///< t = min(T_v, T_a) ≥ 1
  std::int64_t start = 0;        ///< in [0, frames)
  std::int64_t shift = 0;        ///< cyclic shift of this stream, in frames; any sign
};

template <typename T>
struct GatherFrames {
  std::int64_t batch = 0;
  std::int64_t length = 0;  ///< T, output rows per sample
  std::int64_t width = 0;
  FrameType type = FrameType::kFloat;
  const void* frames = nullptr;          ///< (Σ frames, width) IEEE half or float
  const FrameWindow* windows = nullptr;  ///< (batch)
  T* out = nullptr;                      ///< (batch, length, width), overwritten
};

/// Row of the packed array that output row r of a window reads.
[[nodiscard]] constexpr std::int64_t source_frame(const FrameWindow& window, std::int64_t r) {
  const std::int64_t row = window.start + r < window.frames ? window.start + r : window.frames - 1;
  const std::int64_t rolled = (row - window.shift) % window.frames;
  return window.first_frame + (rolled < 0 ? rolled + window.frames : rolled);
}

template <typename T>
void gather_frames(Cpu, const GatherFrames<T>& args);

/// Rounds to nearest.
template <typename T>
void gather_frames(Cuda, const GatherFrames<T>& args);

}  // namespace voca::kernels
