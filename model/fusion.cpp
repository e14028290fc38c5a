#include "model/fusion.h"

namespace voca::model {
namespace {

using engine::Tensor;
namespace ops = engine::ops;

void add_positions(const Pass& pass, const Fusion& fusion, FusionState& state) {
  state.v_positioned = state.v;
  state.a_positioned = state.a;
  if (fusion.positions == PositionalEncoding::kNone) return;
  Tensor encoding;
  if (fusion.positions == PositionalEncoding::kLearned) {
    encoding = pass.weight(fusion.pos_embed);
  } else {
    encoding = pass.allocate("sinusoidal positions", {state.v.shape[1], state.v.shape[2]});
    ops::sinusoidal_encoding(pass.context, encoding);
  }
  // Other blocks may read the projections without positions, so the sums need separate memory.
  state.v_positioned = pass.allocate("v with positions", state.v.shape);
  state.a_positioned = pass.allocate("a with positions", state.a.shape);
  ops::positional_encoding(pass.context, state.v, encoding, state.v_positioned);
  ops::positional_encoding(pass.context, state.a, encoding, state.a_positioned);
}

// Overwrites dv and da; scales dx in place.
void cross_backward(const Pass& pass, const Fusion& fusion, const FusionState& state, Tensor dx, Tensor dv,
                    Tensor da) {
  if (fusion.bidirectional) ops::weighted_sum(pass.context, 0.5, dx, 0, {}, dx);
  attend_backward(pass, fusion.a2v, state.a2v, state.a_positioned, state.v_positioned, dx,
                  {.dquery = da, .dmemory = dv});
  pass.mark_final(fusion.a2v.parameters.in_proj.bias);
  if (!fusion.bidirectional) return;
  attend_backward(pass, fusion.v2a, state.v2a, state.v_positioned, state.a_positioned, dx,
                  {.dquery = dv, .accumulate_dquery = true, .dmemory = da, .accumulate_dmemory = true});
  pass.mark_final(fusion.v2a.parameters.in_proj.bias);
}

}  // namespace

FusionState fuse(const Pass& pass, const Fusion& fusion, const Tensor& visual, const Tensor& audio,
                 Tensor x) {
  FusionState state;
  state.v = pass.allocate("v", x.shape);
  state.v_norm = project(pass, fusion.visual, visual, state.v);
  state.a = pass.allocate("a", x.shape);
  state.a_norm = project(pass, fusion.audio, audio, state.a);
  add_positions(pass, fusion, state);
  state.a2v = attend(pass, fusion.a2v, state.a_positioned, state.v_positioned, x);
  if (!fusion.bidirectional) return state;
  const Tensor other = pass.allocate("x of visual to audio", x.shape);
  state.v2a = attend(pass, fusion.v2a, state.v_positioned, state.a_positioned, other);
  ops::weighted_sum(pass.context, 0.5, x, 0.5, other, x);
  return state;
}

void fuse_backward(const Pass& pass, const Fusion& fusion, const FusionState& state, const Tensor& visual,
                   const Tensor& audio, Tensor dx, const Tensor& dmeans) {
  const Tensor dv = pass.allocate("d v", dx.shape);
  const Tensor da = pass.allocate("d a", dx.shape);
  cross_backward(pass, fusion, state, dx, dv, da);
  if (fusion.pos_embed != kNoParameter) {
    ops::positional_encoding_backward(pass.context, dv, pass.gradient(fusion.pos_embed));
    ops::positional_encoding_backward(pass.context, da, pass.gradient(fusion.pos_embed));
    pass.mark_final(fusion.pos_embed);
  }
  if (dmeans) {
    const std::int64_t batch = dx.shape[0];
    ops::pooling_backward(pass.context, dmeans.rows(0, batch), {}, dv, true);
    ops::pooling_backward(pass.context, dmeans.rows(batch, batch), {}, da, true);
  }
  project_backward(pass, fusion.audio, state.a_norm, audio, da);
  pass.mark_final(fusion.audio.parameters.linear.bias);
  project_backward(pass, fusion.visual, state.v_norm, visual, dv);
  pass.mark_final(fusion.visual.parameters.linear.bias);
}

}  // namespace voca::model
