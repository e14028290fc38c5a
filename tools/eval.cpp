#include <iostream>

#include "engine/error.h"
#include "engine/progress.h"
#include "tools/commands.h"
#include "tools/evaluation.h"
#include "tools/inference_options.h"

namespace voca::tools {

void eval(CommandLine command_line) {
  InferenceOptions options;
  std::string checkpoint;
  std::string split = "test";
  OptionSet set("eval", "Measures a checkpoint on a split (docs/evaluation.md).");
  set.begin_group("Checkpoint");
  set.add("checkpoint", &checkpoint, "F.pt", ".pt or .safetensors");
  set.add("split", &split, "train|val|test", "the split");
  add_inference_options(set, options);
  if (!set.parse(command_line)) return;
  set.require("checkpoint");
  set.require("features_root");
  check(options);
  const data::Split which = data::parse_split(split);
  engine::Progress progress = engine::Progress::on_stderr(options.quiet);
  const TrainedNetwork network = load_network(checkpoint);
  const auto dataset = open_inference_data(set, options, network, progress);
  const std::unique_ptr<engine::Device> device = make_device(options, progress);
  const nlohmann::ordered_json result =
      evaluate(network, dataset, which, prediction_options(options), *device);
  if (const std::string trained_on = network.split_hash();
      !trained_on.empty() && trained_on != dataset->split_hash()) {
    progress.message(
        "warning: the split is not the one the checkpoint was trained with; videos that both have may have "
        "been "
        "trained on");
  }
  if (options.json) {
    std::cout << result.dump(2) << '\n';
  } else {
    std::cout << evaluation_text(result);
  }
}

}  // namespace voca::tools
