#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "data/packed/pack.h"
#include "data/tree/npy.h"

// Probing and loading of one video of a tree. Internal to data/.

namespace voca::data {

/// Reason why a video cannot be packed.
class BadVideoError : public engine::DataError {
 public:
  template <typename... Args>
  BadVideoError(BadVideoKind kind, fmt::format_string<Args...> format, Args&&... args)
      : engine::DataError(format, std::forward<Args>(args)...), kind_(kind) {}
  [[nodiscard]] BadVideoKind kind() const noexcept { return kind_; }

 private:
  BadVideoKind kind_;
};

/// Contents of a video's array headers.
struct VideoProbe {
  PerStream<std::int64_t> frames{};
  PerStream<std::int64_t> dims{};
  PerStream<engine::DType> dtypes{};
  std::int64_t file_bytes = 0;  ///< total of its two files
};

/// Opens both files and reads the headers. Throws BadVideoError for faults of the video; IoError for system
/// errors (retried if they may be transient), which say nothing about the video.
[[nodiscard]] VideoProbe probe_video(const VideoFolder& video);

struct LoadedVideo {
  PerStream<Buffer> rows;      ///< in the packed type
  PerStream<double> energy{};  ///< mean square of the first kLeadingFrames frames
  std::uint32_t checksum = 0;  ///< CRC32C of the visual rows followed by the audio rows
  std::uint8_t label = kUnknownLabel;
  /// (T_v); empty if the video has no usable ones.
  std::optional<std::vector<std::uint8_t>> frame_labels;
};

/// Reads, checks and converts a video to rows of type `to` (kF16 or kF32). `form` determines the source of
/// its label. Throws like probe_video().
[[nodiscard]] LoadedVideo load_video(const VideoFolder& video, const VideoProbe& probe, TreeForm form,
                                     engine::DType to);

}  // namespace voca::data
