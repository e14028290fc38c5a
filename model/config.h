#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/names.h"
#include "engine/core/tensor.h"

namespace voca::model {

using engine::name_of;

/// Attention between the streams. In kA2v, audio is the query and visual is key and value; kBidirectional
/// averages both directions.
enum class CrossAttention : std::uint8_t { kA2v, kBidirectional };
constexpr auto names_of(CrossAttention /*tag*/) {
  return std::to_array<engine::Named<CrossAttention>>(
      {{"a2v", CrossAttention::kA2v}, {"bidirectional", CrossAttention::kBidirectional}});
}

enum class PositionalEncoding : std::uint8_t { kNone, kSinusoidal, kLearned };
constexpr auto names_of(PositionalEncoding /*tag*/) {
  return std::to_array<engine::Named<PositionalEncoding>>({{"none", PositionalEncoding::kNone},
                                                           {"sinusoidal", PositionalEncoding::kSinusoidal},
                                                           {"learned", PositionalEncoding::kLearned}});
}

/// Source of a sample's InfoNCE negatives: this rank's batch or the global batch.
enum class ContrastiveScope : std::uint8_t { kLocal, kGlobal };
constexpr auto names_of(ContrastiveScope /*tag*/) {
  return std::to_array<engine::Named<ContrastiveScope>>(
      {{"local", ContrastiveScope::kLocal}, {"global", ContrastiveScope::kGlobal}});
}

/// The architecture, with the names and defaults of the options.
struct ModelConfig {
  std::string model = "crossmodal";  ///< which network: a name of model/registry.h
  std::int64_t visual_dim = 512;
  std::int64_t audio_dim = 512;
  std::int64_t hidden = 768;     ///< H, divisible by num_heads and by 2
  std::int64_t num_layers = 4;   ///< L ≥ 0
  std::int64_t num_heads = 8;    ///< N
  std::int64_t seq_len = 256;    ///< T, frames of each sample
  std::int64_t num_classes = 1;  ///< 1: one logit, log-odds of real; K ≥ 2: K logits
  double dropout = 0.1;          ///< in [0, 1)
  CrossAttention cross_attention = CrossAttention::kA2v;
  PositionalEncoding positional_encoding = PositionalEncoding::kNone;
};

/// Configuration of the training losses.
struct LossConfig {
  double label_smoothing = 0;  ///< s in [0, 1)
  double pos_weight = 1;       ///< > 0; binary only
  bool use_contrastive = false;
  double contrastive_weight = 0.5;
  double temperature = 0.07;
  ContrastiveScope contrastive_scope = ContrastiveScope::kLocal;
};

/// Throws UsageError naming the invalid option (hidden not divisible by num_heads, …).
void validate(const ModelConfig& config);
void validate(const LossConfig& config);

/// Whether label smoothing and pos_weight together push the score of a certain fake above 0.5: w · s/2 > 1 −
/// s/2.
[[nodiscard]] bool certain_fake_exceeds_half(const LossConfig& config);

/// Name and shape of a state dict entry, from which the architecture is inferred.
struct StateEntry {
  std::string name;
  engine::Shape shape;
};

}  // namespace voca::model
