#pragma once

#include <functional>
#include <vector>

#include "model/blocks.h"

namespace voca::model {

/// One layer: self-attention, then feed-forward, each with residual and norm
/// (torch.nn.TransformerEncoderLayer with norm_first=False).
struct EncoderLayer {
  AttentionBlock attention;
  FeedForward feed_forward;
};

/// The temporal encoder: layers one after another over a sequence (B, T, H).
class Encoder {
 public:
  /// With `recompute`, backward computes the activations of every layer except the last again instead of
  /// keeping them.
  Encoder(std::vector<EncoderLayer> layers, bool recompute)
      : layers_(std::move(layers)), recompute_(recompute) {}

  /// x (B, T, H) is overwritten with the output. Inference only: nothing is saved for backward.
  void predict(const Pass& pass, engine::Tensor x) const;

  /// What follows the encoder: reads its output x (B, T, H), and overwrites dx with the gradient of that.
  using Head = std::function<void(const engine::Tensor& x, engine::Tensor dx)>;
  /// Runs all layers forward, then `head`, then all layers backward; dx is overwritten with the gradient of
  /// the input x, which is kept. Pass `head` through std::ref: then nothing is allocated.
  void train(const Pass& pass, const engine::Tensor& x, engine::Tensor dx, const Head& head) const {
    train_from(0, pass, x, dx, head);
  }

 private:
  void train_from(std::size_t i, const Pass& pass, const engine::Tensor& x, engine::Tensor dx,
                  const Head& head) const;

  std::vector<EncoderLayer> layers_;
  bool recompute_;
};

}  // namespace voca::model
