#include "tools/recorded_run.h"

#include <nlohmann/json.hpp>

#include "engine/atomic_file.h"
#include "engine/run_folder.h"

namespace voca::tools {

using nlohmann::ordered_json;

ordered_json recorded_config(const std::filesystem::path& run_dir) {
  constexpr std::size_t kMaxBytes = std::size_t{1} << 20;
  const std::filesystem::path path = engine::RunFolder::config_path_of(run_dir);
  if (!std::filesystem::exists(path)) return nullptr;
  ordered_json config = ordered_json::parse(engine::read_text_file(path, kMaxBytes), nullptr,
                                            /*allow_exceptions=*/false);
  const bool of_training = config.is_object() && config.value("command", ordered_json()) == "train" &&
                           config.contains("options") && config["options"].is_object();
  return of_training ? config : ordered_json();
}

}  // namespace voca::tools
