#include "data/synth.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <mutex>
#include <numbers>
#include <string>
#include <system_error>
#include <vector>

#include "data/tree/convert.h"
#include "data/tree/feature_tree.h"
#include "data/tree/npz.h"
#include "data/tree/parallel.h"
#include "data/tree/unfinished_tree.h"
#include "engine/base/error.h"
#include "engine/base/path_status.h"
#include "engine/base/random.h"

namespace voca::data {
namespace {

using engine::RandomStream;
using engine::UsageError;

/// Number of articulators, the dimensions of the speech content.
constexpr std::size_t kArticulators = 6;
/// Number of slow movements whose sum is one articulator's path.
constexpr std::size_t kMovements = 3;
constexpr std::int64_t kClipsPerIdentity = 10;
constexpr double kContentScale = 1.0;   ///< an utterance's mean position
constexpr double kMovementScale = 0.6;  ///< the path around it
constexpr double kSpeakerScale = 0.3;   ///< appearance or voice, constant over a clip
constexpr double kNoiseScale = 0.5;     ///< added to each number
/// Size and scale of the vocoder's codebook: pairs of opposite sounds, slightly louder than speech to
/// compensate for the lost movement.
constexpr std::size_t kVocoderPairs = 4;
constexpr double kVocoderScale = 1.17;

/// Stream index blocks of the synthetic data, so that no two draws share random numbers.
enum class Block : std::uint64_t { kProjection, kIdentity, kLabels, kClip, kDonor, kNoise, kVocoder };

RandomStream random_of(std::uint64_t seed, Block block, std::int64_t index) {
  return {seed, engine::RandomPurpose::kSynthetic,
          (static_cast<std::uint64_t>(block) << 40) | static_cast<std::uint64_t>(index)};
}

/// Cheap approximation of a standard normal for noise: the sum of the four uniform bytes of a word.
double cheap_normal(std::uint32_t word) {
  const std::uint32_t sum = (word & 255U) + ((word >> 8) & 255U) + ((word >> 16) & 255U) + (word >> 24);
  constexpr double kDeviation = 147.79918809;  // √(4 (256² − 1) / 12)
  return (static_cast<double>(static_cast<std::int32_t>(sum)) - 510.0) / kDeviation;
}

using Position = std::array<double, kArticulators>;

/// Content of one utterance: a mean position, determined by its sounds, and smooth paths around it.
class Utterance {
 public:
  explicit Utterance(RandomStream random) {
    for (std::size_t k = 0; k < kArticulators; ++k) {
      mean_[k] = kContentScale * random.normal();
      for (Movement& movement : movements_[k]) {
        movement.amplitude = kMovementScale * random.normal() * std::sqrt(2.0 / kMovements);
        movement.rate = 2.0 * std::numbers::pi * (0.02 + 0.13 * random.uniform());
        movement.phase = 2.0 * std::numbers::pi * random.uniform();
      }
    }
  }

  [[nodiscard]] Position at(std::int64_t frame) const {
    Position position = mean_;
    for (std::size_t k = 0; k < kArticulators; ++k) {
      for (const Movement& movement : movements_[k]) {
        position[k] +=
            movement.amplitude * std::sin(movement.rate * static_cast<double>(frame) + movement.phase);
      }
    }
    return position;
  }

 private:
  struct Movement {
    double amplitude;
    double rate;  ///< radians per frame
    double phase;
  };
  Position mean_{};
  std::array<std::array<Movement, kMovements>, kArticulators> movements_{};
};

/// Speech through a codebook: every position is replaced by the nearest entry, which removes the movement.
/// The codebook is symmetric, so that its sounds have the mean of all speech and no linear classifier
/// separates them.
class Vocoder {
 public:
  explicit Vocoder(RandomStream random) {
    for (std::size_t i = 0; i < codebook_.size(); i += 2) {
      for (std::size_t k = 0; k < kArticulators; ++k) {
        codebook_[i][k] = kVocoderScale * random.normal();
        codebook_[i + 1][k] = -codebook_[i][k];
      }
    }
  }

  [[nodiscard]] Position operator()(const Position& position) const {
    const auto distance = [&](const Position& sound) {
      double sum = 0.0;
      for (std::size_t k = 0; k < kArticulators; ++k)
        sum += (sound[k] - position[k]) * (sound[k] - position[k]);
      return sum;
    };
    return *std::ranges::min_element(codebook_, {}, distance);
  }

