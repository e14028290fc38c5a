#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <variant>
#include <vector>

#include "engine/core/batch.h"
#include "engine/core/model.h"
#include "engine/trainer/memory.h"
#include "engine/trainer/ranks.h"
#include "model/metrics/metrics.h"
#include "model/metrics/threshold.h"

namespace voca::engine {

/// What a model says of each sample of a split, every sample once, in the order of the dataset.
struct Predictions {
  std::int64_t outputs = 1;           ///< logits a sample: 1 (log-odds of real) or the number of classes
  std::vector<std::int64_t> samples;  ///< (n) index in the dataset, ascending
  std::vector<std::int32_t> labels;   ///< (n) 1 real, 0 fake, or the class; −1 unknown
  std::vector<double> logits;         ///< (n, outputs)
  std::vector<double> losses;         ///< (n) classification loss; empty when not asked for

  [[nodiscard]] std::int64_t size() const { return static_cast<std::int64_t>(samples.size()); }
};

/// (n) 1 / (1 + e^−logit) of one-logit predictions; (n, outputs) softmax of the others. In double, without
/// overflow.
[[nodiscard]] std::vector<double> probabilities(const Predictions& predictions);

/// The mean of several models' logits over the same samples; labels are kept, losses left out. Throws
/// DataError when they are not of the same samples and outputs.
[[nodiscard]] Predictions average_logits(const std::vector<Predictions>& predictions);

/// A split's measures: of two classes, or of K.
using Metrics = std::variant<BinaryMetrics, ClassMetrics>;

/// All measures of `predictions`; the loss is the mean of theirs where they have them. `threshold` is the one
/// the second set of decisions is made at (two classes only). Throws DataError when a label is unknown or
/// there are no samples.
[[nodiscard]] Metrics measure(const Predictions& predictions, double threshold = 0.5);

/// Throws DataError when a score on the validation split after `epoch` (from 1) is not finite: the run has
/// diverged.
void check_finite_scores(const Predictions& validation, std::int64_t epoch);

/// The threshold for a checkpoint to carry; `validation` must be the validation split. Undefined with one
/// class only, and for K classes.
[[nodiscard]] std::optional<double> fit_threshold(const Predictions& validation, const ThresholdRule& rule);

/// Runs a model over the whole of a source. With several ranks each has a source of its own part, and all get
/// the predictions of every part: the same numbers, whatever the number of ranks.
class Evaluator {
 public:
  /// `workspace` was made for batches as large as the source's. With `losses` false labels are not read.
  Evaluator(const Model& model, BatchSource& source, Workspace& workspace, bool losses, Ranks ranks = {});

  /// Memory of the host that one takes: the predictions of `samples`, and what `world_size` ranks tell each
  /// other of a batch of `batch_size`.
  [[nodiscard]] static std::size_t host_bytes(std::int64_t samples, std::int64_t outputs,
                                              std::int64_t batch_size, int world_size);

  /// Asked between batches; true, on any rank, abandons the evaluation on all.
  using StopRequested = std::function<bool()>;
  /// A fresh pass. The same object is filled again at each call: nothing is allocated after construction,
  /// with one rank. Null when `stop` said so. Throws InternalError when the source gave a sample twice or
  /// left one out that it does not count as bad.
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
  std::vector<double> message_;         // to the other ranks
  std::vector<std::byte> host_labels_;  // of a batch, where the device's memory is not the host's
  std::vector<std::byte> host_logits_;
  std::vector<std::byte> host_losses_;
  Predictions predictions_;
  Predictions sorted_;  // where the samples came in another order
  std::vector<std::size_t> order_;
};

}  // namespace voca::engine
