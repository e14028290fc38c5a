#pragma once

#include "kernels/types.h"

// Softmax cross-entropy over K classes with label smoothing s (Szegedy et al. 2016;
// torch.nn.CrossEntropyLoss):
//
//   target_k = (1 − s) · [k = label] + s/K,   loss_i = logsumexp(x_i) − Σ_k target_k x_ik
//   dlogits_ik = grad · loss_scale · (softmax(x_i)_k − target_k) / rows
//
// loss is the mean over the rows. If a label is outside [0, K), its loss and gradient are NaN.

namespace voca::kernels {

template <typename T>
struct SoftmaxCrossEntropy {
  std::int64_t rows = 0;
  std::int64_t classes = 0;
  double smoothing = 0;
  double grad = 0;                       ///< factor of the gradient
  const float* loss_scale = nullptr;     ///< (1), another factor of the gradient; null means 1
  const T* logits = nullptr;             ///< (rows, classes)
  const std::int32_t* labels = nullptr;  ///< (rows), in [0, classes)
  Stat<T>* loss = nullptr;               ///< (1), overwritten
  Stat<T>* row_losses = nullptr;         ///< (rows), overwritten; null if not wanted
  T* dlogits = nullptr;                  ///< (rows, classes), overwritten; null computes only the loss
};

template <typename T>
void softmax_cross_entropy(Cpu, const SoftmaxCrossEntropy<T>& args);

template <typename T>
void softmax_cross_entropy(Cuda, const SoftmaxCrossEntropy<T>& args);

}  // namespace voca::kernels
