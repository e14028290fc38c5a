#include "model/classifier.h"

namespace voca::model {
namespace {

using engine::ArenaScope;
using engine::Tensor;
namespace ops = engine::ops;

// Activations saved for backward.
struct HeadState {
  Tensor argmax;  // (B, H)
  Tensor pooled;  // (B, H)
  MlpState mlp;
};

HeadState forward(const Pass& pass, const Classifier& head, const Tensor& x, Tensor logits) {
  const engine::Shape pooled{x.shape[0], x.shape[2]};
  HeadState state;
  state.argmax = pass.context.allocate("argmax", pooled, engine::DType::kI32);
  state.pooled = pass.allocate("pooled", pooled);
  ops::pooling(pass.context, x, state.pooled, state.argmax);
  state.mlp = mlp(pass, head.mlp, state.pooled, logits);
  return state;
}

void cross_entropy(const Pass& pass, const Classifier& head, ops::CrossEntropy args) {
  args.smoothing = head.label_smoothing;
  args.pos_weight = head.pos_weight;
  if (head.classes == 1) {
    ops::binary_cross_entropy(pass.context, args);
  } else {
    ops::softmax_cross_entropy(pass.context, args);
  }
}

}  // namespace

void classify(const Pass& pass, const Classifier& head, const Tensor& x, Tensor logits) {
  static_cast<void>(forward(pass, head, x, logits));
}

void classification_losses(const Pass& pass, const Classifier& head, const Tensor& logits,
                           const Tensor& labels, Tensor row_losses) {
  cross_entropy(pass, head,
                {.logits = logits,
                 .labels = labels,
                 .loss = pass.allocate_statistics("mean loss", {1}),
                 .row_losses = row_losses});
}

void train_classifier(const Pass& pass, const Classifier& head, const Tensor& x, const ClassifierStep& step,
                      Tensor dx) {
  const ArenaScope scope(pass.context.arena);
  const HeadState state = forward(pass, head, x, step.logits);
  const Tensor dlogits = pass.allocate("d logits", step.logits.shape);
  cross_entropy(pass, head,
                {.logits = step.logits,
                 .labels = step.labels,
                 .grad = step.gradient_scale,
                 .loss = step.loss,
                 .dlogits = dlogits});
  const Tensor dpooled = pass.allocate("d pooled", state.pooled.shape);
  mlp_backward(pass, head.mlp, state.mlp, state.pooled, dlogits, dpooled);
  pass.mark_final(head.mlp.first.bias);
  ops::pooling_backward(pass.context, dpooled, state.argmax, dx, false);
}

}  // namespace voca::model
