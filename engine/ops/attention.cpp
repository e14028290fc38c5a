#include "kernels/attention.h"

#include <cmath>

#include "engine/ops/check.h"
#include "engine/ops/ops.h"
#include "kernels/gemm.h"
#include "kernels/softmax.h"

namespace voca::engine::ops {
namespace {

using kernels::AttentionShape;
using kernels::Transpose;

// First element of a piece. The row stride is the packed row's; a piece has `hidden` elements per row.
template <typename T>
T* begin_of(const Heads& heads, std::int64_t hidden) {
  T* base = heads.packed.as<T>();
  return base == nullptr ? nullptr : base + heads.piece * hidden;
}

void expect_heads(const Context& context, const char* operation, const Heads& heads, std::int64_t batch,
                  std::int64_t hidden, DType dtype) {
  const Tensor& packed = heads.packed;
  expect(context, operation, packed, packed.shape, dtype);
  if (packed.shape.rank() != 3 || packed.shape[0] != batch || packed.shape[2] % hidden != 0 ||
      heads.piece < 0 || (heads.piece + 1) * hidden > packed.shape[2]) {
    throw InternalError("{}: tensor {} {} has no piece {} of width {} for a batch of {}", operation,
                        packed.name, to_string(packed.shape), heads.piece, hidden, batch);
  }
}

AttentionShape shape_of(const Heads& q, const Heads& k, const Heads& v, std::int64_t heads,
                        std::int64_t hidden) {
  return {.batch = q.packed.shape[0],
          .heads = heads,
          .head_size = hidden / heads,
          .query_length = q.packed.shape[1],
          .key_length = k.packed.shape[1],
          .query_stride = q.packed.shape[2],
          .key_stride = k.packed.shape[2],
          .value_stride = v.packed.shape[2]};
}

template <typename T>
struct Operand {
  T* data;
  std::int64_t row_stride;
  std::int64_t length;
  bool per_head;  ///< (batch · heads, length, columns), rather than heads side by side within a row
};

// One GEMM for every batch and head, c = op(a) · op(b): one call per head, batched over samples.
template <typename T>
void per_head_products(Context& context, const AttentionShape& s, Transpose ta, Transpose tb, std::int64_t m,
                       std::int64_t n, std::int64_t k, const Operand<T>& a, const Operand<T>& b,
                       const Operand<T>& c) {
  const auto at = [&s](const Operand<T>& x, std::int64_t head) -> T* {
    if (x.data == nullptr) return nullptr;
    return x.data + head * (x.per_head ? x.length * x.row_stride : s.head_size);
  };
  const auto stride = [&s](const Operand<T>& x) {
    return (x.per_head ? s.heads : 1) * x.length * x.row_stride;
  };
  // Heads start at multiples of the head size, matrices at multiples of query_length · key_length.
  const int alignment = alignment_of(
      s.head_size | s.query_stride | s.key_stride | s.value_stride | s.query_length * s.key_length,
      kDTypeOf<T>);
  for (std::int64_t head = 0; head < s.heads; ++head) {
    if (context.backend() == DeviceKind::kCuda) {
      multiply(context, {.dtype = kDTypeOf<T>,
                         .transpose_a = ta,
                         .transpose_b = tb,
                         .m = m,
                         .n = n,
                         .k = k,
                         .a = at(a, head),
                         .lda = a.row_stride,
                         .b = at(b, head),
                         .ldb = b.row_stride,
                         .c = at(c, head),
                         .ldc = c.row_stride,
                         .batch = s.batch,
                         .stride_a = stride(a),
                         .stride_b = stride(b),
                         .stride_c = stride(c),
                         .alignment = alignment});
      continue;
    }
    if constexpr (kOnCpu<T>) {
      if (context.device() == DeviceKind::kMeta) return;
      kernels::cpu::batched_gemm<T>({.one = {.transpose_a = ta,
                                             .transpose_b = tb,
                                             .m = m,
                                             .n = n,
                                             .k = k,
                                             .a = at(a, head),
                                             .lda = a.row_stride,
                                             .b = at(b, head),
                                             .ldb = b.row_stride,
                                             .c = at(c, head),
                                             .ldc = c.row_stride},
                                     .batch = s.batch,
                                     .stride_a = stride(a),
                                     .stride_b = stride(b),
                                     .stride_c = stride(c)});
    }
  }
}

template <typename T>
struct GeneralPath {
  Context& context;
  const AttentionShape& shape;
  Tensor probabilities;
  Tensor dropped;

  GeneralPath(Context& c, const AttentionShape& s)
      : context(c),
        shape(s),
        probabilities(c.allocate("attention probabilities", {s.batch * s.heads, s.query_length, s.key_length},
                                 kDTypeOf<T>)),
        dropped(c.allocate("dropped attention probabilities", probabilities.shape, kDTypeOf<T>)) {}

