#pragma once

#include "kernels/types.h"

// Label-weighted InfoNCE (after van den Oord et al. 2018, arXiv:1807.03748), from visual to audio. With S =
// zv · zaᵀ / temperature, M_ij = 2 where j is row i's own audio, else 1 where the labels agree, else 0:
//
//   loss = −(1/R) Σ_i [ log Σ_j M_ij e^{S_ij} − log(Σ_j e^{S_ij} + 1e-8) ]
//
// computed with the row maximum m_i subtracted: the second term is m_i + log(Σ_j e^{S_ij − m_i} + 1e-8 ·
// e^{−m_i}); the first has the maximum over its own columns subtracted, so that no finite S overflows a term
// or makes a sum vanish. Its minimum is −ln 2. Rows are this rank's samples (R of them); columns are those of
// all ranks (C ≥ R), row i's own audio being column i + diagonal_offset. With one rank R = C and the offset
// is 0. Backward, with W_ij = (e^{S_ij}/(Σ e^{S} + 1e-8) − M_ij e^{S_ij}/Σ M e^{S}) / (R · temperature):
//   dzv = grad · loss_scale · W za,   dza = grad · loss_scale · Wᵀ zv.

namespace voca::kernels {

template <typename T>
struct InfoNce {
  std::int64_t rows = 0;     ///< R
  std::int64_t columns = 0;  ///< C
  std::int64_t width = 0;    ///< of an embedding
  std::int64_t diagonal_offset = 0;
  double temperature = 0.07;
  const T* zv = nullptr;                        ///< (rows, width), unit rows
  const T* za = nullptr;                        ///< (columns, width), unit rows
  const std::int32_t* row_labels = nullptr;     ///< (rows)
  const std::int32_t* column_labels = nullptr;  ///< (columns)
  double grad = 0;                              ///< factor of the gradients: the loss's weight in the total
  const float* loss_scale = nullptr;            ///< (1) a further factor of the gradient; null: 1
  Stat<T>* loss = nullptr;                      ///< (1), overwritten: the mean over the rows
  T* dzv = nullptr;                             ///< (rows, width), overwritten; null computes the loss alone
  T* dza = nullptr;                             ///< (columns, width), overwritten; null when dzv is
  void* scratch = nullptr;                      ///< infonce_scratch_bytes
};

namespace cpu {
/// The loss and, where asked for, both gradients.
template <typename T>
void infonce(const InfoNce<T>& args);
template <typename T>
[[nodiscard]] std::size_t infonce_scratch_bytes(std::int64_t rows, std::int64_t columns);
}  // namespace cpu

/// float, bf16 and fp16. `stream` is a cudaStream_t.
namespace cuda {
template <typename T>
void infonce(const InfoNce<T>& args, void* stream);
[[nodiscard]] std::size_t infonce_scratch_bytes(std::int64_t rows, std::int64_t columns);
}  // namespace cuda

}  // namespace voca::kernels
