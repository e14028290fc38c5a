#pragma once

#include "model/blocks.h"
#include "model/config.h"

namespace voca::model {

/// Fusion of two streams: each is projected and gets positions, then audio attends to visual (a2v), or both
/// ways, averaged. Shapes: visual (B, T, visual_dim), audio (B, T, audio_dim), result (B, T, H).
struct Fusion {
  Projection visual;
  Projection audio;
  PositionalEncoding positions = PositionalEncoding::kNone;
  engine::ParameterId pos_embed = kNoParameter;  ///< (T, H); for learned positions
  AttentionBlock a2v;
  AttentionBlock v2a;  ///< bidirectional only
  bool bidirectional = false;
};

/// Activations saved for backward.
struct FusionState {
  NormState v_norm;
  NormState a_norm;
  engine::Tensor v;  ///< (B, T, H) projected, without positions
  engine::Tensor a;
  engine::Tensor v_positioned;  ///< with positions, or v itself
  engine::Tensor a_positioned;
  AttentionState a2v;
  AttentionState v2a;
};

/// Overwrites x (B, T, H) with the fused sequence.
FusionState fuse(const Pass& pass, const Fusion& fusion, const engine::Tensor& visual,
                 const engine::Tensor& audio, engine::Tensor x);

/// dx (B, T, H) is the gradient of the fused sequence; it is scaled in place. `dmeans` (2B, H), or empty, is
/// a further gradient of the means of v and of a over time. Gradients of the parameters accumulate; the
/// features' gradients are not computed.
void fuse_backward(const Pass& pass, const Fusion& fusion, const FusionState& state,
                   const engine::Tensor& visual, const engine::Tensor& audio, engine::Tensor dx,
                   const engine::Tensor& dmeans);

}  // namespace voca::model
