#include "kernels/attention.h"

#include <cmath>
#include <type_traits>
#include <utility>

#include "engine/ops/gemm.h"
#include "engine/ops/ops.h"
#include "kernels/softmax.h"

namespace voca::engine::ops {
namespace {

using kernels::AttentionShape;
using kernels::Transpose;

// First element of a piece. The row stride is the packed row's; a piece has `hidden` elements per row.
template <typename T>
const T* begin_of(const Heads& heads, std::int64_t hidden) {
  const T* base = heads.packed.as<T>();
  return base == nullptr ? nullptr : base + heads.piece * hidden;
}
template <typename T>
T* begin_of(Heads& heads, std::int64_t hidden) {
  return const_cast<T*>(begin_of<T>(std::as_const(heads), hidden));
}

void expect_heads(const Context& context, const char* operation, const Heads& heads, std::int64_t batch,
                  std::int64_t hidden, DType dtype) {
  const Tensor& packed = heads.packed;
  expect(context, operation, packed.shape, dtype, {&packed});
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

  operator Operand<const T>() const requires(!std::is_const_v<T>) {
    return {data, row_stride, length, per_head};
  }
};

// The unfused path: batched GEMM and softmax.
template <typename T, typename Backend>
struct UnfusedPath {
  Context& context;
  Backend backend;
  const AttentionShape& shape;
  Tensor probabilities;
  Tensor dropped;

  UnfusedPath(Context& c, Backend b, const AttentionShape& s)
      : context(c),
        backend(b),
        shape(s),
        probabilities(c.allocate("attention probabilities", {s.batch * s.heads, s.query_length, s.key_length},
                                 kDTypeOf<T>)),
        dropped(c.allocate("dropped attention probabilities", probabilities.shape, kDTypeOf<T>)) {}

  // U is T, or const T where the operand is only read.
  template <typename U>
  Operand<U> queries(U* data) const {
    return {data, shape.query_stride, shape.query_length, false};
  }
  template <typename U>
  Operand<U> keys(U* data) const {
    return {data, shape.key_stride, shape.key_length, false};
  }
  template <typename U>
  Operand<U> values(U* data) const {
    return {data, shape.value_stride, shape.key_length, false};
  }
  template <typename U>
  Operand<U> outputs(U* data) const {
    return {data, shape.heads * shape.head_size, shape.query_length, false};
  }
  [[nodiscard]] Operand<T> matrix(Tensor& tensor) const {
    return {tensor.as<T>(), shape.key_length, shape.query_length, true};
  }
  [[nodiscard]] double scale() const { return 1.0 / std::sqrt(static_cast<double>(shape.head_size)); }

  /// c = op(a) · op(b) for every batch and head: one call per head, batched over samples.
  void gemm_per_head(Transpose ta, Transpose tb, std::int64_t m, std::int64_t n, std::int64_t k,
                     const Operand<const T>& a, const Operand<const T>& b, const Operand<T>& c) {
    const auto at = [this](const auto& x, std::int64_t head) {
      return x.data == nullptr ? nullptr
                               : x.data + head * (x.per_head ? x.length * x.row_stride : shape.head_size);
    };
    const auto stride = [this](const auto& x) {
      return (x.per_head ? shape.heads : 1) * x.length * x.row_stride;
    };
    for (std::int64_t head = 0; head < shape.heads; ++head) {
      // Heads start at multiples of the head size, matrices at multiples of query_length · key_length.
      gemm<T>(context, backend,
              {.transpose_a = ta,
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
               .batch = shape.batch,
               .stride_a = stride(a),
               .stride_b = stride(b),
               .stride_c = stride(c)},
              shape.head_size | shape.query_stride | shape.key_stride | shape.value_stride |
                  shape.query_length * shape.key_length);
    }
  }

