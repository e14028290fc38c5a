#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "engine/core/model.h"
#include "engine/core/task.h"
#include "model/config.h"
#include "model/metrics/threshold.h"

namespace voca::model {

/// Activations for backward: kept in memory, or recomputed (activation checkpointing) from the inputs of the
/// fusion of the streams and of every encoder layer except the last. Gradients are bitwise the same either
/// way.
enum class Activations : std::uint8_t { kKeep, kRecompute };

/// Floating-point operations of one pass over a batch in GEMM and attention; a multiply-add counts as two.
struct StepFlops {
  double gemm_forward = 0;
  double gemm_backward = 0;
  double attention_forward = 0;
  double attention_backward = 0;  ///< includes the recomputation of the probabilities
  double gemm_recompute = 0;      ///< recomputed part of the forward pass
  double attention_recompute = 0;

  [[nodiscard]] double all() const {
    return gemm_forward + gemm_backward + attention_forward + attention_backward + gemm_recompute +
           attention_recompute;
  }
};

/// A kind of network, as the registry lists it.
struct NetworkKind {
  std::string_view name;   ///< value of --model
  std::string_view title;  ///< its class in PyTorch, for messages
  /// Whether it has a parameter of this name, in any variant and with any number of layers.
  bool (*has_parameter)(std::string_view name);
  /// Whether this parameter distinguishes it from related networks, which share most names.
  bool (*is_telling)(std::string_view name);
  /// Whether a state dict with these entries is of this kind, of any size.
  bool (*recognise)(const std::vector<StateEntry>& state);
  /// The configuration of a state dict of this kind; see infer_config().
  ModelConfig (*infer)(const std::vector<StateEntry>& state, const ModelConfig& hints);
  /// Throws UsageError naming the option that is invalid.
  std::unique_ptr<engine::Model> (*make)(const ModelConfig& config, const LossConfig& losses,
                                         Activations activations);
  /// What it is trained for; `threshold_by` says how its decision threshold is fitted.
  std::unique_ptr<engine::Task> (*make_task)(const ModelConfig& config, const ThresholdRule& threshold_by);
  /// Names of the measures of this task by which checkpoints can be selected.
  std::vector<std::string_view> (*selecting_measures)();
  StepFlops (*count_flops)(const ModelConfig& config, const LossConfig& losses, std::int64_t batch_size,
                           Activations activations);
};

}  // namespace voca::model
