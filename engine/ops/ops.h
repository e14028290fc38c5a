#pragma once

#include <cstdint>

#include "engine/core/context.h"
#include "engine/core/tensor.h"
#include "kernels/adamw.h"
#include "kernels/philox.h"

// The operations on checked tensors. Each wraps the kernel of the same name (kernels/<op>.h documents the
// formula, what is overwritten, accumulated and saved). An operation checks shapes, types and devices
// (throwing an InternalError that names the wrong tensor), takes scratch from the context's arena and
// releases it, and calls the backend of the context's device; on kMeta nothing runs. "Rows" of a tensor are
// its leading extents combined. An empty tensor omits an optional argument.
//
// An operation reads the arguments that are const (`const Tensor&`, or a const member of its struct) and
// writes to the others.

namespace voca::engine::ops {

using kernels::Dropout;

/// y (rows, out) = x (rows, in) · weightᵀ + bias; weight (out, in), bias (out) or empty.
void linear(Context& context, const Tensor& x, const Tensor& weight, const Tensor& bias, Tensor y);

struct LinearGradient {
  const Tensor dy{};
  const Tensor x{};
  const Tensor weight{};
  Tensor dx{};                 ///< overwritten; empty if not needed
  bool accumulate_dx = false;  ///< accumulate into dx instead
  Tensor dweight{};            ///< accumulated into
  Tensor dbias{};              ///< accumulated into; empty if another operation computes it
};
void linear_backward(Context& context, LinearGradient args);

struct Layernorm {
  const Tensor x{};         ///< (rows, columns); may be z
  const Tensor bias{};      ///< (columns) or empty
  const Tensor residual{};  ///< shape of x, or empty
  const Tensor gamma{};
  const Tensor beta{};
  Dropout input_dropout{};
  Dropout output_dropout{};
  Tensor z{};  ///< saved; empty in inference, as are mean and rstd (rows)
  Tensor mean{};
  Tensor rstd{};
  Tensor y{};  ///< overwritten
};
void layernorm(Context& context, Layernorm args);

struct LayernormGradient {
  const Tensor dy{};
  const Tensor z{};
  const Tensor mean{};
  const Tensor rstd{};
  const Tensor gamma{};
  Dropout input_dropout{};
  Dropout output_dropout{};
  Tensor dx{};                        ///< overwritten; may be dy
  Tensor dresidual{};                 ///< overwritten, or empty
  bool accumulate_dresidual = false;  ///< accumulate into dresidual instead
  Tensor dgamma{};                    ///< accumulated into
  Tensor dbeta{};                     ///< accumulated into
  Tensor dbias{};                     ///< accumulated into, or empty
};
void layernorm_backward(Context& context, LayernormGradient args);

/// kFused never stores the probability matrix; kUnfused stores it and consists of batched
/// GEMM and softmax. Both compute the same function. If a GPU has no fused kernel for the type or head size,
/// kFused takes the unfused path too.
enum class AttentionPath : std::uint8_t { kFused, kUnfused };

/// Piece `piece` of a packed projection (batch, length, pieces · hidden) that may hold several.
struct Heads {
  Tensor packed{};
  std::int64_t piece = 0;
};

struct Attention {
  std::int64_t heads = 0;
  const Heads q{};
  const Heads k{};
  const Heads v{};
  Dropout dropout{};
  Tensor out{};        ///< (batch, query_length, hidden), overwritten
  Tensor logsumexp{};  ///< (batch, heads, query_length), saved; empty in inference
  AttentionPath path = AttentionPath::kFused;
};
void attention(Context& context, Attention args);

struct AttentionGradient {
  std::int64_t heads = 0;
  const Tensor dout{};
  const Heads q{};
  const Heads k{};
  const Heads v{};
  const Tensor out{};
  const Tensor logsumexp{};
  Dropout dropout{};
  Heads dq{};  ///< this piece is overwritten; dk and dv too
  Heads dk{};
  Heads dv{};
  AttentionPath path = AttentionPath::kFused;
};
void attention_backward(Context& context, AttentionGradient args);

/// y = dropout(gelu(x + bias)); `bias` may be empty.
void gelu(Context& context, const Tensor& x, const Tensor& bias, const Dropout& dropout, Tensor y);
/// Overwrites dx, which may be dy; accumulates into dbias, which may be empty.
void gelu_backward(Context& context, const Tensor& dy, const Tensor& x, const Tensor& bias,
                   const Dropout& dropout, Tensor dx, Tensor dbias);

/// y (batch, columns) = mean over time of x (batch, length, columns), plus the maximum over time if argmax
/// (batch, columns) int32 is given.
void pooling(Context& context, const Tensor& x, Tensor y, Tensor argmax);
void pooling_backward(Context& context, const Tensor& dy, const Tensor& argmax, Tensor dx,
                      bool accumulate_dx);

/// y = x + encoding; x (batch, length, columns), encoding (length, columns); y may be x.
void positional_encoding(Context& context, const Tensor& x, const Tensor& encoding, Tensor y);
/// Accumulates into dencoding.
void positional_encoding_backward(Context& context, const Tensor& dy, Tensor dencoding);
/// Overwrites encoding (length, columns) with the sinusoidal encoding.
void sinusoidal_encoding(Context& context, Tensor encoding);

/// z = x / ‖x‖ row by row; norm (rows) is saved.
void l2_normalize(Context& context, const Tensor& x, Tensor z, Tensor norm);
void l2_normalize_backward(Context& context, const Tensor& dz, const Tensor& z, const Tensor& norm,
                           Tensor dx);

struct InfoNce {
  const Tensor zv{};             ///< (rows, width)
  const Tensor za{};             ///< (columns, width)
  const Tensor row_labels{};     ///< (rows) int32
  const Tensor column_labels{};  ///< (columns) int32
  std::int64_t diagonal_offset = 0;
  double temperature = 0.07;
  GradientScale grad{};
  Tensor loss{};  ///< (1), overwritten
  Tensor dzv{};   ///< overwritten; dzv and dza empty: loss only
  Tensor dza{};
};
void infonce(Context& context, InfoNce args);

struct CrossEntropy {
  const Tensor logits{};  ///< (rows) or (rows, 1): binary; (rows, classes): softmax
  const Tensor labels{};  ///< (rows) int32
  double smoothing = 0;
  double pos_weight = 1;  ///< binary only
  GradientScale grad{};
  Tensor loss{};        ///< (1), overwritten
  Tensor row_losses{};  ///< (rows), overwritten, or empty
  Tensor dlogits{};     ///< shape of logits, overwritten, or empty
};
void binary_cross_entropy(Context& context, CrossEntropy args);
void softmax_cross_entropy(Context& context, CrossEntropy args);

/// to = from, rounded to the type of `to`; `from` is float32 and has the same shape.
void cast(Context& context, const Tensor& from, Tensor to);
/// Gathers out (batch, length, width) from packed frames (rows, width), float16 or float32, by windows
/// (batch, sizeof(kernels::FrameWindow)), as bytes.
void gather_frames(Context& context, const Tensor& frames, const Tensor& windows, Tensor out);

void fill(Context& context, double value, Tensor out);
/// out = alpha · a + beta · b; b may be empty, out may be a or b.
void weighted_sum(Context& context, double alpha, const Tensor& a, double beta, const Tensor& b, Tensor out);

/// sum = from, or sum += from if `add`; `sum` has the statistics type of `from`.
void wide_sum(Context& context, const Tensor& from, bool add, Tensor sum);

/// norm (1) = ‖gradient‖₂.
void gradient_norm(Context& context, const Tensor& gradient, Tensor norm);

struct AdamWStep {
  kernels::AdamWOptions options{};
  double max_norm = 0;               ///< 0: no clipping
  std::int64_t growth_interval = 0;  ///< of the loss scale; 0 keeps the scale fixed
  Tensor state{};                    ///< (1) OptimizerState as bytes, updated
  const Tensor norm{};               ///< (1) norm of `gradient`, with the loss scale still applied
  const Tensor losses{};  ///< statistics type, any shape, or empty; the step is skipped unless all are finite
  const Tensor gradient{};  ///< of the weights' or the masters' type
  Tensor master{};
  Tensor exp_avg{};
  Tensor exp_avg_sq{};
  Tensor weights{};  ///< may share memory with master
};
void adamw(Context& context, AdamWStep args);

}  // namespace voca::engine::ops
