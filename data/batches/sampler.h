#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace voca::data {

struct SamplerOptions {
  std::uint64_t seed = 0;
  /// True: a new permutation per epoch; a partial last global batch is dropped unless it is the only one.
  /// False: every sample once, in the order of the data.
  bool training = true;
  std::int64_t batch_size = 64;  ///< per rank
  int rank = 0;
  int world_size = 1;
};

/// Determines which samples an epoch visits, and their order, which depends only on (seed, epoch) and the
/// samples. Each rank takes a contiguous slice of each global batch of batch_size × world_size, so that the
/// concatenated slices are the global batch. In training, a partial global batch is cut into slices whose
/// sizes differ by at most one. In evaluation every slice but the order's last is full: the batches of a
/// single rank are distributed over the ranks, so that a sample's logits do not depend on the number of
/// ranks.
class Sampler {
 public:
  /// Throws UsageError when a training split has fewer samples than ranks.
  Sampler(std::vector<std::int64_t> samples, const SamplerOptions& options);

  /// Draws the order of `epoch`; does not allocate.
  void start_epoch(std::int64_t epoch);
  /// Batches per epoch on this rank; in evaluation ranks may differ by one.
  [[nodiscard]] std::int64_t batches() const { return batches_; }
  /// Samples per epoch on this rank.
  [[nodiscard]] std::int64_t samples() const { return samples_of_rank_; }
  /// This rank's slice of global batch `batch` in the current epoch.
  [[nodiscard]] std::span<const std::int64_t> batch(std::int64_t batch) const;
  /// Number of samples in that slice.
  [[nodiscard]] std::int64_t size(std::int64_t batch) const { return slice(batch).count; }
  /// Position of the slice's first sample in the epoch's global order.
  [[nodiscard]] std::int64_t first_position(std::int64_t batch) const;

 private:
  struct Slice {
    std::int64_t first;
    std::int64_t count;
  };
  [[nodiscard]] Slice slice(std::int64_t batch) const;

  std::vector<std::int64_t> samples_;
  SamplerOptions options_;
  std::vector<std::int64_t> order_;
  std::int64_t visited_ = 0;  ///< samples of all ranks per epoch
  std::int64_t batches_ = 0;
  std::int64_t samples_of_rank_ = 0;
};

}  // namespace voca::data
