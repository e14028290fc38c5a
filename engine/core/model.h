#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/core/batch.h"
#include "engine/core/context.h"
#include "engine/core/parameters.h"

namespace voca::engine {

/// The losses of one batch, in this order, in a model's loss tensor (kLossCount) of the statistics type.
enum LossIndex : std::uint8_t {
  kTotalLoss = 0,
  kClassificationLoss = 1,
  kContrastiveLoss = 2,
  kLossCount = 3
};

/// What the trainer drives. A model describes its parameters and runs passes over buffers that it is handed;
/// it owns no memory. All passes work on kMeta too, which is how their memory is measured.
class Model {
 public:
  Model() = default;
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;
  virtual ~Model() = default;

  /// In the order of registration.
  [[nodiscard]] virtual const std::vector<ParameterSpec>& parameters() const = 0;
  /// Logits a sample: 1 for real against fake, else the number of classes.
  [[nodiscard]] virtual std::int64_t outputs() const = 0;
  /// Shapes of the inputs of a batch of `size` samples; the empty shape for inputs it does not take.
  [[nodiscard]] virtual Shape input_shape(int input, std::int64_t size) const = 0;

  /// Forward and backward of the training loss, dropout on. Gradients are accumulated into
  /// parameters.gradients(), each multiplied by `gradient_scale` (the batch's share of its step, the loss
  /// scale). `losses` (kLossCount) is overwritten with the unscaled losses; `logits` (size, outputs()) is
  /// overwritten, in the compute type. With several ranks every loss is the mean over this rank's samples:
  /// the gradients of all ranks, each scaled by its share of the global batch, add up to those of one rank
  /// with all of it. A loss that spans the ranks takes part in collectives of context.communicator, of which
  /// every rank's pass has the same ones. context.gradients is told what is final as backward goes.
  virtual void forward_backward(Context& context, const ParameterStore& parameters, const Batch& batch,
                                const StepRandom& random, const GradientScale& gradient_scale,
                                const Tensor& logits, const Tensor& losses) const = 0;

  /// Forward alone, dropout off. `logits` (size, outputs()) is overwritten. `row_losses` (size), in the
  /// statistics type, is overwritten with each sample's classification loss; empty leaves it out (labels are
  /// then not read).
  virtual void predict(Context& context, const ParameterStore& parameters, const Batch& batch,
                       const Tensor& logits, const Tensor& row_losses) const = 0;
};

/// What a dry run is for.
struct Backend {
  DeviceKind device = DeviceKind::kCpu;
  MatrixProducts* products = nullptr;  ///< a GPU's, told of every product; or null
  int world_size = 1;                  ///< ranks, each with a batch of its own
};

/// Bytes of arena that `model` takes for training (forward_backward) or prediction with batches of up to
/// `batch_size` samples, found by a dry run, and what lives at its peak.
struct ArenaPlan {
  std::size_t bytes = 0;
  std::vector<MemoryLine> lines;
};
[[nodiscard]] ArenaPlan plan_training(const Model& model, DType compute_type, std::int64_t batch_size,
                                      const Backend& backend = {});
[[nodiscard]] ArenaPlan plan_prediction(const Model& model, DType compute_type, std::int64_t batch_size,
                                        const Backend& backend = {});

}  // namespace voca::engine
