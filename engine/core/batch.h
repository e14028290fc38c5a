#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "engine/core/tensor.h"

namespace voca::engine {

inline constexpr int kMaxInputs = 2;
/// --max_bad_samples, unless said otherwise: damaged samples that a training may leave out.
inline constexpr std::int64_t kMaxBadSamples = 100;

/// One batch as a model consumes it. What the inputs mean is between the source and the model
/// (CrossModalTransformer: 0 visual (size, T, visual_dim), 1 audio (size, T, audio_dim)).
struct Batch {
  std::int64_t size = 0;                    ///< samples in it
  std::int64_t first_position = 0;          ///< position of its first sample in the epoch's global order
  std::array<Tensor, kMaxInputs> inputs{};  ///< compute type, outermost extent = size
  Tensor labels;                          ///< (size) int32: 1 real, 0 fake, or the class index; −1 unknown
  std::span<const std::int64_t> samples;  ///< (size) index of each sample in the dataset
  /// (world size) samples of every rank's share of this global batch, in rank order, each at least 1; empty
  /// where no other rank has a share.
  std::span<const std::int64_t> rows_by_rank;
};

/// Where a trainer's or an evaluation's batches come from. One epoch at a time; the order of the samples
/// depends on (seed, epoch) only, so an epoch can be entered at any batch.
class BatchSource {
 public:
  BatchSource() = default;
  BatchSource(const BatchSource&) = delete;
  BatchSource& operator=(const BatchSource&) = delete;
  virtual ~BatchSource() = default;

  [[nodiscard]] virtual std::int64_t samples_per_epoch() const = 0;
  [[nodiscard]] virtual std::int64_t batches_per_epoch() const = 0;
  /// The most samples a batch holds; buffers are laid out for it.
  [[nodiscard]] virtual std::int64_t max_batch_size() const = 0;
  /// Enters `epoch` (from 0) at `first_batch`; drops what was prefetched of another place.
  virtual void start_epoch(std::int64_t epoch, std::int64_t first_batch) = 0;
  /// The next batch, or nullptr at the end of the epoch. Valid until the next call. Allocates nothing once
  /// every slot has been used. Throws DataError when the cap on bad samples is passed, IoError when a read
  /// fails.
  virtual const Batch* next() = 0;
  /// How many samples batch `batch` of every epoch holds, where that is known before it is read: none of this
  /// source's samples can turn out to be bad. The same answer always.
  [[nodiscard]] virtual std::optional<std::int64_t> size_of_batch(std::int64_t /*batch*/) const { return {}; }
  /// Samples left out so far because their checksum did not hold.
  [[nodiscard]] virtual std::int64_t bad_samples() const = 0;
};

}  // namespace voca::engine