  /// probabilities = softmax(Q Kᵀ · scale), dropped = D(probabilities).
  void compute_probabilities(const T* q, const T* k, const Dropout& dropout) {
    gemm_per_head(Transpose::kNo, Transpose::kYes, shape.query_length, shape.key_length, shape.head_size,
                  queries(q), keys(k), matrix(probabilities));
    const kernels::SoftmaxForward<T> args{.batch = shape.batch * shape.heads,
                                          .query_length = shape.query_length,
                                          .key_length = shape.key_length,
                                          .scale = scale(),
                                          .scores = probabilities.as<T>(),
                                          .dropout = dropout,
                                          .probabilities = probabilities.as<T>(),
                                          .dropped = dropped.as<T>()};
    if (!context.is_dry_run()) kernels::softmax_forward(backend, args);
  }
};

template <typename T, typename Backend>
void unfused_forward(Context& context, Backend backend, const AttentionShape& s, Attention& a,
                     std::int64_t hidden) {
  UnfusedPath<T, Backend> path(context, backend, s);
  path.compute_probabilities(begin_of<T>(a.q, hidden), begin_of<T>(a.k, hidden), a.dropout);
  path.gemm_per_head(Transpose::kNo, Transpose::kNo, s.query_length, s.head_size, s.key_length,
                     path.matrix(path.dropped), path.values(begin_of<T>(a.v, hidden)),
                     path.outputs(a.out.as<T>()));
}

template <typename T, typename Backend>
void unfused_backward(Context& context, Backend backend, const AttentionShape& s, AttentionGradient& g,
                      std::int64_t hidden) {
  UnfusedPath<T, Backend> path(context, backend, s);
  const T* q = begin_of<T>(g.q, hidden);
  const T* k = begin_of<T>(g.k, hidden);
  const T* v = begin_of<T>(g.v, hidden);
  path.compute_probabilities(q, k, g.dropout);
  const Operand<const T> dout = path.outputs(g.dout.as<T>());
  path.gemm_per_head(Transpose::kYes, Transpose::kNo, s.key_length, s.head_size, s.query_length,
                     path.matrix(path.dropped), dout, path.values(begin_of<T>(g.dv, hidden)));
  const Operand<T> dscores = path.matrix(path.dropped);  // the dropped probabilities are no longer needed
  path.gemm_per_head(Transpose::kNo, Transpose::kYes, s.query_length, s.key_length, s.head_size, dout,
                     path.values(v), dscores);
  const kernels::SoftmaxBackward<T> args{.batch = s.batch * s.heads,
                                         .query_length = s.query_length,
                                         .key_length = s.key_length,
                                         .scale = path.scale(),
                                         .ddropped = dscores.data,
                                         .probabilities = path.probabilities.template as<T>(),
                                         .dropout = g.dropout,
                                         .dscores = dscores.data};
  if (!context.is_dry_run()) kernels::softmax_backward(backend, args);
  path.gemm_per_head(Transpose::kNo, Transpose::kNo, s.query_length, s.head_size, s.key_length, dscores,
                     path.keys(k), path.queries(begin_of<T>(g.dq, hidden)));
  path.gemm_per_head(Transpose::kYes, Transpose::kNo, s.key_length, s.head_size, s.query_length, dscores,
                     path.queries(q), path.keys(begin_of<T>(g.dk, hidden)));
}

template <typename T, typename Backend>
void fused_forward(Context& context, Backend backend, const AttentionShape& s, Attention& a,
                   std::int64_t hidden) {
  kernels::AttentionForward<T> args{.shape = s,
                                    .q = begin_of<T>(a.q, hidden),
                                    .k = begin_of<T>(a.k, hidden),
                                    .v = begin_of<T>(a.v, hidden),
                                    .dropout = a.dropout,
                                    .out = a.out.as<T>(),
                                    .logsumexp = pointer<kernels::Stat<T>>(a.logsumexp)};
  args.scratch = context.arena.scratch("attention scratch", scratch_bytes(backend, args)).data;
  if (!context.is_dry_run()) kernels::attention_forward(backend, args);
}

template <typename T, typename Backend>
void fused_backward(Context& context, Backend backend, const AttentionShape& s, AttentionGradient& g,
                    std::int64_t hidden) {
  expect(context, "attention_backward", g.dout.shape, g.dout.dtype, {&g.out});
  expect(context, "attention_backward", {s.batch, g.heads, s.query_length}, statistics_type(g.dout.dtype),
         {&g.logsumexp});
  kernels::AttentionBackward<T> args{.shape = s,
                                     .dout = g.dout.as<T>(),
                                     .q = begin_of<T>(g.q, hidden),
                                     .k = begin_of<T>(g.k, hidden),
                                     .v = begin_of<T>(g.v, hidden),
                                     .out = g.out.as<T>(),
                                     .logsumexp = g.logsumexp.as<kernels::Stat<T>>(),
                                     .dropout = g.dropout,
                                     .dq = begin_of<T>(g.dq, hidden),
                                     .dk = begin_of<T>(g.dk, hidden),
                                     .dv = begin_of<T>(g.dv, hidden)};
  args.scratch = context.arena.scratch("attention scratch", scratch_bytes(backend, args)).data;
  if (!context.is_dry_run()) kernels::attention_backward(backend, args);
}

/// Whether a backend has fused kernels for T.
template <typename Backend, typename T>
inline constexpr bool kHasFused = std::is_same_v<Backend, kernels::Cpu> || sizeof(T) == 2;

}  // namespace

void attention(Context& context, Attention a) {
  VOCA_CHECK(a.out.shape.rank() == 3 && a.heads > 0);
  const std::int64_t hidden = a.out.shape[2];
  const std::int64_t batch = a.out.shape[0];
  const DType dtype = a.out.dtype;
  for (const Heads* heads : {&a.q, &a.k, &a.v})
    expect_heads(context, "attention", *heads, batch, hidden, dtype);
  const AttentionShape s = shape_of(a.q, a.k, a.v, a.heads, hidden);
  VOCA_CHECK(a.v.packed.shape[1] == s.key_length && hidden % a.heads == 0);
  expect(context, "attention", {batch, s.query_length, hidden}, dtype, {&a.out});
  expect_optional(context, "attention", {batch, a.heads, s.query_length}, statistics_type(dtype),
                  {&a.logsumexp});
  dispatch(context, "attention", dtype, [&]<typename T>(auto backend) {
    const ArenaScope scope(context.arena);
    if constexpr (kHasFused<decltype(backend), T>) {
      if (a.path == AttentionPath::kFused && kernels::attention_is_fused(backend, s))
        return fused_forward<T>(context, backend, s, a, hidden);
    }
    unfused_forward<T>(context, backend, s, a, hidden);
  });
}

void attention_backward(Context& context, AttentionGradient g) {
  VOCA_CHECK(g.dout.shape.rank() == 3 && g.heads > 0);
  const std::int64_t hidden = g.dout.shape[2];
  const std::int64_t batch = g.dout.shape[0];
  const DType dtype = g.dout.dtype;
  for (const Heads* heads : std::initializer_list<const Heads*>{&g.q, &g.k, &g.v, &g.dq, &g.dk, &g.dv})
    expect_heads(context, "attention_backward", *heads, batch, hidden, dtype);
  const AttentionShape s = shape_of(g.q, g.k, g.v, g.heads, hidden);
  VOCA_CHECK(g.dq.packed.shape == g.q.packed.shape && g.dk.packed.shape == g.k.packed.shape &&
             g.dv.packed.shape == g.v.packed.shape);
  expect(context, "attention_backward", {batch, s.query_length, hidden}, dtype, {&g.dout});
  dispatch(context, "attention_backward", dtype, [&]<typename T>(auto backend) {
    const ArenaScope scope(context.arena);
    if constexpr (kHasFused<decltype(backend), T>) {
      if (g.path == AttentionPath::kFused && kernels::attention_is_fused(backend, s))
        return fused_backward<T>(context, backend, s, g, hidden);
    }
    unfused_backward<T>(context, backend, s, g, hidden);
  });
}

}  // namespace voca::engine::ops
