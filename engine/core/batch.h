#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/core/tensor.h"

namespace voca::engine {

/// Default of --max_bad_samples: damaged samples that a training may skip.
inline constexpr std::int64_t kMaxBadSamples = 100;

/// A tensor that a model takes or gives, per sample.
struct TensorSpec {
  std::string name;
  Shape sample;                ///< extents per sample; rank 0: one number
  std::optional<DType> dtype;  ///< empty: the compute type

  /// (size, extents per sample…)
  [[nodiscard]] Shape of(std::int64_t size) const;
  /// The tensor for `size` samples, without memory. Its name points into this object.
  [[nodiscard]] Tensor meta(std::int64_t size, DType compute_type) const;
  [[nodiscard]] std::size_t bytes(std::int64_t size, DType compute_type) const;
  [[nodiscard]] bool operator==(const TensorSpec&) const = default;
};

/// What a batch holds, by name.
struct BatchSpec {
  std::vector<TensorSpec> inputs;
  std::vector<TensorSpec> targets;

  [[nodiscard]] bool operator==(const BatchSpec&) const = default;
};

/// Throws DataError naming the first input or target of `needed` that `available` lacks or has in another
/// shape; `source` says whose tensors are available.
void check_provides(const BatchSpec& available, const BatchSpec& needed, std::string_view source);

/// A few tensors, found by Tensor::name. Stored in place: nothing is allocated.
class TensorList {
 public:
  static constexpr std::size_t kCapacity = 16;

  void push_back(const Tensor& tensor);
  void clear() { size_ = 0; }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] Tensor& operator[](std::size_t i) { return tensors_[i]; }
  [[nodiscard]] const Tensor& operator[](std::size_t i) const { return tensors_[i]; }
  /// Throws InternalError listing the names that there are if none is `name`.
  [[nodiscard]] const Tensor& at(std::string_view name) const;
  [[nodiscard]] Tensor* begin() { return tensors_.data(); }
  [[nodiscard]] Tensor* end() { return tensors_.data() + size_; }
  [[nodiscard]] const Tensor* begin() const { return tensors_.data(); }
  [[nodiscard]] const Tensor* end() const { return tensors_.data() + size_; }

 private:
  std::array<Tensor, kCapacity> tensors_{};
  std::size_t size_ = 0;
};

/// One batch as a model consumes it. The outermost extent of every tensor is `size`.
struct Batch {
  std::int64_t size = 0;                  ///< number of samples
  std::int64_t first_position = 0;        ///< position of its first sample in the epoch's global order
  TensorList inputs;                      ///< by the names of the model's inputs; compute type
  TensorList targets;                     ///< by the names of the model's targets
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
