#pragma once

#include "kernels/types.h"

// Binary cross-entropy on a logit x, with smoothing s and positive weight w (torch.nn.BCEWithLogitsLoss with
// pos_weight = w on the target t = y (1 − s) + s/2):
//
//   loss_i = (1 − t) · softplus(x) + w · t · softplus(−x),   softplus(x) = max(x, 0) + log1p(e^{−|x|})
//   dlogits_i = grad · loss_scale · ((1 − t) · σ(x) − w · t · σ(−x)) / rows
//
// loss is the mean over the rows. If a label is neither 0 nor 1, its loss and gradient are NaN.

namespace voca::kernels {

template <typename T>
struct BinaryCrossEntropy {
  std::int64_t rows = 0;
  double smoothing = 0;
  double pos_weight = 1;
  double grad = 0;                       ///< factor of the gradient: weight of this loss in the total
  const float* loss_scale = nullptr;     ///< (1), another factor of the gradient; null means 1
  const T* logits = nullptr;             ///< (rows): log-odds of real
  const std::int32_t* labels = nullptr;  ///< (rows): 1 real, 0 fake
  Stat<T>* loss = nullptr;               ///< (1), overwritten
  Stat<T>* row_losses = nullptr;         ///< (rows), overwritten; null if not wanted
  T* dlogits = nullptr;                  ///< (rows), overwritten; null computes only the loss
};

template <typename T>
void binary_cross_entropy(Cpu, const BinaryCrossEntropy<T>& args);

template <typename T>
void binary_cross_entropy(Cuda, const BinaryCrossEntropy<T>& args);

}  // namespace voca::kernels
