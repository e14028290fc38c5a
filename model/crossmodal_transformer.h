#pragma once

#include <memory>

#include "engine/core/model.h"
#include "model/network.h"

namespace voca::model {

/// The detector: two projections, cross-attention, temporal encoder, pooling, classifier, contrastive head.
/// Parameters are named as in the PyTorch module. Inputs: "visual" (T, visual_dim), "audio" (T, audio_dim);
/// target kLabel, output kLogits (model/tasks/detection.h); losses "loss", "cls", "con". Throws UsageError if
/// the configuration is invalid.
[[nodiscard]] std::unique_ptr<engine::Model> make_crossmodal_transformer(
    const ModelConfig& config, const LossConfig& losses, Activations activations = Activations::kKeep);

/// In the registry as "crossmodal".
extern const NetworkKind kCrossModalTransformer;

}  // namespace voca::model
