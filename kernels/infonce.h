#pragma once

#include <cmath>

#include "kernels/types.h"

// Label-weighted InfoNCE (after van den Oord et al. 2018, arXiv:1807.03748), from visual to audio.
// S = zv · zaᵀ / temperature; M_ij = 2 if column j is the audio of row i, else 1 if the labels agree, else 0:
//
//   loss = −(1/R) Σ_i [ log Σ_j M_ij e^{S_ij} − log(Σ_j e^{S_ij} + 1e-8) ]
//
// The second term is computed as m_i + log(Σ_j e^{S_ij − m_i} + 1e-8 · e^{−m_i}), where m_i is the maximum of
// row i; the first term subtracts the maximum over the columns with M_ij > 0. No finite S overflows a term or
// underflows a whole sum. The minimum of the loss is −ln 2. The R rows are the samples of this rank; the
// C ≥ R columns are the samples of all ranks. The audio of row i is column i + diagonal_offset. With one
// rank, C = R and the offset is 0.
//
// Backward, with W_ij = (e^{S_ij}/(Σ e^{S} + 1e-8) − M_ij e^{S_ij}/Σ M e^{S}) / (R · temperature):
//   dzv = grad · loss_scale · W za,   dza = grad · loss_scale · Wᵀ zv.

namespace voca::kernels {

/// log(1e-8), from the definition of the loss.
inline constexpr double kInfoNceLogFloor = -18.420680743952367;

template <typename T>
struct InfoNce {
  std::int64_t rows = 0;     ///< R
  std::int64_t columns = 0;  ///< C
  std::int64_t width = 0;    ///< elements per embedding
  std::int64_t diagonal_offset = 0;
  double temperature = 0.07;
  const T* zv = nullptr;                        ///< (rows, width), unit rows
  const T* za = nullptr;                        ///< (columns, width), unit rows
  const std::int32_t* row_labels = nullptr;     ///< (rows)
  const std::int32_t* column_labels = nullptr;  ///< (columns)
  double grad = 0;                              ///< factor of the gradients: weight of this loss in the total
  const float* loss_scale = nullptr;            ///< (1), another factor of the gradients; null means 1
  Stat<T>* loss = nullptr;                      ///< (1), overwritten; mean over the rows
  T* dzv = nullptr;                             ///< (rows, width), overwritten; null computes only the loss
  T* dza = nullptr;                             ///< (columns, width), overwritten; null if dzv is null
  void* scratch = nullptr;                      ///< scratch_bytes
};

/// M_ij.
template <typename T>
[[nodiscard]] VOCA_HOST_DEVICE double label_weight(const InfoNce<T>& args, std::int64_t i, std::int64_t j) {
  if (j == i + args.diagonal_offset) return 2.0;
  return args.column_labels[j] == args.row_labels[i] ? 1.0 : 0.0;
}

/// log(e^a + e^b) without overflow; NaN if a or b is NaN.
[[nodiscard]] VOCA_HOST_DEVICE inline double log_add_exp(double a, double b) {
  const double high = a < b ? b : a;
  const double low = a < b ? a : b;
  return high + std::log1p(std::exp(low - high));
}

/// Computes the loss and, if dzv is not null, both gradients.
template <typename T>
void infonce(Cpu, const InfoNce<T>& args);
template <typename T>
[[nodiscard]] std::size_t scratch_bytes(Cpu, const InfoNce<T>& args);

template <typename T>
void infonce(Cuda, const InfoNce<T>& args);
template <typename T>
[[nodiscard]] std::size_t scratch_bytes(Cuda, const InfoNce<T>& args);

}  // namespace voca::kernels
