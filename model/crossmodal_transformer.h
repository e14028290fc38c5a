#pragma once

#include <memory>

#include "engine/core/model.h"
#include "model/config.h"

namespace voca::model {

/// Activations for backward: kept in memory, or recomputed (activation checkpointing) from the inputs of the
/// fusion of the streams and of every encoder layer except the last. Gradients are bitwise the same either
/// way.
enum class Activations : std::uint8_t { kKeep, kRecompute };

/// The detector: two projections, cross-attention, temporal encoder, pooling, classifier, contrastive head.
/// Parameters are named as in the PyTorch module. Inputs: "visual" (T, visual_dim), "audio" (T, audio_dim);
/// target kLabel, output kLogits (model/tasks/detection.h); losses "loss", "cls", "con". Throws UsageError if
/// the configuration is invalid.
[[nodiscard]] std::unique_ptr<engine::Model> make_crossmodal_transformer(
    const ModelConfig& config, const LossConfig& losses, Activations activations = Activations::kKeep);

/// Floating-point operations of one pass over a batch in GEMM and attention; a multiply-add counts as two.
struct StepFlops {
  double gemm_forward = 0;
  double gemm_backward = 0;
  double attention_forward = 0;
  double attention_backward = 0;  ///< includes the recomputation of the probabilities
  double gemm_recompute = 0;      ///< recomputed part of the forward pass
  double attention_recompute = 0;

  [[nodiscard]] double all() const {
    return gemm_forward + gemm_backward + attention_forward + attention_backward + gemm_recompute +
           attention_recompute;
  }
};
[[nodiscard]] StepFlops count_flops(const ModelConfig& config, const LossConfig& losses,
                                    std::int64_t batch_size, Activations activations = Activations::kKeep);

}  // namespace voca::model
