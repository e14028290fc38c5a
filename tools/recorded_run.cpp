#include "tools/recorded_run.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "engine/base/atomic_file.h"
#include "engine/base/json.h"
#include "engine/base/path_status.h"
#include "engine/telemetry/run_folder.h"

namespace voca::tools {

using nlohmann::ordered_json;

namespace {

/// Whether the config has the form that `train` writes, so that its readers need not check it.
bool is_of_training(const ordered_json& config) {
  const auto holds = [&](const char* key, bool (ordered_json::*is)() const noexcept) {
    const auto entry = config.find(key);
    return entry != config.end() && ((*entry).*is)();
  };
  if (!config.is_object() || config.value("command", ordered_json()) != "train") return false;
  if (!holds("options", &ordered_json::is_object)) return false;
  if (config.contains("world_size") && !holds("world_size", &ordered_json::is_number_integer)) return false;
  if (config.contains("data") && !holds("data", &ordered_json::is_object)) return false;
  const ordered_json& options = config["options"];
  return std::all_of(options.begin(), options.end(),
                     [](const ordered_json& value) { return value.is_primitive(); });
}

}  // namespace

ordered_json recorded_config(const std::filesystem::path& run_dir) {
  const std::filesystem::path path = engine::RunFolder::config_path(run_dir);
  if (!engine::is_there(path)) return nullptr;
  ordered_json config = engine::parse_json(engine::read_text_file(path, kMaxConfigBytes), path.string());
  return is_of_training(config) ? config : ordered_json();
}

}  // namespace voca::tools
