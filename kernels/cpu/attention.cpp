#include "kernels/attention.h"

#include <cmath>

#include "kernels/cpu/dropout.h"
#include "kernels/cpu/math.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/serial_gemm.h"

namespace voca::kernels {

using namespace cpu;

namespace {

constexpr std::int64_t kTile = 16;  // edge of a mask tile

// Query rows per block. Depends only on the shape: a block has at most 128 Ki scores, unless 16 rows have
// more.
std::int64_t block_rows(const AttentionShape& shape) {
  const std::int64_t fit = 131072 / std::max<std::int64_t>(shape.key_length, 1) / kTile * kTile;
  return std::clamp<std::int64_t>(fit, kTile, 128);
}

// Row stride of a block of mask decisions, in elements.
std::int64_t mask_stride(const AttentionShape& shape) {
  return divide_up(shape.key_length, kTile) * kTile;
}

// Upper bound of the scratch of the GEMMs of one head.
template <typename T>
std::size_t gemm_bytes(const AttentionShape& shape) {
  const std::int64_t longest = std::max(shape.key_length, shape.head_size);
  return serial_gemm_bytes(Gemm<T>{.n = longest, .k = std::max(longest, block_rows(shape))});
}

// Scratch of one thread: `matrices` blocks of scores, the mask decisions of a block, and that of the GEMMs.
template <typename T>
struct Scratch {
  Scratch(const AttentionShape& shape, std::size_t matrix_count, void* base, int thread)
      : matrices(matrix_count),
        block_bytes(align_up(static_cast<std::size_t>(block_rows(shape) * shape.key_length) * sizeof(T))),
        bits_bytes(align_up(static_cast<std::size_t>(block_rows(shape) * mask_stride(shape)) *
                            sizeof(std::uint16_t))),
        bytes(matrices * block_bytes + bits_bytes + gemm_bytes<T>(shape)),
        slice(static_cast<std::byte*>(base) + static_cast<std::size_t>(thread) * bytes) {}

  [[nodiscard]] T* block(int i) const {
    return reinterpret_cast<T*>(slice + static_cast<std::size_t>(i) * block_bytes);
  }
  [[nodiscard]] std::uint16_t* bits() const {
    return reinterpret_cast<std::uint16_t*>(slice + matrices * block_bytes);
  }
  [[nodiscard]] void* gemm() const { return slice + matrices * block_bytes + bits_bytes; }

