#pragma once

#include <memory>

#include "engine/model.h"
#include "model/config.h"

namespace voca::model {

/// The detector: two projections, cross-attention, temporal encoder, pooling, classifier, contrastive head.
/// Parameter names are those of the PyTorch module. Inputs of a batch: 0 visual (size, T, visual_dim), 1
/// audio (size, T, audio_dim). Throws UsageError where the configuration does not hold.
[[nodiscard]] std::unique_ptr<engine::Model> make_crossmodal_transformer(const ModelConfig& config,
                                                                         const LossConfig& losses);

/// Floating-point operations of one pass over a batch, matrix products and attention, a multiply-add as two.
struct StepFlops {
  double gemm_forward = 0;
  double gemm_backward = 0;
  double attention_forward = 0;
  double attention_backward = 0;  ///< with the recomputation of the probabilities
};
[[nodiscard]] StepFlops count_flops(const ModelConfig& config, const LossConfig& losses,
                                    std::int64_t batch_size);

}  // namespace voca::model
