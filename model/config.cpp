#include "model/config.h"

#include "engine/base/error.h"
#include "model/parameter_table.h"

namespace voca::model {

using engine::UsageError;

void validate(const ModelConfig& c) {
  const auto at_least = [](const char* option, std::int64_t value, std::int64_t minimum) {
    if (value < minimum) throw UsageError("--{} {}: must be at least {}", option, value, minimum);
  };
  at_least("visual_dim", c.visual_dim, 1);
  at_least("audio_dim", c.audio_dim, 1);
  at_least("hidden", c.hidden, 2);
  at_least("num_heads", c.num_heads, 1);
  at_least("num_layers", c.num_layers, 1);
  at_least("seq_len", c.seq_len, 1);
  at_least("num_classes", c.num_classes, 1);
  if (c.num_layers > kMaxLayers)
    throw UsageError("--num_layers {}: at most {} layers are supported", c.num_layers, kMaxLayers);
  if (c.hidden % c.num_heads != 0) {
    throw UsageError("--hidden {} is not divisible by --num_heads {}: choose one that is", c.hidden,
                     c.num_heads);
  }
  if (c.hidden % 2 != 0) throw UsageError("--hidden {}: must be even (the classifier halves it)", c.hidden);
  if (!(c.dropout >= 0 && c.dropout < 1)) throw UsageError("--dropout {}: must be in [0, 1)", c.dropout);
}

void validate(const LossConfig& c) {
  if (!(c.label_smoothing >= 0 && c.label_smoothing < 1))
    throw UsageError("--label_smoothing {}: must be in [0, 1)", c.label_smoothing);
  if (!(c.pos_weight > 0)) throw UsageError("--pos_weight {}: must be positive", c.pos_weight);
  if (!(c.contrastive_weight >= 0))
    throw UsageError("--contrastive_weight {}: must not be negative", c.contrastive_weight);
  if (!(c.temperature > 0)) throw UsageError("temperature {}: must be positive", c.temperature);
}

bool certain_fake_exceeds_half(const LossConfig& config) {
  const double s = config.label_smoothing;
  return config.pos_weight * s / 2 > 1 - s / 2;
}

}  // namespace voca::model
