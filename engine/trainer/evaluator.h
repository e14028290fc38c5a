#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <variant>
#include <vector>

#include "engine/core/batch.h"
#include "engine/core/model.h"
#include "engine/trainer/memory_plan.h"
#include "engine/trainer/ranks.h"
#include "model/metrics/metrics.h"
#include "model/metrics/threshold.h"

namespace voca::engine {

/// A model's predictions for a split: every sample once, in the order of the dataset.
struct Predictions {
  std::int64_t outputs = 1;           ///< logits per sample: 1 (log-odds of real) or the number of classes
  std::vector<std::int64_t> samples;  ///< (n) index in the dataset, ascending
  std::vector<std::int32_t> labels;   ///< (n) 1 real, 0 fake, or the class index; −1 unknown
  std::vector<double> logits;         ///< (n, outputs)
  std::vector<double> losses;         ///< (n) classification loss; empty if not requested

  [[nodiscard]] std::int64_t size() const { return static_cast<std::int64_t>(samples.size()); }
};

/// (n) 1 / (1 + e^−logit) for one-logit predictions; (n, outputs) softmax otherwise. Computed in double,
/// without overflow.
[[nodiscard]] std::vector<double> probabilities(const Predictions& predictions);

/// Mean of several models' logits over the same samples; labels are kept, losses are dropped. Throws
/// DataError when samples or outputs differ.
[[nodiscard]] Predictions average_logits(const std::vector<Predictions>& predictions);

/// Metrics of a split, for two classes or for K.
using Metrics = std::variant<BinaryMetrics, ClassMetrics>;

/// All metrics of `predictions`; the loss is the mean of their losses, if they have any. `threshold` is used
/// for the second set of decisions (two classes only). Throws DataError when a label is unknown or there are
/// no samples.
[[nodiscard]] Metrics measure(const Predictions& predictions, double threshold = 0.5);

/// Throws DataError when a score on the validation split after `epoch` (from 1) is not finite, which means
/// that the run has diverged.
void check_finite_scores(const Predictions& validation, std::int64_t epoch);

/// Decision threshold to store in a checkpoint; `validation` must be the validation split. Empty if only one
/// class occurs, and for K classes.
[[nodiscard]] std::optional<double> fit_threshold(const Predictions& validation, const ThresholdRule& rule);

/// Runs a model over a whole source. With several ranks, each rank's source is its own part of the split, and
/// all ranks get the predictions of all parts: the same numbers for any number of ranks.
class Evaluator {
 public:
  /// The workspace's evaluation batch must be at least as large as the source's. Labels are not read if
  /// `losses` is false.
  Evaluator(const Model& model, BatchSource& source, Workspace& workspace, bool losses, Ranks ranks = {});

  /// Host memory of an evaluator, in bytes: predictions of `samples`, and the all-gather buffers of
  /// `world_size` ranks for batches of `batch_size`.
  [[nodiscard]] static std::size_t host_bytes(std::int64_t samples, std::int64_t outputs,
                                              std::int64_t batch_size, int world_size);

  /// Called between batches; if it returns true on any rank, all ranks abandon the evaluation.
  using StopRequested = std::function<bool()>;
  /// Evaluates the source from its start. Every call overwrites the same object; with one rank nothing is
  /// allocated after construction. Returns null when `stop` returned true. Throws InternalError when the
  /// source repeats a sample, or omits one without counting it as bad.
  [[nodiscard]] const Predictions* run(const StopRequested& stop = {});

 private:
  void predict(const Batch& batch);
  void collect(const Batch& batch);
  [[nodiscard]] bool exchange(bool stop, const Batch* batch, bool& stopped);
  [[nodiscard]] Tensor on_host(const Tensor& result, std::vector<std::byte>& memory) const;
  [[nodiscard]] const Predictions& in_order();

  const Model& model_;
  BatchSource& source_;
  Workspace& workspace_;
  bool with_losses_;
  Ranks ranks_;
  std::vector<double> message_;         // all-gather input
  std::vector<std::byte> host_labels_;  // labels of a batch, if device memory is not host memory
  std::vector<std::byte> host_logits_;
  std::vector<std::byte> host_losses_;
  Predictions predictions_;
  Predictions sorted_;  // used if the samples arrived out of order
  std::vector<std::size_t> order_;
};

}  // namespace voca::engine
