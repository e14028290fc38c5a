#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "engine/core/batch.h"
#include "engine/core/model.h"
#include "engine/core/predictions.h"
#include "engine/trainer/memory_plan.h"
#include "engine/trainer/ranks.h"

namespace voca::engine {

/// Throws DataError when an output on the validation split after `epoch` (from 1) is not finite, which means
/// that the run has diverged.
void check_finite_outputs(const Predictions& validation, std::int64_t epoch);

/// Runs a model over a whole source. With several ranks, each rank's source is its own part of the split, and
/// all ranks get the predictions of all parts: the same numbers for any number of ranks.
class Evaluator {
 public:
  /// The workspace's evaluation batch must be at least as large as the source's. Each sample's loss is
  /// computed if `losses` is true, which needs its targets.
  Evaluator(const Model& model, BatchSource& source, Workspace& workspace, bool losses, Ranks ranks = {});

  /// Host memory of an evaluator, in bytes: predictions of `samples`, and the all-gather buffers of
  /// `world_size` ranks for batches of `batch_size`.
  [[nodiscard]] static std::size_t host_bytes(const ModelSignature& signature, std::int64_t samples,
                                              std::int64_t batch_size, int world_size);

  /// Called between batches; if it returns true on any rank, all ranks abandon the evaluation.
  using StopRequested = std::function<bool()>;
  /// Evaluates the source from its start. Every call overwrites the same object; with one rank nothing is
  /// allocated after construction. Returns null when `stop` returned true. Throws InternalError when the
  /// source repeats a sample, or omits one without counting it as bad.
  [[nodiscard]] const Predictions* run(const StopRequested& stop = {});

 private:
  /// Results of one batch on the host.
  struct BatchResults {
    TensorList outputs;
    TensorList targets;
    Tensor losses;  ///< empty if not requested
  };
  void predict(const Batch& batch);
  [[nodiscard]] BatchResults on_host(const Batch& batch);
  [[nodiscard]] Tensor on_host(const Tensor& result, std::size_t buffer);
  void collect(const Batch& batch);
  [[nodiscard]] bool exchange(bool stop, const Batch* batch, bool& stopped);
  [[nodiscard]] const Predictions& in_order();

  const Model& model_;
  BatchSource& source_;
  Workspace& workspace_;
  bool with_losses_;
  Ranks ranks_;
  std::size_t row_numbers_;      // numbers per sample in a message: sample, loss, outputs, targets
  std::vector<double> message_;  // all-gather input
  std::vector<std::vector<std::byte>> host_;  // outputs, targets, losses, if device memory is not host memory
  Predictions predictions_;
  Predictions sorted_;  // used if the samples arrived out of order
  std::vector<std::size_t> order_;
};

}  // namespace voca::engine
