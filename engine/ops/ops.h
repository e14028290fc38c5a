#pragma once

#include <cstdint>

#include "engine/core/context.h"
#include "engine/core/tensor.h"
#include "kernels/philox.h"

// Every operation once, on checked tensors. Each is the kernel of the same name (kernels/<op>.h has the
// contract: formula, what is overwritten, what accumulates, what is saved). Here shapes, types and devices
// are checked, an InternalError naming the tensor that does not fit, scratch is taken from the context's
// arena and given back, and the call goes to the backend of the context's device; on kMeta nothing runs.
// "Rows" of a tensor are its leading extents taken together. An empty tensor leaves an optional argument out.

namespace voca::engine::ops {

using kernels::Dropout;

// -- linear maps
// ----------------------------------------------------------------------------------------------------

/// y (rows, out) = x (rows, in) · weightᵀ + bias; weight (out, in), bias (out) or empty.
void linear(Context& context, const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& y);

struct LinearGradient {
  Tensor dy{};
  Tensor x{};
  Tensor weight{};
  Tensor dx{};                 ///< overwritten; empty when no one needs it
  bool accumulate_dx = false;  ///< dx is accumulated into instead
  Tensor dweight{};            ///< accumulated into
  Tensor dbias{};              ///< accumulated into; empty leaves it to another operation
};
void linear_backward(Context& context, const LinearGradient& args);

// -- normalisation
// --------------------------------------------------------------------------------------------------

struct Layernorm {
  Tensor x{};         ///< (rows, columns); may be z
  Tensor bias{};      ///< (columns) or empty
  Tensor residual{};  ///< as x, or empty
  Tensor gamma{};
  Tensor beta{};
  Dropout input_dropout{};
  Dropout output_dropout{};
  Tensor z{};  ///< saved; empty in inference, as mean and rstd (rows)
  Tensor mean{};
  Tensor rstd{};
  Tensor y{};  ///< overwritten
};
void layernorm(Context& context, const Layernorm& args);

struct LayernormGradient {
  Tensor dy{};
  Tensor z{};
  Tensor mean{};
  Tensor rstd{};
  Tensor gamma{};
  Dropout input_dropout{};
  Dropout output_dropout{};
  Tensor dx{};                        ///< overwritten; may be dy
  Tensor dresidual{};                 ///< overwritten, or empty
  bool accumulate_dresidual = false;  ///< dresidual is accumulated into instead
  Tensor dgamma{};                    ///< accumulated into
  Tensor dbeta{};                     ///< accumulated into
  Tensor dbias{};                     ///< accumulated into, or empty
};
void layernorm_backward(Context& context, const LayernormGradient& args);

// -- attention
// ------------------------------------------------------------------------------------------------------

/// Fused keeps the probabilities in the core; general stores them and is made of batched GEMM and softmax.
/// They compute the same. Where a GPU has no fused kernel for the type or head size, kFused is general too.
enum class AttentionPath : std::uint8_t { kFused, kGeneral };

/// Heads of a projection that several projections may share: `packed` (batch, length, pieces · hidden), of
/// which this is piece `piece`.
struct Heads {
  Tensor packed{};
  std::int64_t piece = 0;
};

struct Attention {
  std::int64_t heads = 0;
  Heads q{};
  Heads k{};
  Heads v{};
  Dropout dropout{};
  Tensor out{};        ///< (batch, query_length, hidden), overwritten
  Tensor logsumexp{};  ///< (batch, heads, query_length), saved; empty in inference
  AttentionPath path = AttentionPath::kFused;
};
void attention(Context& context, const Attention& args);

struct AttentionGradient {
  std::int64_t heads = 0;
  Tensor dout{};
  Heads q{};
  Heads k{};
  Heads v{};
  Tensor out{};
  Tensor logsumexp{};
  Dropout dropout{};
  Heads dq{};  ///< this piece is overwritten; likewise dk, dv
  Heads dk{};
  Heads dv{};
  AttentionPath path = AttentionPath::kFused;
};
void attention_backward(Context& context, const AttentionGradient& args);

// -- activation, pooling, positions
// ---------------------------------------------------------------------------------

/// y = dropout(gelu(x + bias)); bias empty leaves it out.
void gelu(Context& context, const Tensor& x, const Tensor& bias, const Dropout& dropout, const Tensor& y);
/// dx is overwritten and may be dy; dbias accumulates or is empty.
void gelu_backward(Context& context, const Tensor& dy, const Tensor& x, const Tensor& bias,
                   const Dropout& dropout, const Tensor& dx, const Tensor& dbias);

/// y (batch, columns) = mean over time of x (batch, length, columns), plus the maximum where argmax
/// (batch, columns) int32 is given.
void pooling(Context& context, const Tensor& x, const Tensor& y, const Tensor& argmax);
void pooling_backward(Context& context, const Tensor& dy, const Tensor& argmax, const Tensor& dx,
                      bool accumulate_dx);

/// y = x + encoding, (batch, length, columns) and (length, columns); y may be x.
void positional_encoding(Context& context, const Tensor& x, const Tensor& encoding, const Tensor& y);
/// dencoding is accumulated into.
void positional_encoding_backward(Context& context, const Tensor& dy, const Tensor& dencoding);
/// Fills encoding (length, columns) with sines and cosines.
void sinusoidal_encoding(Context& context, const Tensor& encoding);

// -- losses
// ---------------------------------------------------------------------------------------------------------

/// z = x / ‖x‖ by rows; norm (rows) is saved.
void l2_normalize(Context& context, const Tensor& x, const Tensor& z, const Tensor& norm);
void l2_normalize_backward(Context& context, const Tensor& dz, const Tensor& z, const Tensor& norm,
                           const Tensor& dx);

struct InfoNce {
  Tensor zv{};             ///< (rows, width)
  Tensor za{};             ///< (columns, width)
  Tensor row_labels{};     ///< (rows) int32
  Tensor column_labels{};  ///< (columns) int32
  std::int64_t diagonal_offset = 0;
  double temperature = 0.07;
  GradientScale grad{};
  Tensor loss{};  ///< (1), overwritten
  Tensor dzv{};   ///< overwritten; empty, with dza, computes the loss alone
  Tensor dza{};
};
void infonce(Context& context, const InfoNce& args);

struct CrossEntropy {
  Tensor logits{};  ///< (rows) or (rows, 1): binary; (rows, classes): softmax
  Tensor labels{};  ///< (rows) int32
  double smoothing = 0;
  double pos_weight = 1;  ///< binary form only
  GradientScale grad{};
  Tensor loss{};        ///< (1), overwritten
  Tensor row_losses{};  ///< (rows), overwritten, or empty
  Tensor dlogits{};     ///< as logits, overwritten, or empty
};
void binary_cross_entropy(Context& context, const CrossEntropy& args);
void softmax_cross_entropy(Context& context, const CrossEntropy& args);

// -- batches
// -----------------------------------------------------------------------------------------------------------

/// to = from rounded to to's type; from is float32, both of one shape.
void cast(Context& context, const Tensor& from, const Tensor& to);
/// out (batch, length, width) of packed frames (rows, width), float16 or float32; windows
/// (batch, sizeof(kernels::FrameWindow)) as bytes.
void gather_frames(Context& context, const Tensor& frames, const Tensor& windows, const Tensor& out);

// -- elementwise, optimiser
// -----------------------------------------------------------------------------------------

void fill(Context& context, double value, const Tensor& out);
/// out = alpha · a + beta · b; b may be empty, out may be a or b.
void weighted_sum(Context& context, double alpha, const Tensor& a, double beta, const Tensor& b,
                  const Tensor& out);

/// sum = from, or sum += from where `add`; sum is of from's statistics type.
void wide_sum(Context& context, const Tensor& from, bool add, const Tensor& sum);

/// norm (1) = ‖gradient‖₂.
void gradient_norm(Context& context, const Tensor& gradient, const Tensor& norm);

struct AdamWStep {
  double weight_decay = 0;
  double max_norm = 0;               ///< 0: no clipping
  std::int64_t growth_interval = 0;  ///< of the loss scale; 0 keeps it fixed
  Tensor state{};                    ///< (1) OptimizerState as bytes, updated
  Tensor norm{};                     ///< (1) of the gradient as it lies
  Tensor losses{};    ///< statistics type, any shape; the step is left out unless all are finite; or empty
  Tensor gradient{};  ///< of the weights' type or of the masters'
  Tensor master{};
  Tensor exp_avg{};
  Tensor exp_avg_sq{};
  Tensor weights{};  ///< may be the same memory as master
};
void adamw(Context& context, const AdamWStep& args);

}  // namespace voca::engine::ops