  Operand<T> queries(T* data) const { return {data, shape.query_stride, shape.query_length, false}; }
  Operand<T> keys(T* data) const { return {data, shape.key_stride, shape.key_length, false}; }
  Operand<T> values(T* data) const { return {data, shape.value_stride, shape.key_length, false}; }
  Operand<T> outputs(T* data) const {
    return {data, shape.heads * shape.head_size, shape.query_length, false};
  }
  [[nodiscard]] Operand<T> matrix(const Tensor& tensor) const {
    return {tensor.as<T>(), shape.key_length, shape.query_length, true};
  }
  [[nodiscard]] double scale() const { return 1.0 / std::sqrt(static_cast<double>(shape.head_size)); }

  /// probabilities = softmax(Q Kᵀ · scale), dropped = D(probabilities).
  void compute_probabilities(T* q, T* k, const Dropout& dropout) {
    per_head_products<T>(context, shape, Transpose::kNo, Transpose::kYes, shape.query_length,
                         shape.key_length, shape.head_size, queries(q), keys(k), matrix(probabilities));
    const kernels::SoftmaxForward<T> args{.batch = shape.batch * shape.heads,
                                          .query_length = shape.query_length,
                                          .key_length = shape.key_length,
                                          .scale = scale(),
                                          .scores = probabilities.as<T>(),
                                          .dropout = dropout,
                                          .probabilities = probabilities.as<T>(),
                                          .dropped = dropped.as<T>()};
    VOCA_DISPATCH(context, softmax_forward, args);
  }
};

template <typename T>
void general_forward(Context& context, const AttentionShape& s, const Attention& a, std::int64_t hidden) {
  GeneralPath<T> path(context, s);
  path.compute_probabilities(begin_of<T>(a.q, hidden), begin_of<T>(a.k, hidden), a.dropout);
  per_head_products<T>(context, s, Transpose::kNo, Transpose::kNo, s.query_length, s.head_size, s.key_length,
                       path.matrix(path.dropped), path.values(begin_of<T>(a.v, hidden)),
                       path.outputs(a.out.as<T>()));
}

template <typename T>
void general_backward(Context& context, const AttentionShape& s, const AttentionGradient& g,
                      std::int64_t hidden) {
  GeneralPath<T> path(context, s);
  T* q = begin_of<T>(g.q, hidden);
  T* k = begin_of<T>(g.k, hidden);
  T* v = begin_of<T>(g.v, hidden);
  path.compute_probabilities(q, k, g.dropout);
  const Operand<T> dout = path.outputs(g.dout.as<T>());
  per_head_products<T>(context, s, Transpose::kYes, Transpose::kNo, s.key_length, s.head_size, s.query_length,
                       path.matrix(path.dropped), dout, path.values(begin_of<T>(g.dv, hidden)));
  const Operand<T> dscores = path.matrix(path.dropped);  // the dropped probabilities are no longer needed
  per_head_products<T>(context, s, Transpose::kNo, Transpose::kYes, s.query_length, s.key_length, s.head_size,
                       dout, path.values(v), dscores);
  const kernels::SoftmaxBackward<T> args{.batch = s.batch * s.heads,
                                         .query_length = s.query_length,
                                         .key_length = s.key_length,
                                         .scale = path.scale(),
                                         .ddropped = dscores.data,
                                         .probabilities = path.probabilities.template as<T>(),
                                         .dropout = g.dropout,
                                         .dscores = dscores.data};
  VOCA_DISPATCH(context, softmax_backward, args);
  per_head_products<T>(context, s, Transpose::kNo, Transpose::kNo, s.query_length, s.head_size, s.key_length,
                       dscores, path.keys(k), path.queries(begin_of<T>(g.dq, hidden)));
  per_head_products<T>(context, s, Transpose::kYes, Transpose::kNo, s.key_length, s.head_size, s.query_length,
                       dscores, path.queries(q), path.keys(begin_of<T>(g.dk, hidden)));
}

// The fused path exists on the CPU for every shape, on a GPU for 16-bit types and some head sizes.

template <typename T>
inline constexpr bool kFusedOnCuda = kOnCuda<T> && !std::is_same_v<T, float>;

template <typename T>
bool is_fused(const Context& context, const AttentionShape& s, AttentionPath path) {
  if (path == AttentionPath::kGeneral) return false;
  if (context.backend() == DeviceKind::kCpu) return true;
  if constexpr (kFusedOnCuda<T>) return kernels::cuda::attention_is_fused(s);
  return false;
}

template <typename T>
void run_fused(const Context& context, const kernels::AttentionForward<T>& args) {
  if constexpr (kOnCpu<T>) {
    if (context.device() == DeviceKind::kCpu) kernels::cpu::attention_forward(args);
  }
  if constexpr (kFusedOnCuda<T>) {
    if (context.device() == DeviceKind::kCuda) kernels::cuda::attention_forward(args, context.stream);
  }
}

template <typename T>
void run_fused(const Context& context, const kernels::AttentionBackward<T>& args) {
  if constexpr (kOnCpu<T>) {
    if (context.device() == DeviceKind::kCpu) kernels::cpu::attention_backward(args);
  }
  if constexpr (kFusedOnCuda<T>) {
    if (context.device() == DeviceKind::kCuda) kernels::cuda::attention_backward(args, context.stream);
  }
}

}  // namespace

void attention(Context& context, const Attention& a) {
  VOCA_CHECK(a.out.shape.rank() == 3 && a.heads > 0);
  const std::int64_t hidden = a.out.shape[2];
  const std::int64_t batch = a.out.shape[0];
  const DType dtype = a.out.dtype;
  expect_heads(context, "attention", a.q, batch, hidden, dtype);
  expect_heads(context, "attention", a.k, batch, hidden, dtype);
  expect_heads(context, "attention", a.v, batch, hidden, dtype);
  const AttentionShape s = shape_of(a.q, a.k, a.v, a.heads, hidden);
  VOCA_CHECK(a.v.packed.shape[1] == s.key_length && hidden % a.heads == 0);
  expect(context, "attention", a.out, {batch, s.query_length, hidden}, dtype);
  expect_optional(context, "attention", a.logsumexp, {batch, a.heads, s.query_length},
                  statistics_type(dtype));
  by_type("attention", dtype, [&]<typename T>() {
    const ArenaScope scope(context.arena);
    if (!is_fused<T>(context, s, a.path)) return general_forward<T>(context, s, a, hidden);
    const Tensor scratch = context.arena.scratch(
        "attention scratch",
        VOCA_SCRATCH_BYTES(context, "attention", kernels::cpu::attention_forward_scratch_bytes<T>(s), 0));
    const kernels::AttentionForward<T> args{.shape = s,
                                            .q = begin_of<T>(a.q, hidden),
                                            .k = begin_of<T>(a.k, hidden),
                                            .v = begin_of<T>(a.v, hidden),
                                            .dropout = a.dropout,
                                            .out = a.out.as<T>(),
                                            .logsumexp = pointer<kernels::Stat<T>>(a.logsumexp),
                                            .scratch = scratch.data};
    run_fused(context, args);
  });
}

void attention_backward(Context& context, const AttentionGradient& g) {
  VOCA_CHECK(g.dout.shape.rank() == 3 && g.heads > 0);
  const std::int64_t hidden = g.dout.shape[2];
  const std::int64_t batch = g.dout.shape[0];
  const DType dtype = g.dout.dtype;
  for (const Heads* heads : {&g.q, &g.k, &g.v, &g.dq, &g.dk, &g.dv})
    expect_heads(context, "attention_backward", *heads, batch, hidden, dtype);
  const AttentionShape s = shape_of(g.q, g.k, g.v, g.heads, hidden);
  VOCA_CHECK(g.dq.packed.shape == g.q.packed.shape && g.dk.packed.shape == g.k.packed.shape &&
             g.dv.packed.shape == g.v.packed.shape);
  expect(context, "attention_backward", g.dout, {batch, s.query_length, hidden}, dtype);
  by_type("attention_backward", dtype, [&]<typename T>() {
    const ArenaScope scope(context.arena);
    if (!is_fused<T>(context, s, g.path)) return general_backward<T>(context, s, g, hidden);
    expect(context, "attention_backward", g.out, g.dout.shape, dtype);
    expect(context, "attention_backward", g.logsumexp, {batch, g.heads, s.query_length},
           statistics_type(dtype));
    const Tensor scratch = context.arena.scratch(
        "attention scratch", VOCA_SCRATCH_BYTES(context, "attention_backward",
                                                kernels::cpu::attention_backward_scratch_bytes<T>(s),
                                                kernels::cuda::attention_backward_scratch_bytes(s)));
    const kernels::AttentionBackward<T> args{.shape = s,
                                             .dout = g.dout.as<T>(),
                                             .q = begin_of<T>(g.q, hidden),
                                             .k = begin_of<T>(g.k, hidden),
                                             .v = begin_of<T>(g.v, hidden),
                                             .out = g.out.as<T>(),
                                             .logsumexp = g.logsumexp.as<kernels::Stat<T>>(),
                                             .dropout = g.dropout,
                                             .dq = begin_of<T>(g.dq, hidden),
                                             .dk = begin_of<T>(g.dk, hidden),
                                             .dv = begin_of<T>(g.dv, hidden),
                                             .scratch = scratch.data};
    run_fused(context, args);
  });
}

}  // namespace voca::engine::ops