  std::size_t matrices;
  std::size_t block_bytes;
  std::size_t bits_bytes;
  std::size_t bytes;
  std::byte* slice;
};

template <typename T>
void multiply(const Scratch<T>& scratch, const Gemm<std::type_identity_t<T>>& args) {
  serial_gemm<T>(args, scratch.gemm());
}

template <typename T>
std::size_t slices_bytes(const AttentionShape& shape, std::size_t matrices) {
  std::byte unused{};
  return Scratch<T>(shape, matrices, &unused, 0).bytes * static_cast<std::size_t>(threads());
}

// Mask decisions of `rows` query rows from `first_row` on.
void block_bits(const Dropout& dropout, const AttentionShape& shape, std::int64_t matrix,
                std::int64_t first_row, std::int64_t rows, std::uint16_t* bits) {
  for (std::int64_t row = 0; row < rows; row += kTile) {
    for (std::int64_t column = 0; column < shape.key_length; column += kTile) {
      attention_dropout_tile(dropout, matrix, first_row + row, column, shape.query_length, shape.key_length,
                             mask_stride(shape), bits + row * mask_stride(shape) + column);
    }
  }
}

// Offset of one (batch, head) in an array with row stride `stride`.
std::int64_t head_offset(const AttentionShape& shape, std::int64_t matrix, std::int64_t length,
                         std::int64_t stride) {
  return matrix / shape.heads * length * stride + matrix % shape.heads * shape.head_size;
}

// S = scale · Q Kᵀ for `rows` query rows.
template <typename T>
void scores(const Scratch<T>& scratch, const AttentionShape& shape, std::int64_t rows, T scale, const T* q,
            const T* k, T* s) {
  multiply(scratch, {.transpose_b = Transpose::kYes,
                     .m = rows,
                     .n = shape.key_length,
                     .k = shape.head_size,
                     .alpha = scale,
                     .a = q,
                     .lda = shape.query_stride,
                     .b = k,
                     .ldb = shape.key_stride,
                     .c = s,
                     .ldc = shape.key_length});
}

template <typename T>
T softmax_scale(const AttentionShape& shape) {
  return static_cast<T>(1.0 / std::sqrt(static_cast<double>(shape.head_size)));
}

// Replaces S with D(P), row by row; writes the log-sum-exp of each row if wanted.
template <typename T>
void softmax_and_drop(const AttentionForward<T>& args, std::int64_t matrix, std::int64_t first_row,
                      std::int64_t rows, T* s, const std::uint16_t* bits) {
  const std::int64_t n = args.shape.key_length;
  const auto threshold = static_cast<std::int32_t>(args.dropout.threshold);
  const T keep_scale = static_cast<T>(args.dropout.scale());
  for (std::int64_t i = 0; i < rows; ++i) {
    T* row = s + i * n;
    const std::uint16_t* row_bits = bits + i * mask_stride(args.shape);
    const T most = lane_max(n, row);
    const T sum = lane_sum<T>(n, [=](std::int64_t j) {
      const T e = exponential(row[j] - most);
      row[j] = e;
      return e;
    });
    const T factor = keep_scale / sum;
#pragma omp simd
    for (std::int64_t j = 0; j < n; ++j) row[j] *= dropout_factor(row_bits[j], threshold, factor);
    if (args.logsumexp != nullptr) {
      args.logsumexp[matrix * args.shape.query_length + first_row + i] = most + std::log(sum);
    }
  }
}

template <typename T>
void forward_head(const AttentionForward<T>& args, std::int64_t matrix, const Scratch<T>& scratch) {
  const AttentionShape& shape = args.shape;
  const std::int64_t out_stride = shape.heads * shape.head_size;
  const T* q = args.q + head_offset(shape, matrix, shape.query_length, shape.query_stride);
  const T* k = args.k + head_offset(shape, matrix, shape.key_length, shape.key_stride);
  const T* v = args.v + head_offset(shape, matrix, shape.key_length, shape.value_stride);
  T* out = args.out + head_offset(shape, matrix, shape.query_length, out_stride);
  for (std::int64_t row = 0; row < shape.query_length; row += block_rows(shape)) {
    const std::int64_t rows = std::min(block_rows(shape), shape.query_length - row);
    block_bits(args.dropout, shape, matrix, row, rows, scratch.bits());
    scores(scratch, shape, rows, softmax_scale<T>(shape), q + row * shape.query_stride, k, scratch.block(0));
    softmax_and_drop(args, matrix, row, rows, scratch.block(0), scratch.bits());
    multiply(scratch, {.m = rows,
                       .n = shape.head_size,
                       .k = shape.key_length,
                       .a = scratch.block(0),
                       .lda = shape.key_length,
                       .b = v,
                       .ldb = shape.value_stride,
                       .c = out + row * out_stride,
                       .ldc = out_stride});
  }
}

// Replaces the block of S in `p` with P and writes D(P) to `dropped`.
template <typename T>
void recompute_probabilities(const AttentionBackward<T>& args, std::int64_t matrix, std::int64_t first_row,
                             std::int64_t rows, T* p, T* dropped, const std::uint16_t* bits) {
  const std::int64_t n = args.shape.key_length;
  const auto threshold = static_cast<std::int32_t>(args.dropout.threshold);
  const T keep_scale = static_cast<T>(args.dropout.scale());
  const Stat<T>* logsumexp = args.logsumexp + matrix * args.shape.query_length + first_row;
  for (std::int64_t i = 0; i < rows; ++i) {
    const std::uint16_t* row_bits = bits + i * mask_stride(args.shape);
    T* p_row = p + i * n;
    T* dropped_row = dropped + i * n;
    const T shift = logsumexp[i];
#pragma omp simd
    for (std::int64_t j = 0; j < n; ++j) {
      const T e = exponential(p_row[j] - shift);
      p_row[j] = e;
      dropped_row[j] = e * dropout_factor(row_bits[j], threshold, keep_scale);
    }
  }
}

// Replaces the block of dO Vᵀ in `dp` with dS = P · (D'(dP) − delta).
template <typename T>
void score_gradient(const AttentionBackward<T>& args, std::int64_t rows, const T* dout, const T* out,
                    const T* p, T* dp, const std::uint16_t* bits) {
  const std::int64_t n = args.shape.key_length;
  const std::int64_t out_stride = args.shape.heads * args.shape.head_size;
  const auto threshold = static_cast<std::int32_t>(args.dropout.threshold);
  const T keep_scale = static_cast<T>(args.dropout.scale());
  for (std::int64_t i = 0; i < rows; ++i) {
    const std::uint16_t* row_bits = bits + i * mask_stride(args.shape);
    const T* dout_row = dout + i * out_stride;
    const T* out_row = out + i * out_stride;
    const T delta =
        lane_sum<T>(args.shape.head_size, [=](std::int64_t j) { return dout_row[j] * out_row[j]; });
    const T* p_row = p + i * n;
    T* dp_row = dp + i * n;
#pragma omp simd
    for (std::int64_t j = 0; j < n; ++j) {
      dp_row[j] = p_row[j] * (dp_row[j] * dropout_factor(row_bits[j], threshold, keep_scale) - delta);
    }
  }
}

// C (key_length × head_size) = alpha · Aᵀ B + beta · C over a block of query rows.
template <typename T>
void reduce_rows(const Scratch<T>& scratch, const AttentionShape& shape, std::int64_t rows, T alpha,
                 const T* a, const T* b, std::int64_t ldb, T beta, T* c, std::int64_t ldc) {
  multiply(scratch, {.transpose_a = Transpose::kYes,
                     .m = shape.key_length,
                     .n = shape.head_size,
                     .k = rows,
                     .alpha = alpha,
                     .a = a,
                     .lda = shape.key_length,
                     .b = b,
                     .ldb = ldb,
                     .beta = beta,
                     .c = c,
                     .ldc = ldc});
}

template <typename T>
void backward_head(const AttentionBackward<T>& args, std::int64_t matrix, const Scratch<T>& scratch) {
  const AttentionShape& shape = args.shape;
  const std::int64_t out_stride = shape.heads * shape.head_size;
  const std::int64_t q_offset = head_offset(shape, matrix, shape.query_length, shape.query_stride);
  const std::int64_t k_offset = head_offset(shape, matrix, shape.key_length, shape.key_stride);
  const std::int64_t v_offset = head_offset(shape, matrix, shape.key_length, shape.value_stride);
  const std::int64_t out_offset = head_offset(shape, matrix, shape.query_length, out_stride);
  const T scale = softmax_scale<T>(shape);
  T* p = scratch.block(0);
  T* other = scratch.block(1);
  for (std::int64_t row = 0; row < shape.query_length; row += block_rows(shape)) {
    const std::int64_t rows = std::min(block_rows(shape), shape.query_length - row);
    const T first_or_more = static_cast<T>(row == 0 ? 0 : 1);
    const T* q = args.q + q_offset + row * shape.query_stride;
    const T* dout = args.dout + out_offset + row * out_stride;
    block_bits(args.dropout, shape, matrix, row, rows, scratch.bits());
    scores(scratch, shape, rows, scale, q, args.k + k_offset, p);
    recompute_probabilities(args, matrix, row, rows, p, other, scratch.bits());
    reduce_rows(scratch, shape, rows, T{1}, other, dout, out_stride, first_or_more, args.dv + v_offset,
                shape.value_stride);
    multiply(scratch, {.transpose_b = Transpose::kYes,
                       .m = rows,
                       .n = shape.key_length,
                       .k = shape.head_size,
                       .a = dout,
                       .lda = out_stride,
                       .b = args.v + v_offset,
                       .ldb = shape.value_stride,
                       .c = other,
                       .ldc = shape.key_length});
    score_gradient(args, rows, dout, args.out + out_offset + row * out_stride, p, other, scratch.bits());
    multiply(scratch, {.m = rows,
                       .n = shape.head_size,
                       .k = shape.key_length,
                       .alpha = scale,
                       .a = other,
                       .lda = shape.key_length,
                       .b = args.k + k_offset,
                       .ldb = shape.key_stride,
                       .c = args.dq + q_offset + row * shape.query_stride,
                       .ldc = shape.query_stride});
    reduce_rows(scratch, shape, rows, scale, other, q, shape.query_stride, first_or_more, args.dk + k_offset,
                shape.key_stride);
  }
}

}  // namespace

template <typename T>
void attention_forward(Cpu, const AttentionForward<T>& args) {
  parallel_for(args.shape.batch * args.shape.heads, [&](std::int64_t matrix, int thread) {
    forward_head(args, matrix, Scratch<T>(args.shape, 1, args.scratch, thread));
  });
}

template <typename T>
void attention_backward(Cpu, const AttentionBackward<T>& args) {
  parallel_for(args.shape.batch * args.shape.heads, [&](std::int64_t matrix, int thread) {
    backward_head(args, matrix, Scratch<T>(args.shape, 2, args.scratch, thread));
  });
}

template <typename T>
std::size_t scratch_bytes(Cpu, const AttentionForward<T>& args) {
  return slices_bytes<T>(args.shape, 1);
}

template <typename T>
std::size_t scratch_bytes(Cpu, const AttentionBackward<T>& args) {
  return slices_bytes<T>(args.shape, 2);
}

#define VOCA_INSTANTIATE(T)                                            \
  template void attention_forward(Cpu, const AttentionForward<T>&);    \
  template void attention_backward(Cpu, const AttentionBackward<T>&);  \
  template std::size_t scratch_bytes(Cpu, const AttentionForward<T>&); \
  template std::size_t scratch_bytes(Cpu, const AttentionBackward<T>&);
VOCA_CPU_TYPES(VOCA_INSTANTIATE)

}  // namespace voca::kernels
