#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/packed/pack.h"
#include "data/tree/npy.h"

// One video of a tree: looked at, then loaded. Internal to data/.

namespace voca::data {

/// Why a video cannot be packed.
class BadVideoError : public engine::DataError {
 public:
  BadVideoError(BadVideoKind kind, const std::string& message)
      : engine::DataError("{}", message), kind_(kind) {}
  [[nodiscard]] BadVideoKind kind() const noexcept { return kind_; }

 private:
  BadVideoKind kind_;
};

/// What the headers of its arrays say, by Stream.
struct VideoProbe {
  std::array<std::int64_t, 2> frames{};
  std::array<std::int64_t, 2> dims{};
  std::array<engine::DType, 2> dtypes{};
  std::int64_t file_bytes = 0;  ///< of its two files
};

/// Opens both files and reads the headers. Throws BadVideoError for what is wrong with the video, and IoError
/// when the system fails, tried again where that may pass: nothing is known of the video then.
[[nodiscard]] VideoProbe probe_video(const VideoFolder& video);

struct LoadedVideo {
  std::array<Buffer, 2> rows;      ///< as they are to be stored
  std::array<double, 2> energy{};  ///< mean square of the first kLeadingFrames frames
  std::uint32_t checksum = 0;      ///< CRC32C of the visual then the audio rows
  std::uint8_t label = kUnknownLabel;
  /// (T_v); nothing where the video has none that can be used.
  std::optional<std::vector<std::uint8_t>> frame_labels;
};

/// Reads, checks and converts a video to rows of type `to` (kF16 or kF32). `form` says where its label comes
/// from. Throws as probe_video() does.
[[nodiscard]] LoadedVideo load_video(const VideoFolder& video, const VideoProbe& probe, TreeForm form,
                                     engine::DType to);

}  // namespace voca::data
