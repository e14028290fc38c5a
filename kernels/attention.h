#pragma once

#include "kernels/philox.h"
#include "kernels/types.h"

// Multi-head scaled dot-product attention with dropout on the probabilities (Vaswani et al. 2017,
// arXiv:1706.03762), fused: the probability matrix is never materialised (Dao et al. 2022, arXiv:2205.14135).
// For each batch b and head n:
//
//   S = Q Kᵀ / sqrt(d),   P = softmax_rows(S),   O = D(P) V
//
// Row t of head n starts at base + (b · length + t) · stride + n · d, so q, k and v may be slices of one
// packed projection. Element (i, j) of head (b, n) has mask index dropout.first_element + (b · heads + n) ·
// attention_mask_size(...) + attention_mask_element(i, j, ...). Forward saves logsumexp = log Σ_j e^{S_ij}.
// Backward recomputes P = e^{S − logsumexp}; with delta_i = Σ dO_i O_i:
//   dV = D(P)ᵀ dO,   dS = P · (D'(dO Vᵀ) − delta),   dQ = dS K / sqrt(d),   dK = dSᵀ Q / sqrt(d).

namespace voca::kernels {

struct AttentionShape {
  std::int64_t batch = 0;
  std::int64_t heads = 0;
  std::int64_t head_size = 0;     ///< d
  std::int64_t query_length = 0;  ///< T_q
  std::int64_t key_length = 0;    ///< T_k
  std::int64_t query_stride = 0;  ///< row stride of q and dq, in elements
  std::int64_t key_stride = 0;    ///< row stride of k and dk, in elements
  std::int64_t value_stride = 0;  ///< row stride of v and dv, in elements
};

template <typename T>
struct AttentionForward {
  AttentionShape shape{};
  const T* q = nullptr;
  const T* k = nullptr;
  const T* v = nullptr;
  Dropout dropout{};
  T* out = nullptr;              ///< (batch, query_length, heads · head_size) contiguous, overwritten
  Stat<T>* logsumexp = nullptr;  ///< (batch, heads, query_length), overwritten; null in inference
  void* scratch = nullptr;       ///< scratch_bytes
};

template <typename T>
struct AttentionBackward {
  AttentionShape shape{};
  const T* dout = nullptr;  ///< same shape as out
  const T* q = nullptr;
  const T* k = nullptr;
  const T* v = nullptr;
  const T* out = nullptr;              ///< saved by forward
  const Stat<T>* logsumexp = nullptr;  ///< saved by forward
  Dropout dropout{};
  T* dq = nullptr;          ///< same layout as q, overwritten
  T* dk = nullptr;          ///< same layout as k, overwritten
  T* dv = nullptr;          ///< same layout as v, overwritten
  void* scratch = nullptr;  ///< scratch_bytes
};

template <typename T>
void attention_forward(Cpu, const AttentionForward<T>& args);
template <typename T>
void attention_backward(Cpu, const AttentionBackward<T>& args);
/// Scratch holds one slice per thread, for the value of threads() at the time of the call.
template <typename T>
[[nodiscard]] std::size_t scratch_bytes(Cpu, const AttentionForward<T>& args);
template <typename T>
[[nodiscard]] std::size_t scratch_bytes(Cpu, const AttentionBackward<T>& args);

[[nodiscard]] constexpr bool attention_is_fused(Cpu, const AttentionShape& /*shape*/) {
  return true;
}

/// Whether a GPU has fused kernels for this shape, in VOCA_TENSOR_CORE_TYPES: head size 32, 64, 96 or 128,
/// strides that are multiples of 8 and at most 2^30, lengths of at most 2^20. Other types and shapes take the
/// unfused path (kernels/softmax.h). attention_forward and attention_backward throw cuda::Error if the shape
/// is not supported, an array is not 16-byte aligned, or dropout is on and dropout.first_element is not a
/// multiple of 8 (multiples of attention_mask_size are).
[[nodiscard]] bool attention_is_fused(Cuda, const AttentionShape& shape);
template <typename T>
void attention_forward(Cuda, const AttentionForward<T>& args);
template <typename T>
[[nodiscard]] std::size_t scratch_bytes(Cuda, const AttentionForward<T>& /*args*/) {
  return 0;
}
template <typename T>
void attention_backward(Cuda, const AttentionBackward<T>& args);
template <typename T>
[[nodiscard]] std::size_t scratch_bytes(Cuda, const AttentionBackward<T>& args);

}  // namespace voca::kernels
