#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/core/batch.h"
#include "engine/core/context.h"
#include "engine/core/parameters.h"

namespace voca::engine {

/// Most losses that a model may have.
inline constexpr std::size_t kMaxLosses = 8;

/// Names of a model's losses, as records show them: first the one that is minimised, then its parts. The
/// array has static storage: records outlive the model.
using LossNames = std::span<const char* const>;

/// What a model takes and gives, by name, with shapes per sample.
struct ModelSignature {
  BatchSpec batch;
  std::vector<TensorSpec> outputs;
  LossNames losses;
};

/// A model as the trainer sees it. It describes its parameters and runs passes over buffers that it is given;
/// it owns no memory. All passes also run on kMeta, which measures their memory.
class Model {
 public:
  Model() = default;
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;
  virtual ~Model() = default;

  /// All parameters, in registration order.
  [[nodiscard]] virtual const std::vector<ParameterSpec>& parameters() const = 0;
  [[nodiscard]] virtual const ModelSignature& signature() const = 0;

  /// Runs forward and backward of the training loss, with dropout. Accumulates gradients into
  /// parameters.gradients(), each multiplied by `gradient_scale` (the batch's share of its step, the loss
  /// scale). Overwrites `losses` (number of losses), of the statistics type, with the unscaled losses, and
  /// `outputs`. With several ranks every loss is the mean over this rank's samples: the gradients of all
  /// ranks, each scaled by its share of the global batch, sum to those of one rank with the whole batch. A
  /// loss that spans ranks uses collectives of context.communicator, the same ones in the pass of every rank.
  /// Notifies context.gradients as gradients become final.
  virtual void forward_backward(Context& context, const ParameterStore& parameters, const Batch& batch,
                                const StepRandom& random, const GradientScale& gradient_scale,
                                const TensorList& outputs, const Tensor& losses) const = 0;

  /// Runs forward only, without dropout. Overwrites `outputs`, and `row_losses` (size), in the statistics
  /// type, with each sample's loss; if `row_losses` is empty, targets are not read.
  virtual void predict(Context& context, const ParameterStore& parameters, const Batch& batch,
                       const TensorList& outputs, const Tensor& row_losses) const = 0;
};

/// Target of a dry run.
struct Backend {
  DeviceKind device = DeviceKind::kCpu;
  GemmLibrary* gemm_library = nullptr;  ///< of a GPU, records every GEMM; or null
  int world_size = 1;                   ///< ranks, each with its own batch
};

/// Arena memory that `model` needs for training (forward_backward) or prediction with batches of up to
/// `batch_size` samples, measured by a dry run, and the live allocations at its peak.
struct ArenaPlan {
  std::size_t bytes = 0;
  std::vector<MemoryLine> lines;
};
[[nodiscard]] ArenaPlan plan_training(const Model& model, DType compute_type, std::int64_t batch_size,
                                      const Backend& backend = {});
[[nodiscard]] ArenaPlan plan_prediction(const Model& model, DType compute_type, std::int64_t batch_size,
                                        const Backend& backend = {});

}  // namespace voca::engine