 private:
  std::array<Position, 2 * kVocoderPairs> codebook_{};
};

/// Projection of the articulators to a stream's features: (kArticulators, dim) weights.
std::vector<double> make_projection(std::uint64_t seed, Stream stream, std::int64_t dim) {
  RandomStream random = random_of(seed, Block::kProjection, static_cast<std::int64_t>(stream));
  std::vector<double> weights(static_cast<std::size_t>(dim) * kArticulators);
  for (std::int64_t j = 0; j < dim; ++j)
    for (std::size_t k = 0; k < kArticulators; ++k)
      weights[k * static_cast<std::size_t>(dim) + static_cast<std::size_t>(j)] =
          random.normal() / std::sqrt(static_cast<double>(kArticulators));
  return weights;
}

enum class Forgery : std::uint8_t { kNone, kOtherSpeech, kSplice, kVocoder };

struct Clip {
  std::string name;
  std::int64_t index = 0;
  std::int64_t identity = 0;
  Forgery forgery = Forgery::kNone;
  PerStream<std::int64_t> frames{};
  std::int64_t fake_first = 0;  ///< frames [first, last): the audio does not match the face
  std::int64_t fake_last = 0;

  [[nodiscard]] bool fake_at(std::int64_t frame) const { return frame >= fake_first && frame < fake_last; }
};

class Synthesizer {
 public:
  explicit Synthesizer(const SynthOptions& options)
      : options_(options),
        dims_{options.visual_dim, options.audio_dim},
        projections_{make_projection(options.seed, Stream::kVisual, options.visual_dim),
                     make_projection(options.seed, Stream::kAudio, options.audio_dim)},
        vocoder_(random_of(options.seed, Block::kVocoder, 0)) {}

  SynthReport run() {
    SynthReport report;
    UnfinishedTree tree(options_.out);
    folder_ = tree.path();
    const std::vector<bool> fake = draw_labels();
    std::mutex mutex;
    for_each_index(options_.videos, options_.num_workers, [&](std::int64_t i) {
      if (options_.check_stop) options_.check_stop();
      const Clip clip = draw_clip(i, fake[static_cast<std::size_t>(i)]);
      write(clip);
      const std::scoped_lock lock(mutex);
      ++(clip.forgery == Forgery::kNone ? report.real : report.fake);
      report.frames += clip.frames[0] + clip.frames[1];
      if (options_.progress) options_.progress(report.real + report.fake, options_.videos);
    });
    tree.move_into_place();
    return report;
  }

 private:
  [[nodiscard]] std::vector<bool> draw_labels() const;
  [[nodiscard]] Clip draw_clip(std::int64_t index, bool fake) const;
  [[nodiscard]] std::vector<Position> articulation(const Clip& clip) const;
  void forge(const Clip& clip, std::vector<Position>& path) const;
  [[nodiscard]] std::vector<float> frames_of(const Clip& clip, Stream stream,
                                             const std::vector<Position>& path) const;
  void write(const Clip& clip) const;

