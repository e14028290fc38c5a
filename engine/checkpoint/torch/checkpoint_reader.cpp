// Reading side of training_checkpoint.h: finds the weights and options in the layouts that scripts use.

#include <array>
#include <nlohmann/json.hpp>
#include <string_view>
#include <unordered_set>

#include "engine/base/error.h"
#include "engine/base/file_kind.h"
#include "engine/base/json.h"
#include "engine/checkpoint/torch/training_checkpoint.h"

namespace voca::engine {
namespace {

constexpr int kMaxDepth = 3;           // maximum depth of a state dict below the root
constexpr std::size_t kMaxItems = 16;  // longer lists are not searched
constexpr std::string_view kEngine = "engine";

/// Names under which scripts keep their options, as a dict, an argparse.Namespace, a dataclass, …
constexpr std::array<std::string_view, 14> kConfigKeys = {
    "config",  "args",      "hparams", "hyper_parameters", "hyperparameters", "cfg",          "opt",
    "options", "arguments", "params",  "model_config",     "model_args",      "model_kwargs", "settings"};

constexpr std::size_t kMaxPath = 1000;        // bytes; longer keys are not usable with --weights
constexpr std::size_t kMaxTensors = 100'000;  // in all state dicts together

/// Finds the dicts of tensors in a file.
class StateDictFinder {
 public:
  explicit StateDictFinder(const std::string& source) : source_(source) {}

  std::vector<StateDict> find(const Value& root) {
    visit(root, {}, 0);
    return std::move(found_);
  }

 private:
  void visit(const Value& value, const ValuePlace& place, int depth) {
    // Skips optimizer states, and pickled modules, whose parameters are scattered over submodules.
    if (value.find("param_groups") != nullptr || value.find("_parameters") != nullptr || depth > kMaxDepth)
      return;
    collect(value, place);
    for (const auto& [name, item] : value.entries()) {
      if (name.if_string() != nullptr) visit(item, {.above = &place, .key = &name}, depth + 1);
    }
    const std::span<const Value> items = value.items();
    for (std::size_t i = 0; i < items.size() && items.size() <= kMaxItems; ++i)
      visit(items[i], {.above = &place, .index = i}, depth + 1);
  }

  void collect(const Value& value, const ValuePlace& place) {
    StateDict dict;
    for (const auto& [name, item] : value.entries()) {
      const std::string* text = name.if_string();
      if (text == nullptr) continue;
      if (const TensorValue* tensor = item.if_tensor()) {
        // A dict may be referenced repeatedly, and every reference is copied.
        if (++tensors_ > kMaxTensors) {
          throw DataError("{}: holds more than {} tensors, those of a dict that occurs again counted again",
                          source_, kMaxTensors);
        }
        dict.tensors.push_back({*text, *tensor});
      } else if (const InertNode* node = item.if_inert();
                 node != nullptr && text->find('.') != std::string::npos && ++others_ <= kMaxTensors) {
        dict.others.emplace_back(*text, node->global + ", not loaded");
      }
    }
    if (dict.tensors.empty() && dict.others.empty()) return;
    dict.key = path_of(place, kMaxPath + 1);
    if (dict.key.size() <= kMaxPath) found_.push_back(std::move(dict));
  }

  const std::string& source_;
  std::vector<StateDict> found_;
  std::size_t tensors_ = 0;
  std::size_t others_ = 0;
};

/// Adds the entries whose name is not present yet.
void merge(nlohmann::ordered_json& config, const nlohmann::ordered_json& more) {
  std::unordered_set<std::string> names;
  for (const auto& [name, value] : config.items()) names.insert(name);
  for (const auto& [name, value] : more.items())
    if (names.insert(name).second) add_member(config, name, value);
}

/// `engine` as this program writes it; an empty object for files of other programs.
nlohmann::ordered_json own_engine(const std::string& source, nlohmann::ordered_json engine) {
  const auto version = engine.is_object() ? engine.find("format_version") : engine.end();
  if (!engine.is_object() || version == engine.end() || !version->is_number_integer())
    return nlohmann::ordered_json::object();
  if (version->get<std::int64_t>() > kCheckpointFormatVersion) {
    throw DataError(
        "{}: written in format {}, this program knows up to {}; use the program that wrote it or a newer one",
        source, version->get<std::int64_t>(), kCheckpointFormatVersion);
  }
  if (const auto ranks = engine.find("world_size"); ranks != engine.end() && !ranks->is_number_integer())
    throw DataError("{}: its engine.world_size is not an integer", source);
  return engine;
}

/// Metadata values are strings: JSON, as this program writes it, or numbers.
LoadedCheckpoint from_safetensors(const std::string& source, SafetensorsFile file) {
  LoadedCheckpoint result;
  result.state_dicts.push_back({.key = "", .tensors = std::move(file.tensors), .others = {}});
  const auto json_of = [&](std::string_view key) {
    const auto text = file.metadata.find(std::string(key));
    if (text == file.metadata.end()) return nlohmann::ordered_json::object();
    auto json = parse_if_json(text->second, fmt::format("{}: metadata {}", source, key));
    return json && json->is_object() ? *json : nlohmann::ordered_json::object();
  };
  result.engine = own_engine(source, json_of(kEngine));
  for (const std::string_view key : kConfigKeys) merge(result.config, json_of(key));
  if (!result.engine.empty()) return result;
  auto texts = nlohmann::ordered_json::object();
  for (const auto& [key, text] : file.metadata) add_member(texts, key, text);
  merge(result.config, texts);
  return result;
}

}  // namespace

LoadedCheckpoint interpret_checkpoint(const std::string& source, const Value& root) {
  LoadedCheckpoint result;
  result.state_dicts = StateDictFinder(source).find(root);
  result.not_loaded = list_inert(root);
  if (const Value* engine = root.find(kEngine)) result.engine = own_engine(source, json_from_value(*engine));
  for (const std::string_view key : kConfigKeys) {
    if (const Value* value = root.find(key); value != nullptr && !value->entries().empty())
      merge(result.config, json_from_value(*value));
  }
  if (!result.engine.empty()) return result;
  auto beside = nlohmann::ordered_json::object();
  for (const auto& [name, value] : root.entries()) {
    const Value::Kind kind = value.kind();
    const bool plain = kind == Value::Kind::kBool || kind == Value::Kind::kInt ||
                       kind == Value::Kind::kDouble || kind == Value::Kind::kString;
    if (plain && name.if_string() != nullptr) add_member(beside, *name.if_string(), json_from_value(value));
  }
  merge(result.config, beside);
  return result;
}

LoadedCheckpoint read_training_checkpoint(const std::filesystem::path& path) {
  const FileKind kind = file_kind(path);
  const bool so_named = path.extension() == ".safetensors" && kind == FileKind::kUnknown;
  if (kind == FileKind::kSafetensors || so_named)
    return from_safetensors(path.string(), read_safetensors(path));
  return interpret_checkpoint(path.string(), read_pt(path).value);
}

}  // namespace voca::engine
