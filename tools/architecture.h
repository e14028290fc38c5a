#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>

#include "engine/checkpoint/torch/training_checkpoint.h"
#include "model/config.h"

namespace voca::tools {

/// Options that supply what a checkpoint does not record.
struct CheckpointOptions {
  std::string weights;         ///< key of the weights to load; empty: the file holds one set
  std::int64_t num_heads = 0;  ///< 0: from the checkpoint
  std::int64_t seq_len = 0;    ///< 0: from the checkpoint
  std::optional<model::CrossAttention> cross_attention;  ///< nullopt: from the checkpoint
};

/// Architecture of the network whose `weights` the file `path` holds. Sizes come from tensor shapes, the rest
/// from `config` or `options`. `config` may be of any program: numbers may be strings, and options may be
/// nested. Throws DataError naming the file and the options that would supply what is missing, UsageError for
/// an option that contradicts the file.
[[nodiscard]] model::ModelConfig architecture_of(const std::string& path,
                                                 std::span<const engine::NamedTensor> weights,
                                                 const nlohmann::ordered_json& config,
                                                 const CheckpointOptions& options);

/// Throws DataError unless the architecture `asked` for, on features in `data`, matches the weights; the
/// message names each option that differs, with both values. What the file does not record is not compared.
void check_same_architecture(const std::string& path, std::span<const engine::NamedTensor> weights,
                             const nlohmann::ordered_json& config, const model::ModelConfig& asked,
                             const std::string& data);

}  // namespace voca::tools
