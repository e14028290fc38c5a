#include "model/encoder.h"

namespace voca::model {
namespace {

using engine::ArenaScope;
using engine::Tensor;

// Activations of a layer, saved for backward.
struct LayerState {
  AttentionState attention;
  Tensor attended;  // (B, T, H) after self-attention
  FeedForwardState feed_forward;
};

// x (B, T, H) → y, overwritten. In inference x and y may be the same array.
LayerState forward(const Pass& pass, const EncoderLayer& layer, const Tensor& x, Tensor y) {
  LayerState state;
  state.attended = pass.allocate("x after self-attention", x.shape);
  state.attention = attend(pass, layer.attention, x, x, state.attended);
  state.feed_forward = feed_forward(pass, layer.feed_forward, state.attended, y);
  return state;
}

// On entry dx is the gradient of the layer's output, on return that of its input x.
void backward(const Pass& pass, const EncoderLayer& layer, const LayerState& state, const Tensor& x,
              Tensor dx) {
  const ArenaScope scope(pass.context.arena);
  const Tensor dattended = pass.allocate("d x after self-attention", dx.shape);
  feed_forward_backward(pass, layer.feed_forward, state.feed_forward, state.attended, dx, dattended);
  pass.mark_final(layer.feed_forward.parameters.linear1.bias);
  attend_backward(pass, layer.attention, state.attention, x, x, dattended, {.dquery = dx, .dmemory = dx});
  pass.mark_final(layer.attention.parameters.in_proj.bias);
}

}  // namespace

void Encoder::predict(const Pass& pass, Tensor x) const {
  for (const EncoderLayer& layer : layers_) {
    const ArenaScope scope(pass.context.arena);
    static_cast<void>(forward(pass, layer, x, x));
  }
}

// Runs layer i and all that follows; the activations of a layer lie below those of the next on the arena's
// stack.
void Encoder::train_from(std::size_t i, const Pass& pass, const Tensor& x, Tensor dx,
                         const Head& head) const {
  if (i == layers_.size()) return head(x, dx);
  const ArenaScope scope(pass.context.arena);
  const Tensor y = pass.allocate("x", x.shape);
  const std::size_t mark = pass.context.arena.used();
  LayerState state = forward(pass, layers_[i], x, y);
  // The last layer's backward comes first, so recomputing it would save nothing.
  const bool recompute = recompute_ && i + 1 < layers_.size();
  if (recompute) pass.context.arena.release(mark);
  train_from(i + 1, pass, y, dx, head);
  if (recompute) state = forward(pass, layers_[i], x, y);
  backward(pass, layers_[i], state, x, dx);
}

}  // namespace voca::model
