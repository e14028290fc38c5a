// Reading side of training_checkpoint.h.

#include <algorithm>
#include <array>
#include <cmath>
#include <unordered_map>
#include <unordered_set>

#include "engine/checkpoint/training_checkpoint.h"
#include "engine/error.h"
#include "engine/file_kind.h"

namespace voca::engine {
namespace {

constexpr std::size_t kMaxListed = 6;  // names of each kind in a message

bool is_floating(DType dtype) {
  return dtype == DType::kF64 || dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text;
  for (const std::int64_t extent : shape) text += (text.empty() ? "" : ", ") + std::to_string(extent);
  return "(" + text + ")";
}

/// "a, b and 3 more"
std::string listed(const std::vector<std::string>& names) {
  std::string text;
  for (std::size_t i = 0; i < std::min(names.size(), kMaxListed); ++i)
    text += (i == 0 ? "" : ", ") + names[i];
  if (names.size() > kMaxListed) text += fmt::format(" and {} more", names.size() - kMaxListed);
  return text;
}

/// Removes `prefix` where every name carries it: DataParallel and torch.compile put one before all.
void strip_prefix(std::vector<NamedTensor>& tensors, std::string_view prefix) {
  const bool all = std::all_of(tensors.begin(), tensors.end(),
                               [&](const NamedTensor& tensor) { return tensor.name.starts_with(prefix); });
  if (!all) return;
  for (NamedTensor& tensor : tensors) tensor.name.erase(0, prefix.size());
}

void strip_prefixes(std::vector<NamedTensor>& tensors) {
  if (tensors.empty()) return;
  // In either order: a compiled module may be wrapped, and a wrapped one compiled.
  for (const std::string_view prefix : {"module.", "_orig_mod.", "module."}) strip_prefix(tensors, prefix);
}

std::optional<std::int64_t> whole_number(const Value& value) {
  if (const auto* number = value.if_int()) return *number;
  double number = 0.5;
  if (const auto* real = value.if_double()) number = *real;
  if (const TensorValue* tensor = value.if_tensor(); tensor != nullptr && tensor->elements() == 1)
    tensor->copy_to(std::span(&number, 1));
  constexpr double kExact = 9007199254740992.0;  // 2^53
  if (!(std::abs(number) <= kExact) || number != std::floor(number)) return std::nullopt;
  return static_cast<std::int64_t>(number);
}

std::optional<double> real_number(const Value& value) {
  if (const auto* number = value.if_double()) return *number;
  if (const auto* number = value.if_int()) return static_cast<double>(*number);
  double number = 0;
  const TensorValue* tensor = value.if_tensor();
  if (tensor == nullptr || tensor->elements() != 1) return std::nullopt;
  tensor->copy_to(std::span(&number, 1));
  return number;
}

/// Reads one dictionary of a .pt; messages begin with the file's name.
class DictReader {
 public:
  explicit DictReader(std::string source) : source_(std::move(source)) {}

  template <typename... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) const {
    throw DataError("{}: {}", source_, fmt::format(format, std::forward<Args>(args)...));
  }

  [[nodiscard]] const Dict& dict(const Value& value, std::string_view what) const {
    const Dict* result = value.if_dict();
    if (result == nullptr) fail("{} is a {}, where a dict was expected", what, name_of(value.kind()));
    return *result;
  }

  [[nodiscard]] std::vector<NamedTensor> state_dict(const Dict& dict, std::string_view what) const {
    std::vector<NamedTensor> tensors;
    for (const auto& [key, value] : dict.items) {
      const std::string* name = key.if_string();
      const TensorValue* tensor = value.if_tensor();
      if (name == nullptr) fail("{} has a key of type {}; a state dict has names", what, name_of(key.kind()));
      if (tensor == nullptr) {
        fail("{} holds a {} under {}; a state dict holds tensors alone", what, name_of(value.kind()),
             printable(*name));
      }
      tensors.push_back({*name, *tensor});
    }
    strip_prefixes(tensors);
    return tensors;
  }

