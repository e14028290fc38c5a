#pragma once

#include <array>
#include <vector>

#include "engine/core/parameters.h"
#include "model/config.h"

namespace voca::model {

inline constexpr std::int64_t kMaxLayers = 64;
inline constexpr std::int64_t kContrastiveWidth = 256;
inline constexpr int kNoParameter = -1;

/// torch.nn.Linear: weight (out, in), bias (out).
struct LinearParameters {
  engine::ParameterId weight = kNoParameter;
  engine::ParameterId bias = kNoParameter;
};

/// torch.nn.LayerNorm.
struct NormParameters {
  engine::ParameterId gamma = kNoParameter;
  engine::ParameterId beta = kNoParameter;
};

/// torch.nn.MultiheadAttention and its layer norm.
struct AttentionParameters {
  LinearParameters in_proj;  ///< (3H, H): q, k, v stacked
  LinearParameters out_proj;
  NormParameters norm;
};

struct FeedForwardParameters {
  LinearParameters linear1;  ///< (4H, H)
  LinearParameters linear2;  ///< (H, 4H)
  NormParameters norm;
};

struct ProjectionParameters {
  LinearParameters linear;
  NormParameters norm;
};

/// Every parameter of the network: specs in registration order, and the ids that each block uses.
struct ParameterTable {
  std::vector<engine::ParameterSpec> specs;
  engine::ParameterId pos_embed = kNoParameter;
  ProjectionParameters v_proj;
  ProjectionParameters a_proj;
  AttentionParameters a2v;  ///< cross_attn and cross_norm; a2v_attn and a2v_norm if bidirectional
  AttentionParameters v2a;  ///< bidirectional only
  std::array<AttentionParameters, kMaxLayers> self_attention;
  std::array<FeedForwardParameters, kMaxLayers> feed_forward;
  LinearParameters classifier0;
  LinearParameters classifier3;
  LinearParameters contrast0;
  LinearParameters contrast2;
};

[[nodiscard]] ParameterTable make_parameter_table(const ModelConfig& config);

}  // namespace voca::model