  const SynthOptions& options_;
  std::filesystem::path folder_;  ///< destination of the videos
  PerStream<std::int64_t> dims_;
  PerStream<std::vector<double>> projections_;
  Vocoder vocoder_;
};

/// Assigns round(videos × fake_ratio) fakes to random positions. There is at least one of each kind if the
/// ratio is neither 0 nor 1 and there are enough videos.
std::vector<bool> Synthesizer::draw_labels() const {
  const auto n = static_cast<std::size_t>(options_.videos);
  const auto fakes = static_cast<std::size_t>(std::llround(options_.fake_ratio * static_cast<double>(n)));
  std::vector<bool> fake(n, false);
  std::fill(fake.begin(), fake.begin() + static_cast<std::ptrdiff_t>(fakes), true);
  random_of(options_.seed, Block::kLabels, 0).shuffle(fake.begin(), fake.end());
  return fake;
}

Clip Synthesizer::draw_clip(std::int64_t index, bool fake) const {
  RandomStream random = random_of(options_.seed, Block::kClip, index);
  Clip clip;
  clip.index = index;
  clip.identity = index / kClipsPerIdentity;
  clip.name = fmt::format("id{:05}_clip{}", clip.identity, index % kClipsPerIdentity);
  // Drawn equally for both classes, so that lengths carry no information. The streams sometimes differ by a
  // frame.
  const std::int64_t span = options_.frames_max - options_.frames_min + 1;
  clip.frames[0] = options_.frames_min + random.below(span);
  clip.frames[1] = std::clamp(clip.frames[0] + random.below(3) - 1, options_.frames_min, options_.frames_max);
  const std::int64_t kind = random.below(3);
  const std::int64_t part = clip.frames[1] * (60 + random.below(21)) / 100;
  const std::int64_t start = random.below(clip.frames[1] - part + 1);
  if (!fake) return clip;
  clip.forgery =
      std::array{Forgery::kOtherSpeech, Forgery::kSplice, Forgery::kVocoder}[static_cast<std::size_t>(kind)];
  const bool splice = clip.forgery == Forgery::kSplice;
  clip.fake_first = splice ? start : 0;
  clip.fake_last = splice ? start + part : std::max(clip.frames[0], clip.frames[1]);
  return clip;
}

/// What is said in the clip, for the longer of its streams.
std::vector<Position> Synthesizer::articulation(const Clip& clip) const {
  const Utterance own(random_of(options_.seed, Block::kDonor, 2 * clip.index));
  std::vector<Position> path(static_cast<std::size_t>(std::max(clip.frames[0], clip.frames[1])));
  for (std::size_t t = 0; t < path.size(); ++t) path[t] = own.at(static_cast<std::int64_t>(t));
  return path;
}

/// Replaces what is said where the audio is fake.
void Synthesizer::forge(const Clip& clip, std::vector<Position>& path) const {
  const Utterance donor(random_of(options_.seed, Block::kDonor, 2 * clip.index + 1));
  for (std::size_t t = 0; t < path.size(); ++t) {
    const auto frame = static_cast<std::int64_t>(t);
    if (!clip.fake_at(frame)) continue;
    path[t] = clip.forgery == Forgery::kVocoder ? vocoder_(path[t]) : donor.at(frame);
  }
}

std::vector<float> Synthesizer::frames_of(const Clip& clip, Stream stream,
                                          const std::vector<Position>& path) const {
  const auto s = static_cast<std::int64_t>(stream);
  const auto dim = static_cast<std::size_t>(dims_[stream]);
  const auto length = static_cast<std::size_t>(clip.frames[stream]);
  // The appearance of a face or a voice is half due to the person, half to the recording.
  RandomStream person = random_of(options_.seed, Block::kIdentity, 2 * clip.identity + s);
  RandomStream noise = random_of(options_.seed, Block::kNoise, 2 * clip.index + s);
  std::vector<double> speaker(dim);
  for (double& value : speaker) value = kSpeakerScale * std::sqrt(0.5) * (person.normal() + noise.normal());
  const double* const weights = projections_[stream].data();
  std::vector<std::uint32_t> words(dim);
  std::vector<float> frames(length * dim);
  for (std::size_t t = 0; t < length; ++t) {
    noise.fill(words);
    const Position position = path[t];
    float* const frame = &frames[t * dim];
    for (std::size_t j = 0; j < dim; ++j) {
      double said = 0.0;
      for (std::size_t k = 0; k < kArticulators; ++k) said += position[k] * weights[k * dim + j];
      frame[j] = static_cast<float>(said + speaker[j] + kNoiseScale * cheap_normal(words[j]));
    }
  }
  return frames;
}

void Synthesizer::write(const Clip& clip) const {
  const std::filesystem::path folder =
      folder_ / (clip.forgery == Forgery::kNone ? "real" : "fake") / clip.name;
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw engine::IoError("{}: cannot create the folder: {}", folder.string(), error.message());
  std::vector<Position> path = articulation(clip);
  for (const Stream stream : kStreams) {
    if (stream == Stream::kAudio) forge(clip, path);
    const std::vector<float> frames = frames_of(clip, stream, path);
    std::vector<std::byte> halves;
    std::span<const std::byte> bytes = std::as_bytes(std::span(frames));
    if (options_.dtype == engine::DType::kF16) {
      halves.resize(frames.size() * 2);
      narrow(engine::DType::kF32, bytes.data(), static_cast<std::int64_t>(frames.size()), options_.dtype,
             halves.data());
      bytes = halves;
    }
    std::vector<NamedArray> arrays{
        {"embeddings", options_.dtype, {clip.frames[stream], dims_[stream]}, bytes}};
    std::vector<std::int32_t> frame_labels(static_cast<std::size_t>(clip.frames[stream]));
    for (std::size_t t = 0; t < frame_labels.size(); ++t)
      frame_labels[t] = clip.fake_at(static_cast<std::int64_t>(t)) ? 1 : 0;
    arrays.push_back(
        {"frame_labels", engine::DType::kI32, {clip.frames[stream]}, std::as_bytes(std::span(frame_labels))});
    write_npz(folder / fmt::format("{}_embeddings.npz", name_of(stream)), arrays, options_.compressed);
  }
}

void check(const SynthOptions& options) {
  VOCA_CHECK(options.videos >= 1 && options.videos <= kMaxSynthVideos);
  VOCA_CHECK(options.fake_ratio >= 0.0 && options.fake_ratio <= 1.0);
  VOCA_CHECK(options.frames_min >= 1 && options.visual_dim >= 1 && options.audio_dim >= 1);
  if (options.frames_max < options.frames_min)
    throw UsageError("--frames_max is {}, less than --frames_min {}", options.frames_max, options.frames_min);
  VOCA_CHECK(options.dtype == engine::DType::kF16 || options.dtype == engine::DType::kF32);
  for (const char* const name : {"real", "fake", "train", "dev", "val", "test"}) {
    if (engine::is_there(options.out / name))
      throw UsageError("--out {}: has {}/ already; choose a new folder", options.out.string(), name);
  }
}

}  // namespace

SynthReport synthesize_features(const SynthOptions& options) {
  check(options);
  return Synthesizer(options).run();
}

}  // namespace voca::data
