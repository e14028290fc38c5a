#include "engine/checkpoint/torch/training_checkpoint.h"

#include <nlohmann/json.hpp>

#include "engine/base/file_reader.h"
#include "engine/base/json.h"

namespace voca::engine {
namespace {

constexpr std::string_view kFormatVersion = "format_version";

Value optional_number(const std::optional<double>& number) {
  return number ? Value(*number) : Value();
}

/// State dict of torch.optim.AdamW. PyTorch versions keep keys that they do not know; __setstate__ sets keys
/// that are missing.
Value optimizer_value(const TrainingCheckpoint& checkpoint, std::span<const float> step) {
  const AdamWState& adamw = *checkpoint.optimizer;
  Dict state;
  List indices;
  for (std::size_t i = 0; i < checkpoint.parameters.size(); ++i) {
    const ParameterState& parameter = checkpoint.parameters[i];
    const auto index = static_cast<std::int64_t>(i);
    indices.items.emplace_back(index);
    if (adamw.step == 0) continue;  // before its first step the optimizer has no state
    Dict entry;
    entry.add("step", borrow_tensor(step, {}));
    entry.add("exp_avg", borrow_tensor(parameter.exp_avg, parameter.shape));
    entry.add("exp_avg_sq", borrow_tensor(parameter.exp_avg_sq, parameter.shape));
    state.items.emplace_back(Value(index), Value(std::move(entry)));
  }
  Dict group;
  group.add("lr", adamw.lr);
  group.add("betas", Tuple{{Value(adamw.options.beta1), Value(adamw.options.beta2)}});
  group.add("eps", adamw.options.eps);
  group.add("weight_decay", adamw.options.weight_decay);
  group.add("amsgrad", false);
  group.add("foreach", Value());
  group.add("maximize", false);
  group.add("capturable", false);
  group.add("differentiable", false);
  group.add("fused", Value());
  group.add("params", std::move(indices));
  Dict optimizer;
  optimizer.add("state", std::move(state));
  optimizer.add("param_groups", List{{Value(std::move(group))}});
  return optimizer;
}

}  // namespace

void write_training_checkpoint(const std::filesystem::path& path, const TrainingCheckpoint& checkpoint) {
  Dict model;
  model.ordered_dict = true;
  for (const ParameterState& parameter : checkpoint.parameters)
    model.add(parameter.name, borrow_tensor(parameter.weights, parameter.shape));
  // Float32 like in torch: exact up to 16777216 steps, beyond which its AdamW cannot tell steps apart either.
  const auto step = static_cast<float>(checkpoint.optimizer ? checkpoint.optimizer->step : 0);
  nlohmann::ordered_json engine;
  engine[std::string(kFormatVersion)] = kCheckpointFormatVersion;
  if (checkpoint.optimizer) engine["step"] = checkpoint.optimizer->step;
  engine.update(checkpoint.engine);
  Dict root;
  root.add("epoch", checkpoint.epoch);
  root.add("model_state_dict", std::move(model));
  root.add("optimizer_state_dict",
           checkpoint.optimizer ? optimizer_value(checkpoint, std::span(&step, 1)) : Value());
  root.add("val_acc", optional_number(checkpoint.val_acc));
  root.add("val_auc", optional_number(checkpoint.val_auc));
  root.add("config", value_from_json(checkpoint.config));
  root.add("engine", value_from_json(engine));
  write_pt(path, root);
}

void write_weights(const std::filesystem::path& path, std::span<const NamedTensor> weights,
                   const nlohmann::ordered_json& config, nlohmann::ordered_json engine) {
  engine[std::string(kFormatVersion)] = kCheckpointFormatVersion;
  write_safetensors(path, weights, {{"config", json_text(config)}, {"engine", json_text(engine)}});
}

}  // namespace voca::engine
