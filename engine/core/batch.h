#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "engine/core/tensor.h"

namespace voca::engine {

inline constexpr int kMaxInputs = 2;
/// Default of --max_bad_samples: damaged samples that a training may skip.
inline constexpr std::int64_t kMaxBadSamples = 100;

/// One batch as a model consumes it. The source and the model agree on the meaning of the inputs
/// (CrossModalTransformer: 0 visual (size, T, visual_dim), 1 audio (size, T, audio_dim)).
struct Batch {
  std::int64_t size = 0;                    ///< number of samples
  std::int64_t first_position = 0;          ///< position of its first sample in the epoch's global order
  std::array<Tensor, kMaxInputs> inputs{};  ///< compute type, outermost extent = size
  Tensor labels;                          ///< (size) int32: 1 real, 0 fake, or the class index; −1 unknown
  std::span<const std::int64_t> samples;  ///< (size) index of each sample in the dataset
  /// (world size) samples per rank of this global batch, in rank order, each at least 1; empty if no other
  /// rank has a share.
  std::span<const std::int64_t> rows_by_rank;
};

/// Source of batches for training or evaluation, one epoch at a time. The order of the samples depends only
/// on (seed, epoch), so an epoch can be entered at any batch.
class BatchSource {
 public:
  BatchSource() = default;
  BatchSource(const BatchSource&) = delete;
  BatchSource& operator=(const BatchSource&) = delete;
  virtual ~BatchSource() = default;

  [[nodiscard]] virtual std::int64_t samples_per_epoch() const = 0;
  [[nodiscard]] virtual std::int64_t batches_per_epoch() const = 0;
  /// Upper bound on samples per batch; buffers are sized for it.
  [[nodiscard]] virtual std::int64_t max_batch_size() const = 0;
  /// Enters `epoch` (from 0) at `first_batch`; discards batches prefetched for another position.
  virtual void start_epoch(std::int64_t epoch, std::int64_t first_batch) = 0;
  /// The next batch, or nullptr at the end of the epoch. Valid until the next call. Allocates nothing once
  /// every slot has been used. Throws DataError if the limit on bad samples is exceeded, IoError if a read
  /// fails.
  virtual const Batch* next() = 0;
  /// Samples in batch `batch` of every epoch, if known before reading, that is, if no sample of this source
  /// can turn out bad. Always returns the same answer.
  [[nodiscard]] virtual std::optional<std::int64_t> size_of_batch(std::int64_t /*batch*/) const { return {}; }
  /// Samples skipped so far because their checksum did not match.
  [[nodiscard]] virtual std::int64_t bad_samples() const = 0;
};

}  // namespace voca::engine