  [[nodiscard]] LoadedOptimizer optimizer(const Dict& dict) const {
    const Value* state = dict.find("state");
    const Value* groups = dict.find("param_groups");
    if (state == nullptr || groups == nullptr || groups->items().size() != 1)
      fail("optimizer_state_dict needs state and one param_group; it is not AdamW's with one group");
    const Dict& group = this->dict(groups->items()[0], "optimizer_state_dict.param_groups[0]");
    LoadedOptimizer result;
    read_group(group, result.adamw);
    const Value* params = group.find("params");
    if (params == nullptr || (params->if_list() == nullptr && params->if_tuple() == nullptr))
      fail("optimizer_state_dict.param_groups[0] has no list params");
    const Dict& entries = this->dict(*state, "optimizer_state_dict.state");
    if (!entries.items.empty()) read_moments(entries, params->items(), result);
    return result;
  }

  [[nodiscard]] std::optional<double> metric(const Dict& root, std::string_view key) const {
    const Value* value = root.find(key);
    if (value == nullptr || value->is_none()) return std::nullopt;
    const auto number = real_number(*value);
    if (!number) fail("{} is a {}, where a number was expected", key, name_of(value->kind()));
    return number;
  }

  [[nodiscard]] nlohmann::ordered_json json(const Dict& root, std::string_view key) const {
    const Value* value = root.find(key);
    if (value == nullptr || value->is_none()) return nlohmann::ordered_json::object();
    (void)dict(*value, key);
    return json_from_value(*value, fmt::format("{}: {}", source_, key));
  }

 private:
  void read_group(const Dict& group, AdamWState& adamw) const {
    const auto number = [&](std::string_view key) {
      const Value* value = group.find(key);
      const auto result = value == nullptr ? std::nullopt : real_number(*value);
      if (!result) fail("optimizer_state_dict.param_groups[0] has no number {}; it is not AdamW's", key);
      return *result;
    };
    for (const std::string_view key : {"amsgrad", "maximize"}) {
      const Value* value = group.find(key);
      if (value != nullptr && value->if_bool() != nullptr && *value->if_bool())
        fail("optimizer_state_dict was made with {}=True, which this AdamW has not", key);
    }
    adamw.lr = number("lr");
    adamw.eps = number("eps");
    adamw.weight_decay = number("weight_decay");
    const Value* betas = group.find("betas");
    if (betas == nullptr || betas->items().size() != 2 || !real_number(betas->items()[0]) ||
        !real_number(betas->items()[1]))
      fail("optimizer_state_dict.param_groups[0] has no two betas; it is not AdamW's");
    adamw.beta1 = *real_number(betas->items()[0]);
    adamw.beta2 = *real_number(betas->items()[1]);
  }

  void read_moments(const Dict& state, std::span<const Value> params, LoadedOptimizer& result) const {
    std::unordered_map<std::int64_t, const Value*> by_index;
    for (const auto& [key, value] : state.items)
      if (key.if_int() != nullptr) by_index.emplace(*key.if_int(), &value);
    if (by_index.size() != params.size() || state.items.size() != params.size()) {
      fail("optimizer_state_dict has moments of {} of its {} parameters; all or none were expected",
           state.items.size(), params.size());
    }
    std::optional<std::int64_t> step;
    for (const Value& param : params) {
      const auto found = param.if_int() == nullptr ? by_index.end() : by_index.find(*param.if_int());
      if (found == by_index.end()) fail("optimizer_state_dict names a parameter that its state has not");
      const std::int64_t index = found->first;
      const Dict& entry = dict(*found->second, "an entry of optimizer_state_dict.state");
      const auto moment = [&](std::string_view key) {
        const Value* value = entry.find(key);
        if (value == nullptr || value->if_tensor() == nullptr)
          fail("optimizer_state_dict.state[{}] has no tensor {}; it is not AdamW's", index, key);
        return *value->if_tensor();
      };
      result.exp_avg.push_back(moment("exp_avg"));
      result.exp_avg_sq.push_back(moment("exp_avg_sq"));
      const Value* step_value = entry.find("step");
      const auto own = step_value == nullptr ? std::nullopt : whole_number(*step_value);
      if (!own || *own < 1) fail("optimizer_state_dict.state[{}] has no step from 1 on", index);
      if (step && *step != *own) {
        fail("optimizer_state_dict has parameters at steps {} and {}; one step for all was expected", *step,
             *own);
      }
      step = own;
    }
    result.adamw.step = step.value_or(0);
  }

