#include "tools/options/inference_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "engine/base/error.h"
#include "engine/base/json.h"

namespace voca::tools {

using engine::UsageError;

void add_inference_options(OptionSet& set, InferenceOptions& options) {
  add_checkpoint_options(set, options.checkpoint);
  set.begin_group("Data");
  set.add(
      "features_root", &options.features_root, "PATH",
      "feature tree (packed once beside it) or packed .h5; for predict also a folder of videos, or of one");
  set.add("split_ratios", &options.split_ratios, "A,B,C",
          "train, val, test; for a feature tree. A packed file's cannot be changed");
  set.add("split_seed", &options.split_seed, "S", "draws the splits; for a feature tree");
  set.add("group_by", &options.group_by, "none|identity|REGEX",
          "keep identities in one split; for a feature tree");
  for (const char* name : {"split_ratios", "split_seed", "group_by"})
    set.show_default(name, "the training's");
  set.begin_group("Machine");
  set.add("batch_size", &options.batch_size, "B", "videos a batch");
  set.add("num_workers", &options.num_workers, "N", "threads that assemble batches");
  set.add("device", &options.device, "auto|cpu|cuda[:N]", "where to compute");
  set.add("threads", &options.threads, "N",
          "CPU threads of the kernels; 0: OMP_NUM_THREADS, or the CPUs this process may use");
  set.add("comm_timeout", &options.comm_timeout, "SECONDS", "longest wait for another rank, anywhere");
  set.add_flag("quiet", &options.quiet, "no progress on stderr");
  set.add_flag("json", &options.json, "print the result as one JSON object");
}

void check(const InferenceOptions& options) {
  check(options.checkpoint);
  (void)parse_device(options.device);
  if (!(options.comm_timeout >= 1))
    throw UsageError("--comm_timeout: is {}, must be at least 1 second", options.comm_timeout);
  if (options.batch_size < 1) throw UsageError("--batch_size: is {}, must be at least 1", options.batch_size);
  check_threads("--num_workers", options.num_workers);
  check_threads("--threads", options.threads);
}

std::shared_ptr<const data::Dataset> open_inference_data(const OptionSet& set,
                                                         const InferenceOptions& options,
                                                         const TrainedNetwork& network,
                                                         engine::ProgressBar& progress, JoinedJob& job,
                                                         bool labels_needed) {
  TreeOptions tree = tree_options_of(network);
  if (set.given("split_ratios")) tree.split_ratios = data::parse_split_ratios(options.split_ratios);
  if (set.given("split_seed")) tree.split_seed = options.split_seed;
  if (set.given("group_by")) tree.group_by = options.group_by;
  tree.given = {.split_ratios = set.given("split_ratios"),
                .split_seed = set.given("split_seed"),
                .group_by = set.given("group_by")};
  tree.labels_needed = labels_needed;
  tree.num_workers = std::max<std::int64_t>(options.num_workers, 1);
  auto dataset = job.first_rank_first("packing the features",
                                      [&] { return open_features(options.features_root, tree, progress); });
  job.agree("data", {{"the dataset's content", dataset->content_hash()},
                     {"the dataset's split", dataset->split_hash()}});
  return dataset;
}

void warn_of_other_split(const TrainedNetwork& network, const data::Dataset& dataset,
                         engine::ProgressBar& progress) {
  const std::string trained_on = network.split_hash();
  if (trained_on.empty() || trained_on == dataset.split_hash()) return;
  progress.warning(fmt::format(
      "warning: the split is not the one {} was trained with; videos that both have may have been trained on",
      network.path));
}

PredictionOptions prediction_options(const InferenceOptions& options, const JoinedJob& job) {
  return {.batch_size = options.batch_size,
          .num_workers = options.num_workers,
          .ranks = job.ranks(),
          .ranks_here = job.alone() ? 1 : job.environment().local_world_size};
}

std::unique_ptr<engine::Device> make_device(const InferenceOptions& options, JoinedJob& job,
                                            engine::ProgressBar& progress) {
  const DeviceOptions asked{.device = options.device, .threads = options.threads};
  auto device = make_device(of_rank(asked, job), [&](const std::string& note) { progress.message(note); });
  job.agree_on_devices(*device, asked);
  return device;
}

void in_inference_job(const OptionSet& set, const InferenceOptions& options,
                      const std::function<void(JoinedJob&)>& body) {
  Agreement agreement;
  const nlohmann::ordered_json values = set.values();
  for (const char* name :
       {"checkpoint", "weights", "num_heads", "seq_len", "cross_attention", "split", "batch_size"}) {
    if (values.contains(name))
      agreement.emplace_back(std::string("--") + name, engine::json_text(values[name]));
  }
  in_job(agreement, options.comm_timeout, body);
}

}  // namespace voca::tools
