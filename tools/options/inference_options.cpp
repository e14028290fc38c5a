#include "tools/options/inference_options.h"

#include <fmt/format.h>

#include <algorithm>

namespace voca::tools {

namespace {

void add_checkpoint_options(OptionSet& set, CheckpointOptions& o) {
  set.add(o.weights, {"weights", "KEY",
                      "which weights of the file, where it holds several: model_state_dict, ema, ..."});
  set.add(o.num_heads, {"num_heads", "N", "attention heads; 0: the checkpoint says", at_least(0)});
  set.add(o.seq_len, {"seq_len", "T", "frames of each video; 0: the checkpoint says", at_least(0)});
  set.add(o.cross_attention, {"cross_attention", "", "form of the network; empty: the checkpoint says"});
}

}  // namespace

void add_inference_options(OptionSet& set, InferenceOptions& o) {
  constexpr std::string_view kOfTheTraining = "the training's";
  add_checkpoint_options(set, o.checkpoint);
  set.begin_group("Data");
  set.add(
      o.features_root,
      {.name = "features_root",
       .argument = "PATH",
       .help =
           "feature tree (packed once beside it) or packed .h5; for predict also a folder of videos, or of "
           "one",
       .effect = Effect::kRank});
  // The ranks compare the hashes of the dataset.
  set.add(o.split_ratios, {.name = "split_ratios",
                           .argument = "A,B,C",
                           .help = "train, val, test; for a feature tree. A packed file's cannot be changed",
                           .effect = Effect::kRank,
                           .shown_default = kOfTheTraining});
  set.add(o.split_seed, {.name = "split_seed",
                         .argument = "S",
                         .help = "draws the splits; for a feature tree",
                         .effect = Effect::kRank,
                         .shown_default = kOfTheTraining});
  set.add(o.group_by, {.name = "group_by",
                       .argument = "none|identity|REGEX",
                       .help = "keep identities in one split; for a feature tree",
                       .effect = Effect::kRank,
                       .shown_default = kOfTheTraining});
  set.begin_group("Machine");
  set.add(o.batch_size, {"batch_size", "B", "videos a batch", at_least(1)});
  set.add(o.num_workers, {"num_workers", "N", "threads that assemble batches", kThreadCount, Effect::kRank});
  set.add(o.device.choice, kDeviceRow);
  set.add(o.device.threads, kThreadsRow);
  set.add(o.comm_timeout, with_effect(kCommTimeoutRow, Effect::kRank));
  set.add(o.quiet, kQuietRow);
  set.add(o.json, kJsonRow);
}

std::shared_ptr<const data::Dataset> open_inference_data(const InferenceOptions& options,
                                                         const TrainedNetwork& network,
                                                         engine::ProgressBar& progress, JoinedJob& job,
                                                         bool labels_needed) {
  TreeOptions tree = tree_options_of(network);
  tree.split_ratios = options.split_ratios.value_or(tree.split_ratios);
  tree.split_seed = options.split_seed.value_or(tree.split_seed);
  tree.group_by = options.group_by.value_or(tree.group_by);
  tree.given = {.split_ratios = options.split_ratios.has_value(),
                .split_seed = options.split_seed.has_value(),
                .group_by = options.group_by.has_value()};
  tree.labels_needed = labels_needed;
  tree.num_workers = std::max(options.num_workers, 1);
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
  auto device =
      make_device(of_rank(options.device, job), [&](const std::string& note) { progress.message(note); });
  job.agree_on_devices(*device, options.device);
  return device;
}

void in_inference_job(const OptionSet& set, const InferenceOptions& options,
                      const std::function<void(JoinedJob&)>& body) {
  in_job(set.values_of_all_ranks(), options.comm_timeout, body);
}

}  // namespace voca::tools