  std::string source_;
};

bool is_bare_state_dict(const Dict& root) {
  return !root.items.empty() && std::all_of(root.items.begin(), root.items.end(), [](const auto& item) {
    return item.second.if_tensor() != nullptr;
  });
}

LoadedCheckpoint read_dictionary(const std::string& source, const Dict& root) {
  const DictReader reader(source);
  LoadedCheckpoint result;
  if (is_bare_state_dict(root)) {
    result.parameters = reader.state_dict(root, "the state dict");
    return result;
  }
  const Value* model = root.find("model_state_dict");
  if (model == nullptr) model = root.find("state_dict");
  if (model == nullptr)
    reader.fail("has no model_state_dict or state_dict and is no state dict itself; save model.state_dict()");
  result.engine = reader.json(root, "engine");
  if (const auto version = result.engine.find("format_version"); version != result.engine.end()) {
    if (!version->is_number_integer() || version->get<std::int64_t>() < 1)
      reader.fail("engine.format_version is no version");
    if (version->get<std::int64_t>() > kCheckpointFormatVersion) {
      reader.fail(
          "written in format {}, this program knows up to {}; use the program that wrote it or a newer one",
          version->get<std::int64_t>(), kCheckpointFormatVersion);
    }
  }
  result.parameters = reader.state_dict(reader.dict(*model, "model_state_dict"), "model_state_dict");
  const Value* optimizer = root.find("optimizer_state_dict");
  if (optimizer != nullptr && !optimizer->is_none())
    result.optimizer = reader.optimizer(reader.dict(*optimizer, "optimizer_state_dict"));
  if (result.optimizer && result.engine.contains("step") && result.engine["step"].is_number_integer())
    result.optimizer->adamw.step = result.engine["step"].get<std::int64_t>();
  if (const Value* epoch = root.find("epoch"); epoch != nullptr && !epoch->is_none()) {
    result.epoch = whole_number(*epoch);
    if (!result.epoch)
      reader.fail("epoch is a {}, where a whole number was expected", name_of(epoch->kind()));
  }
  result.val_acc = reader.metric(root, "val_acc");
  result.val_auc = reader.metric(root, "val_auc");
  result.config = reader.json(root, "config");
  return result;
}

/// A .safetensors carries config and engine as JSON in its metadata; those of others may have none.
nlohmann::ordered_json json_of_metadata(const SafetensorsFile& file, const std::string& key) {
  const auto text = file.metadata.find(key);
  if (text == file.metadata.end()) return nlohmann::ordered_json::object();
  auto json = nlohmann::ordered_json::parse(text->second, nullptr, false);
  return json.is_object() ? json : nlohmann::ordered_json::object();
}

}  // namespace

LoadedCheckpoint read_training_checkpoint(const std::filesystem::path& path) {
  if (file_kind(path) == FileKind::kSafetensors) {
    LoadedCheckpoint result;
    SafetensorsFile file = read_safetensors(path);
    result.parameters = std::move(file.tensors);
    strip_prefixes(result.parameters);
    result.config = json_of_metadata(file, "config");
    result.engine = json_of_metadata(file, "engine");
    return result;
  }
  const PtFile file = read_pt(path);
  if (const std::string inert = find_inert(file.value); !inert.empty()) {
    throw DataError(
        "{}: holds an object that is not loaded ({}); save tensors, numbers, texts, lists and dicts alone",
        path.string(), inert);
  }
  const Dict* root = file.value.if_dict();
  if (root == nullptr)
    throw DataError("{}: holds a {}, where a dict was expected", path.string(), name_of(file.value.kind()));
  return read_dictionary(path.string(), *root);
}

