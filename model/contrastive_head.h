#pragma once

#include <span>

#include "model/blocks.h"
#include "model/config.h"

namespace voca::model {

/// Contrastive head: InfoNCE between the means over time of two streams, after a two-layer perceptron and L2
/// normalisation. Samples of the same label are no negatives of each other (kernels/infonce.h).
struct ContrastiveHead {
  Mlp mlp;
  double weight = 0;  ///< of the loss in the gradient
  double temperature = 0.07;
  ContrastiveScope scope = ContrastiveScope::kLocal;
};

struct ContrastiveStep {
  engine::Tensor labels;                       ///< (B) int32
  std::span<const std::int64_t> rows_by_rank;  ///< Batch::rows_by_rank
  engine::GradientScale gradient_scale;
  engine::Tensor loss;  ///< (1), overwritten with the mean loss, without its weight
};

/// Computes the loss between v and a (B, T, H), and overwrites dpooled (2B, H) with the gradient of their
/// means over time, v above a. Gradients of the parameters accumulate. With a global scope and several ranks,
/// takes part in collectives of the context's communicator.
void train_contrast(const Pass& pass, const ContrastiveHead& head, const engine::Tensor& v,
                    const engine::Tensor& a, const ContrastiveStep& step, engine::Tensor dpooled);

}  // namespace voca::model
