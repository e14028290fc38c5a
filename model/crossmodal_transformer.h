#pragma once

#include <memory>

#include "engine/core/model.h"
#include "model/config.h"

namespace voca::model {

/// What backward reads of the forward pass: kept in memory, or computed again from the inputs of the streams'
/// fusion and of each encoder layer but the last. Gradients are the same bits either way.
enum class Activations : std::uint8_t { kKeep, kRecompute };

/// The detector: two projections, cross-attention, temporal encoder, pooling, classifier, contrastive head.
/// Parameter names are those of the PyTorch module. Inputs of a batch: 0 visual (size, T, visual_dim), 1
/// audio (size, T, audio_dim). Throws UsageError where the configuration does not hold.
[[nodiscard]] std::unique_ptr<engine::Model> make_crossmodal_transformer(
    const ModelConfig& config, const LossConfig& losses, Activations activations = Activations::kKeep);

/// Floating-point operations of one pass over a batch, matrix products and attention, a multiply-add as two.
struct StepFlops {
  double gemm_forward = 0;
  double gemm_backward = 0;
  double attention_forward = 0;
  double attention_backward = 0;  ///< with the recomputation of the probabilities
  double gemm_recompute = 0;      ///< of the forward pass, a second time
  double attention_recompute = 0;

  [[nodiscard]] double all() const {
    return gemm_forward + gemm_backward + attention_forward + attention_backward + gemm_recompute +
           attention_recompute;
  }
};
[[nodiscard]] StepFlops count_flops(const ModelConfig& config, const LossConfig& losses,
                                    std::int64_t batch_size, Activations activations = Activations::kKeep);

}  // namespace voca::model
