#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace voca::data {

struct SamplerOptions {
  std::uint64_t seed = 0;
  /// True: a fresh permutation each epoch, the last partial global batch dropped unless it is the only one.
  /// False: the order of the data, every sample once.
  bool training = true;
  std::int64_t batch_size = 1;  ///< per rank
  int rank = 0;
  int world_size = 1;
};

/// Which samples an epoch visits, in which order. The global order depends on (seed, epoch) and the samples
/// only; a global batch is batch_size × world_size of it, and a rank takes its contiguous slice of each, so
/// that the ranks' slices in order are the global batch. In training, global batches that are not full are
/// cut into slices whose sizes differ by one at most. In evaluation every slice but the order's last is full:
/// the batches are those of one rank, dealt out, and a sample's logits depend on no number of ranks.
class Sampler {
 public:
  /// Throws UsageError when a training split has fewer samples than there are ranks.
  Sampler(std::vector<std::int64_t> samples, const SamplerOptions& options);

  /// Draws the order of `epoch`; allocates nothing.
  void start_epoch(std::int64_t epoch);
  /// Batches of this rank an epoch; in evaluation ranks may differ by one.
  [[nodiscard]] std::int64_t batches() const { return batches_; }
  /// Samples of this rank an epoch.
  [[nodiscard]] std::int64_t samples() const { return samples_of_rank_; }
  /// This rank's slice of global batch `batch` of the epoch that was started.
  [[nodiscard]] std::span<const std::int64_t> batch(std::int64_t batch) const;
  /// Samples in it.
  [[nodiscard]] std::int64_t size(std::int64_t batch) const { return slice(batch).count; }
  /// Position of its first sample in the epoch's global order.
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
  std::int64_t visited_ = 0;  ///< samples of all ranks an epoch
  std::int64_t batches_ = 0;
  std::int64_t samples_of_rank_ = 0;
};

}  // namespace voca::data
