#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/core/batch.h"
#include "engine/core/model.h"
#include "engine/trainer/gradient_sums.h"
#include "engine/trainer/memory_plan.h"
#include "engine/trainer/optimizer.h"
#include "engine/trainer/ranks.h"
#include "engine/trainer/records.h"
#include "kernels/adamw.h"

namespace voca::engine {

/// Sample-weighted sums of the losses of several batches, in double.
struct LossSums {
  LossValues loss;
  std::int64_t samples = 0;

  void add(const LossValues& mean, std::int64_t count);
  /// NaN without samples.
  [[nodiscard]] LossValues mean() const { return loss.over(static_cast<double>(samples)); }
};

/// Position of a step in the run.
struct StepPlace {
  std::uint64_t seed = 0;
  std::int64_t epoch = 0;
  std::int64_t step = 0;           ///< steps of the run, including this one
  std::int64_t first_batch = 0;    ///< index within the epoch
  std::int64_t batches = 0;        ///< batches in the step
  std::int64_t epoch_batches = 0;  ///< batches per epoch
  double lr = 0;
};

/// Results of a step.
struct StepNumbers {
  StepPlace place;
  LossSums sums;
  double norm = 0;  ///< gradient norm before clipping, without the loss scale
  kernels::StepOutcome outcome = kernels::StepOutcome::kUpdated;
  double loss_scale = 1;  ///< for the next step

  [[nodiscard]] bool bad() const { return outcome == kernels::StepOutcome::kNotFinite; }
};

/// Runs optimiser steps. A whole step is queued without waiting for the device; its results are read only on
/// request, so that a GPU gets the next step before the host reads the results of this one.
class StepRunner {
 public:
  /// Maximum number of steps that may be queued and unread.
  static constexpr std::size_t kDepth = 2;

  StepRunner(const Model& model, BatchSource& train, Workspace& workspace, Optimizer& optimizer,
             const Ranks& ranks);

  /// Queues a step, from the batches to the updated weights. All ranks skip a batch of which any rank has no
  /// good sample. Throws InternalError when the source's epoch ends too soon, CommunicationError when a rank
  /// is lost.
  void queue(const StepPlace& place);
  [[nodiscard]] std::size_t queued() const { return queued_; }
  /// Samples skipped so far on all ranks.
  [[nodiscard]] std::int64_t bad_samples() const { return bad_samples_; }
  /// Results of the oldest queued step; waits for it.
  [[nodiscard]] StepNumbers take();

 private:
  /// A queued step, and the host buffers for its results.
  struct Slot {
    StepPlace place;
    std::vector<std::int64_t> samples;  ///< per batch, summed over all ranks
    Device::PinnedBlock losses;         ///< (grad_accum, number of losses), statistics type
    Device::PinnedBlock state;          ///< kernels::OptimizerState
    Device::Event arrived;
  };

  [[nodiscard]] Batch next_batch(const StepPlace& place, std::int64_t batch_in_epoch);
  void agree_on_sizes();
  [[nodiscard]] std::int64_t share(std::int64_t batch_in_epoch, Batch& batch);
  void ask_for_sizes(const Batch& batch);
  void queue_batch(const StepPlace& place, const std::vector<std::int64_t>& samples, const Batch& batch);
  void forward_backward(const StepPlace& place, const std::vector<std::int64_t>& samples, const Batch& batch);
  void reduce();
  [[nodiscard]] LossValues losses(const Slot& slot, std::int64_t batch_in_step) const;

  const Model& model_;
  BatchSource& train_;
  Workspace& workspace_;
  Optimizer& optimizer_;
  Ranks ranks_;
  std::optional<GradientBuckets> buckets_;
  std::optional<GradientSums> sums_;
  bool sizes_are_agreed_on_ = false;
  /// (batches per epoch, world size) samples of every rank's batches, if all ranks know that none of theirs
  /// is bad; else empty.
  std::vector<std::int64_t> sizes_;
  std::vector<std::int64_t> rows_by_rank_;
  std::int64_t bad_samples_ = 0;
  std::array<Slot, kDepth> slots_;
  std::size_t first_ = 0;
  std::size_t queued_ = 0;
};

}  // namespace voca::engine
