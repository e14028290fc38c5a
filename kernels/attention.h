#pragma once

#include "kernels/philox.h"
#include "kernels/types.h"

// Multi-head scaled dot-product attention with dropout on the probabilities (Vaswani et al. 2017,
// arXiv:1706.03762), fused: the matrix of probabilities never leaves the core (Dao et al. 2022,
// arXiv:2205.14135). For each batch b and head n:
//
//   S = Q Kᵀ / sqrt(d),   P = softmax_rows(S),   O = D(P) V
//
// Head n of row t of a projected array lies at base + (b · length + t) · stride + n · d: q, k and v may be
// slices of one packed projection. Decision (b, n, i, j) of the mask is (b · heads + n) ·
// attention_mask_size(...) + attention_mask_element(i, j, ...), counted from dropout.first_element. Forward
// saves logsumexp = log Σ_j e^{S_ij}. Backward recomputes P = e^{S − logsumexp}, and with delta_i = Σ dO_i
// O_i:
//   dV = D(P)ᵀ dO,   dS = P · (D'(dO Vᵀ) − delta),   dQ = dS K / sqrt(d),   dK = dSᵀ Q / sqrt(d).

namespace voca::kernels {

struct AttentionShape {
  std::int64_t batch = 0;
  std::int64_t heads = 0;
  std::int64_t head_size = 0;     ///< d
  std::int64_t query_length = 0;  ///< T_q
  std::int64_t key_length = 0;    ///< T_k
  std::int64_t query_stride = 0;  ///< elements from one row of q to the next; likewise dq
  std::int64_t key_stride = 0;    ///< likewise k, dk
  std::int64_t value_stride = 0;  ///< likewise v, dv
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
  void* scratch = nullptr;       ///< attention_forward_scratch_bytes
};

template <typename T>
struct AttentionBackward {
  AttentionShape shape{};
  const T* dout = nullptr;  ///< as out
  const T* q = nullptr;
  const T* k = nullptr;
  const T* v = nullptr;
  const T* out = nullptr;              ///< of forward
  const Stat<T>* logsumexp = nullptr;  ///< of forward
  Dropout dropout{};
  T* dq = nullptr;  ///< laid out as q, overwritten; likewise dk, dv
  T* dk = nullptr;
  T* dv = nullptr;
  void* scratch = nullptr;  ///< attention_backward_scratch_bytes
};

namespace cpu {
template <typename T>
void attention_forward(const AttentionForward<T>& args);
template <typename T>
void attention_backward(const AttentionBackward<T>& args);
/// Scratch is a slice for each thread, for the number of threads set when it is asked for.
template <typename T>
[[nodiscard]] std::size_t attention_forward_scratch_bytes(const AttentionShape& shape);
template <typename T>
[[nodiscard]] std::size_t attention_backward_scratch_bytes(const AttentionShape& shape);
}  // namespace cpu

/// bf16 and fp16, on the tensor cores; float takes the general path. `stream` is a cudaStream_t.
namespace cuda {
/// Whether the fused kernels run this shape: head size 32, 64, 96 or 128, strides that are multiples of 8 and
/// at most 2^30, lengths of at most 2^20. Other shapes take the general path (kernels/softmax.h). Arrays
/// start at multiples of 16 bytes and dropout.first_element is a multiple of 8, as one of attention_mask_size
/// is; they throw otherwise.
[[nodiscard]] bool attention_is_fused(const AttentionShape& shape);
template <typename T>
void attention_forward(const AttentionForward<T>& args, void* stream);
template <typename T>
void attention_backward(const AttentionBackward<T>& args, void* stream);
/// Forward needs none.
[[nodiscard]] std::size_t attention_backward_scratch_bytes(const AttentionShape& shape);
}  // namespace cuda

}  // namespace voca::kernels
