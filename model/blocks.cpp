#include "model/blocks.h"

#include <optional>

namespace voca::model {
namespace {

using engine::ArenaScope;
using engine::Shape;
using engine::Tensor;
namespace ops = engine::ops;

// Rows of `pieces` stacked projections, from the one with index `piece` on; each has `hidden` rows.
Tensor slice(const Tensor& stacked, std::int64_t piece, std::int64_t pieces, std::int64_t hidden) {
  return stacked.rows(piece * hidden, pieces * hidden);
}

// In inference, releases everything the block allocated; in training everything stays for backward.
class InferenceScope {
 public:
  explicit InferenceScope(const Pass& pass) {
    if (!pass.training()) scope_.emplace(pass.context.arena);
  }

 private:
  std::optional<ArenaScope> scope_;
};

// y = D_out(LN(residual + D_in(x + bias))); in training x is overwritten with z, saved for backward.
NormState normalize(const Pass& pass, const NormParameters& norm, const Tensor& x, const Tensor& bias,
                    const Tensor& residual, const kernels::Dropout& input_dropout,
                    const kernels::Dropout& output_dropout, Tensor y) {
  NormState state;
  if (pass.training()) {
    const std::int64_t rows = x.elements() / x.shape[x.shape.rank() - 1];
    state = {.z = x,
             .mean = pass.allocate_statistics("layernorm mean", {rows}),
             .rstd = pass.allocate_statistics("layernorm rstd", {rows})};
  }
  ops::layernorm(pass.context, {.x = x,
                                .bias = bias,
                                .residual = residual,
                                .gamma = pass.weight(norm.gamma),
                                .beta = pass.weight(norm.beta),
                                .input_dropout = input_dropout,
                                .output_dropout = output_dropout,
                                .z = state.z,
                                .mean = state.mean,
                                .rstd = state.rstd,
                                .y = y});
  return state;
}

// Backward of a linear map whose bias, if any, gets its gradient elsewhere; `dx` is empty if not needed.
void linear_backward(const Pass& pass, const LinearParameters& linear, const Tensor& dy, const Tensor& x,
                     Tensor dx, bool accumulate_dx = false) {
  ops::linear_backward(pass.context, {.dy = dy,
                                      .x = x,
                                      .weight = pass.weight(linear.weight),
                                      .dx = dx,
                                      .accumulate_dx = accumulate_dx,
                                      .dweight = pass.gradient(linear.weight)});
}

kernels::Dropout probability_dropout(const Pass& pass, const AttentionBlock& block, const ops::Heads& q,
                                     const ops::Heads& k) {
  const auto per_head =
      static_cast<std::int64_t>(kernels::attention_mask_size(q.packed.shape[1], k.packed.shape[1]));
  return pass.dropout(block.probability_site, block.probability_dropout, block.heads * per_head);
}

kernels::Dropout residual_dropout(const Pass& pass, const AttentionBlock& block, const Tensor& query) {
  return pass.dropout(block.residual_site, block.residual_dropout, query.shape[1] * query.shape[2]);
}

// Projects to q, k and v: one GEMM for self-attention; otherwise one for the query and one for the memory.
void project_heads(const Pass& pass, const AttentionBlock& block, const Tensor& query, const Tensor& memory,
                   AttentionState& state) {
  const Tensor weight = pass.weight(block.parameters.in_proj.weight);
  const Tensor bias = pass.weight(block.parameters.in_proj.bias);
  const std::int64_t batch = query.shape[0];
  const std::int64_t hidden = query.shape[2];
  if (block.self) {
    const Tensor packed = pass.allocate("qkv", {batch, query.shape[1], 3 * hidden});
    ops::linear(pass.context, query, weight, bias, packed);
    state.q = {packed, 0};
    state.k = {packed, 1};
    state.v = {packed, 2};
    return;
  }
  const Tensor q = pass.allocate("q", {batch, query.shape[1], hidden});
  const Tensor kv = pass.allocate("kv", {batch, memory.shape[1], 2 * hidden});
  ops::linear(pass.context, query, slice(weight, 0, 1, hidden), slice(bias, 0, 1, hidden), q);
  ops::linear(pass.context, memory, slice(weight, 1, 2, hidden), slice(bias, 1, 2, hidden), kv);
  state.q = {q, 0};
  state.k = {kv, 0};
  state.v = {kv, 1};
}

// From gradients of the packed projections to gradients of their inputs and weights.
void project_heads_backward(const Pass& pass, const AttentionBlock& block, const Tensor& query,
                            const Tensor& memory, const Tensor& dq, const Tensor& dkv,
                            const AttentionInputGradients& gradients) {
  const Tensor weight = pass.weight(block.parameters.in_proj.weight);
  const Tensor dweight = pass.gradient(block.parameters.in_proj.weight);
  const Tensor dbias = pass.gradient(block.parameters.in_proj.bias);
  const std::int64_t hidden = query.shape[2];
  if (block.self) {  // dq holds all three gradients
    ops::linear_backward(pass.context, {.dy = dq,
                                        .x = query,
                                        .weight = weight,
                                        .dx = gradients.dquery,
                                        .accumulate_dx = true,
                                        .dweight = dweight,
                                        .dbias = dbias});
    return;
  }
  ops::linear_backward(pass.context, {.dy = dq,
                                      .x = query,
                                      .weight = slice(weight, 0, 1, hidden),
                                      .dx = gradients.dquery,
                                      .accumulate_dx = true,
                                      .dweight = slice(dweight, 0, 1, hidden),
                                      .dbias = slice(dbias, 0, 1, hidden)});
  ops::linear_backward(pass.context, {.dy = dkv,
                                      .x = memory,
                                      .weight = slice(weight, 1, 2, hidden),
                                      .dx = gradients.dmemory,
                                      .accumulate_dx = gradients.accumulate_dmemory,
                                      .dweight = slice(dweight, 1, 2, hidden),
                                      .dbias = slice(dbias, 1, 2, hidden)});
}

kernels::Dropout activation_dropout(const Pass& pass, const FeedForward& block, const Tensor& u) {
  return pass.dropout(block.activation_site, block.dropout, u.shape[1] * u.shape[2]);
}

kernels::Dropout residual_dropout(const Pass& pass, const FeedForward& block, const Tensor& x) {
  return pass.dropout(block.residual_site, block.dropout, x.shape[1] * x.shape[2]);
}

}  // namespace

NormState project(const Pass& pass, const Projection& block, const Tensor& x, Tensor y) {
  const InferenceScope scope(pass);
  const Tensor u = pass.allocate("projected features", y.shape);
  ops::linear(pass.context, x, pass.weight(block.parameters.linear.weight), {}, u);
  return normalize(pass, block.parameters.norm, u, pass.weight(block.parameters.linear.bias), {}, {},
                   pass.dropout(block.site, block.dropout, y.shape[1] * y.shape[2]), y);
}

void project_backward(const Pass& pass, const Projection& block, const NormState& state, const Tensor& x,
                      Tensor dy) {
  const ProjectionParameters& p = block.parameters;
  ops::layernorm_backward(
      pass.context, {.dy = dy,
                     .z = state.z,
                     .mean = state.mean,
                     .rstd = state.rstd,
                     .gamma = pass.weight(p.norm.gamma),
                     .output_dropout = pass.dropout(block.site, block.dropout, dy.shape[1] * dy.shape[2]),
                     .dx = dy,
                     .dgamma = pass.gradient(p.norm.gamma),
                     .dbeta = pass.gradient(p.norm.beta),
                     .dbias = pass.gradient(p.linear.bias)});
  linear_backward(pass, p.linear, dy, x, {});
}

AttentionState attend(const Pass& pass, const AttentionBlock& block, const Tensor& query,
                      const Tensor& memory, Tensor y) {
  const InferenceScope scope(pass);
  AttentionState state;
  project_heads(pass, block, query, memory, state);
  state.attended = pass.allocate("attended", query.shape);
  if (pass.training()) {
    state.logsumexp =
        pass.allocate_statistics("attention logsumexp", {query.shape[0], block.heads, query.shape[1]});
  }
  ops::attention(pass.context, {.heads = block.heads,
                                .q = state.q,
                                .k = state.k,
                                .v = state.v,
                                .dropout = probability_dropout(pass, block, state.q, state.k),
                                .out = state.attended,
                                .logsumexp = state.logsumexp});
  const Tensor projected = pass.allocate("attention output", query.shape);
  ops::linear(pass.context, state.attended, pass.weight(block.parameters.out_proj.weight), {}, projected);
  state.norm = normalize(pass, block.parameters.norm, projected, pass.weight(block.parameters.out_proj.bias),
                         query, residual_dropout(pass, block, query), {}, y);
  return state;
}

void attend_backward(const Pass& pass, const AttentionBlock& block, const AttentionState& state,
                     const Tensor& query, const Tensor& memory, const Tensor& dy,
                     const AttentionInputGradients& gradients) {
  const ArenaScope scope(pass.context.arena);
  const AttentionParameters& p = block.parameters;
  const Tensor dprojected = pass.allocate("d attention output", query.shape);
  ops::layernorm_backward(pass.context, {.dy = dy,
                                         .z = state.norm.z,
                                         .mean = state.norm.mean,
                                         .rstd = state.norm.rstd,
                                         .gamma = pass.weight(p.norm.gamma),
                                         .input_dropout = residual_dropout(pass, block, query),
                                         .dx = dprojected,
                                         .dresidual = gradients.dquery,
                                         .accumulate_dresidual = gradients.accumulate_dquery,
                                         .dgamma = pass.gradient(p.norm.gamma),
                                         .dbeta = pass.gradient(p.norm.beta),
                                         .dbias = pass.gradient(p.out_proj.bias)});
  const Tensor dattended = pass.allocate("d attended", query.shape);
  linear_backward(pass, p.out_proj, dprojected, state.attended, dattended);
  const Tensor dq = pass.allocate("d q", state.q.packed.shape);
  const Tensor dkv = block.self ? Tensor{} : pass.allocate("d kv", state.k.packed.shape);
  const Tensor& dk = block.self ? dq : dkv;
  ops::attention_backward(pass.context, {.heads = block.heads,
                                         .dout = dattended,
                                         .q = state.q,
                                         .k = state.k,
                                         .v = state.v,
                                         .out = state.attended,
                                         .logsumexp = state.logsumexp,
                                         .dropout = probability_dropout(pass, block, state.q, state.k),
                                         .dq = {dq, state.q.piece},
                                         .dk = {dk, state.k.piece},
                                         .dv = {dk, state.v.piece}});
  project_heads_backward(pass, block, query, memory, dq, dkv, gradients);
}

FeedForwardState feed_forward(const Pass& pass, const FeedForward& block, const Tensor& x, Tensor y) {
  const InferenceScope scope(pass);
  const FeedForwardParameters& p = block.parameters;
  const Shape wide{x.shape[0], x.shape[1], 4 * x.shape[2]};
  FeedForwardState state;
  state.u = pass.allocate("feed-forward u", wide);
  ops::linear(pass.context, x, pass.weight(p.linear1.weight), {}, state.u);
  state.h = pass.training() ? pass.allocate("feed-forward h", wide) : state.u;
  ops::gelu(pass.context, state.u, pass.weight(p.linear1.bias), activation_dropout(pass, block, state.u),
            state.h);
  const Tensor projected = pass.allocate("feed-forward output", x.shape);
  ops::linear(pass.context, state.h, pass.weight(p.linear2.weight), {}, projected);
  state.norm = normalize(pass, p.norm, projected, pass.weight(p.linear2.bias), x,
                         residual_dropout(pass, block, x), {}, y);
  return state;
}

void feed_forward_backward(const Pass& pass, const FeedForward& block, const FeedForwardState& state,
                           const Tensor& x, const Tensor& dy, Tensor dx) {
  const ArenaScope scope(pass.context.arena);
  const FeedForwardParameters& p = block.parameters;
  const Tensor dprojected = pass.allocate("d feed-forward output", x.shape);
  ops::layernorm_backward(pass.context, {.dy = dy,
                                         .z = state.norm.z,
                                         .mean = state.norm.mean,
                                         .rstd = state.norm.rstd,
                                         .gamma = pass.weight(p.norm.gamma),
                                         .input_dropout = residual_dropout(pass, block, x),
                                         .dx = dprojected,
                                         .dresidual = dx,
                                         .dgamma = pass.gradient(p.norm.gamma),
                                         .dbeta = pass.gradient(p.norm.beta),
                                         .dbias = pass.gradient(p.linear2.bias)});
  const Tensor dh = pass.allocate("d feed-forward h", state.h.shape);
  linear_backward(pass, p.linear2, dprojected, state.h, dh);
  ops::gelu_backward(pass.context, dh, state.u, pass.weight(p.linear1.bias),
                     activation_dropout(pass, block, state.u), dh, pass.gradient(p.linear1.bias));
  linear_backward(pass, p.linear1, dh, x, dx, /*accumulate_dx=*/true);
}

MlpState mlp(const Pass& pass, const Mlp& block, const Tensor& x, Tensor y) {
  const InferenceScope scope(pass);
  const Tensor weight = pass.weight(block.first.weight);
  const Shape middle{x.shape[0], weight.shape[0]};
  MlpState state;
  state.u = pass.allocate("mlp u", middle);
  ops::linear(pass.context, x, weight, {}, state.u);
  state.h = pass.training() ? pass.allocate("mlp h", middle) : state.u;
  ops::gelu(pass.context, state.u, pass.weight(block.first.bias),
            pass.dropout(block.site, block.dropout, middle[1]), state.h);
  ops::linear(pass.context, state.h, pass.weight(block.second.weight), pass.weight(block.second.bias), y);
  return state;
}

void mlp_backward(const Pass& pass, const Mlp& block, const MlpState& state, const Tensor& x,
                  const Tensor& dy, Tensor dx) {
  const ArenaScope scope(pass.context.arena);
  const Tensor dh = pass.allocate("d mlp h", state.h.shape);
  ops::linear_backward(pass.context, {.dy = dy,
                                      .x = state.h,
                                      .weight = pass.weight(block.second.weight),
                                      .dx = dh,
                                      .dweight = pass.gradient(block.second.weight),
                                      .dbias = pass.gradient(block.second.bias)});
  ops::gelu_backward(pass.context, dh, state.u, pass.weight(block.first.bias),
                     pass.dropout(block.site, block.dropout, state.u.shape[1]), dh,
                     pass.gradient(block.first.bias));
  linear_backward(pass, block.first, dh, x, dx);
}

}  // namespace voca::model
