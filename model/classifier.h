#pragma once

#include "model/blocks.h"

namespace voca::model {

/// Classification head: mean and max over time, a two-layer perceptron, cross-entropy. Labels are int32 (B).
struct Classifier {
  Mlp mlp;
  std::int64_t classes = 1;    ///< 1: one logit, binary cross-entropy; K ≥ 2: softmax
  double label_smoothing = 0;  ///< s in [0, 1)
  double pos_weight = 1;       ///< of label 1; binary only
};

/// x (B, T, H) → logits (B, classes), overwritten.
void classify(const Pass& pass, const Classifier& head, const engine::Tensor& x, engine::Tensor logits);

/// Overwrites `row_losses` (B), of the statistics type, with each sample's cross-entropy.
void classification_losses(const Pass& pass, const Classifier& head, const engine::Tensor& logits,
                           const engine::Tensor& labels, engine::Tensor row_losses);

struct ClassifierStep {
  engine::Tensor labels;
  engine::GradientScale gradient_scale;
  engine::Tensor logits;  ///< (B, classes), overwritten
  engine::Tensor loss;    ///< (1), overwritten with the mean cross-entropy
};
/// Runs from x (B, T, H) to the loss and back; overwrites dx. Gradients of the parameters accumulate.
void train_classifier(const Pass& pass, const Classifier& head, const engine::Tensor& x,
                      const ClassifierStep& step, engine::Tensor dx);

}  // namespace voca::model