void load_parameters(const std::string& source, std::span<const NamedTensor> tensors,
                     std::span<const ParameterTarget> targets) {
  std::unordered_map<std::string, const TensorValue*> by_name;
  for (const NamedTensor& named : tensors) {
    if (!by_name.emplace(named.name, &named.tensor).second)
      throw DataError("{}: has {} twice", source, printable(named.name));
  }
  std::unordered_set<std::string> wanted;
  std::vector<std::string> missing;
  std::vector<std::string> mismatched;
  std::vector<std::string> unexpected;
  for (const ParameterTarget& target : targets) {
    wanted.insert(target.name);
    const auto found = by_name.find(target.name);
    if (found == by_name.end()) {
      missing.push_back(target.name);
    } else if (found->second->shape != target.shape) {
      mismatched.push_back(fmt::format("{} is {}, expected {}", target.name, shape_text(found->second->shape),
                                       shape_text(target.shape)));
    } else if (!is_floating(found->second->dtype)) {
      mismatched.push_back(fmt::format("{} is {}", target.name, name_of(found->second->dtype)));
    }
  }
  for (const NamedTensor& named : tensors)
    if (!wanted.contains(named.name)) unexpected.push_back(printable(named.name));
  if (!missing.empty() || !unexpected.empty() || !mismatched.empty()) {
    std::string message;
    const auto add = [&](std::string_view what, const std::vector<std::string>& names) {
      if (!names.empty()) message += fmt::format("; {} {}: {}", names.size(), what, listed(names));
    };
    add("missing", missing);
    add("unexpected", unexpected);
    add("that do not fit", mismatched);
    throw DataError("{}: its parameters are not the model's{}", source, message);
  }
  for (const ParameterTarget& target : targets) by_name.at(target.name)->copy_to(target.elements);
}

void load_moments(const std::string& source, const LoadedOptimizer& optimizer,
                  std::span<const ParameterTarget> exp_avg, std::span<const ParameterTarget> exp_avg_sq) {
  VOCA_CHECK(exp_avg.size() == exp_avg_sq.size());
  if (optimizer.exp_avg.empty()) {
    for (const auto targets : {exp_avg, exp_avg_sq}) {
      for (const ParameterTarget& target : targets)
        std::fill(target.elements.begin(), target.elements.end(), 0.0F);
    }
    return;
  }
  if (optimizer.exp_avg.size() != exp_avg.size()) {
    throw DataError("{}: optimizer_state_dict has moments of {} parameters, the model has {}", source,
                    optimizer.exp_avg.size(), exp_avg.size());
  }
  for (std::size_t i = 0; i < exp_avg.size(); ++i) {
    for (const TensorValue* moment : {&optimizer.exp_avg[i], &optimizer.exp_avg_sq[i]}) {
      if (moment->shape != exp_avg[i].shape || !is_floating(moment->dtype)) {
        throw DataError(
            "{}: optimizer_state_dict.state[{}] is {} {}, where {} is {}; states go by order of registration",
            source, i, name_of(moment->dtype), shape_text(moment->shape), exp_avg[i].name,
            shape_text(exp_avg[i].shape));
      }
    }
  }
  for (std::size_t i = 0; i < exp_avg.size(); ++i) {
    optimizer.exp_avg[i].copy_to(exp_avg[i].elements);
    optimizer.exp_avg_sq[i].copy_to(exp_avg_sq[i].elements);
  }
}

}  // namespace voca::engine
