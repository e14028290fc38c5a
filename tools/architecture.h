#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "engine/checkpoint/torch/training_checkpoint.h"
#include "model/config.h"
#include "tools/options/option_set.h"

namespace voca::tools {

/// What a user says of a checkpoint that does not say it itself.
struct CheckpointOptions {
  std::string weights;          ///< which of several; empty: there is one
  std::int64_t num_heads = 0;   ///< 0: the checkpoint's
  std::int64_t seq_len = 0;     ///< 0: the checkpoint's
  std::string cross_attention;  ///< empty: the checkpoint's
};

void add_checkpoint_options(OptionSet& set, CheckpointOptions& options);
/// Throws UsageError naming the option that is out of range.
void check(const CheckpointOptions& options);

/// The network that `weights` of the file `path` spell: sizes from shapes, the rest from `config`, whoever
/// wrote it (numbers may be texts, options lie deeper in it), or from `options`. Throws DataError naming the
/// file and the options that would tell what it does not; UsageError for an option that contradicts it.
[[nodiscard]] model::ModelConfig architecture_of(const std::string& path,
                                                 std::span<const engine::NamedTensor> weights,
                                                 const nlohmann::ordered_json& config,
                                                 const CheckpointOptions& options);

/// Throws DataError unless a network `asked` for, on features in `data`, has the architecture of the weights,
/// naming each option that differs with both values. What the file does not tell may be anything.
void check_same_architecture(const std::string& path, std::span<const engine::NamedTensor> weights,
                             const nlohmann::ordered_json& config, const model::ModelConfig& asked,
                             const std::string& data);

}  // namespace voca::tools
