#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>

#include "data/batches/device_batches.h"
#include "engine/base/atomic_file.h"
#include "engine/base/digest.h"
#include "engine/base/error.h"
#include "engine/base/json.h"
#include "engine/base/signals.h"
#include "engine/base/terminal.h"
#include "engine/base/text.h"
#include "engine/checkpoint/resume/resume_state.h"
#include "engine/core/thread_budget.h"
#include "engine/trainer/trainer.h"
#include "model/registry.h"
#include "tools/banner.h"
#include "tools/commands.h"
#include "tools/evaluation.h"
#include "tools/feature_input.h"
#include "tools/joined_job.h"
#include "tools/log_sink.h"
#include "tools/options/train_options.h"
#include "tools/result.h"
#include "tools/run_memory.h"
#include "tools/run_reporter.h"
#include "tools/train_files.h"
#include "tools/train_notes.h"
#include "tools/trained_model.h"
#include "tools/version.h"

namespace voca::tools {
namespace {

using engine::DataError;
using engine::UsageError;
using nlohmann::ordered_json;

/// Throws DataError for a label that the loss cannot take, before the first step rather than in it.
void check_labels(const TrainOptions& options, const data::Dataset& dataset) {
  const std::int64_t classes = std::max<std::int64_t>(options.model.num_classes, 2);
  for (std::int64_t sample = 0; sample < dataset.size(); ++sample) {
    const int label = dataset.label(sample);
    if (dataset.split(sample) == data::Split::kTest && label < 0) continue;
    if (label < 0 || label >= classes) {
      throw DataError("{}: {} is labelled {}; --num_classes {} takes labels from 0 to {}",
                      dataset.path().string(), dataset.id(sample),
                      label < 0 ? "unknown" : std::to_string(label), options.model.num_classes, classes - 1);
    }
  }
}

std::vector<engine::PredictionColumn> targets_of(const data::Dataset& dataset, data::Split split) {
  engine::PredictionColumn labels{.name = data::kLabelTarget, .width = 1, .values = {}};
  for (const std::int64_t sample : dataset.samples_of(split)) labels.values.push_back(dataset.label(sample));
  return {labels};
}

/// Content of config.json: the options that --config reads, and everything that explains the run's numbers.
ordered_json run_config(const ordered_json& options, int world_size, const data::Dataset& dataset,
                        engine::Device& device, const std::string& config_hash, double pos_weight) {
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  return {
      {"command", "train"},
      {"options", options},
      {"world_size", world_size},
      {"versions", versions()},
      {"host", host.data()},
      {"device", device.description()},
      {"matrix_products",
       device.gemm_library() == nullptr ? ordered_json() : ordered_json(device.gemm_library()->choices())},
      {"data",
       {{"path", std::filesystem::absolute(dataset.path()).string()},
        {"samples", dataset.size()},
        {"visual_dim", dataset.dim(data::Stream::kVisual)},
        {"audio_dim", dataset.dim(data::Stream::kAudio)},
        {"content_hash", dataset.content_hash()},
        {"split_hash", dataset.split_hash()}}},
      {"pos_weight", pos_weight},
      {"config_hash", config_hash}};
}

std::int64_t steps_per_epoch(const TrainOptions& options, const engine::BatchSource& train) {
  return (train.batches_per_epoch() + options.trainer.grad_accum - 1) / options.trainer.grad_accum;
}

std::int64_t total_steps(const TrainOptions& options, const engine::BatchSource& train) {
  const std::int64_t all = total_epochs(options) * steps_per_epoch(options, train);
  return options.trainer.max_steps > 0 ? std::min(all, options.trainer.max_steps) : all;
}

/// The checkpoint that the run has kept; empty if there is none.
std::filesystem::path kept_checkpoint(const TrainOptions& options, const RunPaths& paths,
                                      const engine::TrainingResult& result) {
  const bool best_is_kept = result.best || (options.trainer.no_val && options.save_last.empty());
  return best_is_kept ? paths.save_path : std::filesystem::path(options.save_last);
}

/// The network of this run without its weights, for ranks that receive them from rank 0.
TrainedNetwork network_without_weights(const std::filesystem::path& path, const TrainOptions& options,
                                       const data::Dataset& dataset, double pos_weight) {
  TrainedNetwork network;
  network.path = path.string();
  network.config =
      model_config(options, dataset.dim(data::Stream::kVisual), dataset.dim(data::Stream::kAudio));
  network.model = model::make_network(
      network.config, {.label_smoothing = options.losses.label_smoothing, .pos_weight = pos_weight});
  return network;
}

/// Result of the test after training: metrics of the kept checkpoint on videos by which nothing was selected,
/// or why there are none. Hours of training have a result in either case.
struct Test {
  ordered_json measures;
  std::string untested;
};

/// Runs on all ranks, which share the work: they would time out waiting for a rank that worked alone. Only
/// rank 0 reads the checkpoint, and its result counts. `epoch` is that of the best checkpoint.
Test test(const std::filesystem::path& path, std::optional<std::int64_t> epoch, const RunValues& now,
          const std::shared_ptr<const data::Dataset>& dataset, const TrainOptions& options, double pos_weight,
          const engine::Ranks& ranks, engine::Device& device) {
  TrainedNetwork network;
  Test result;
  try {
    result.untested = path.empty() ? fmt::format("no checkpoint was kept, {} was never defined on val",
                                                 options.trainer.select_by)
                                   : why_untested(*dataset);
    if (result.untested.empty() && ranks.first()) {
      network = load_network(path);
      result.untested = why_not_kept(path, epoch, now);
    } else if (result.untested.empty()) {
      network = network_without_weights(path, options, *dataset, pos_weight);
    }
  } catch (const DataError& error) {
    result.untested = error.what();
  }
  ranks.meet("the test");
  result.untested = engine::text_of_first_rank(ranks, "why there is no test", result.untested);
  if (!result.untested.empty()) return result;
  try {
    result.measures = evaluate(network, dataset, data::Split::kTest,
                               {.batch_size = options.batches.sampler.batch_size,
                                .num_workers = options.batches.num_workers,
                                .ranks = ranks,
                                .weights_of_first_rank = true},
                               device);
  } catch (const DataError& error) {  // thrown on every rank
    result.untested = error.what();
  }
  return result;
}

/// Batch sources of a run, on its device.
struct Batches {
  std::unique_ptr<engine::BatchSource> train;
  std::unique_ptr<engine::BatchSource> val;  ///< null with --no_val
};

Batches make_batches(const TrainOptions& options, engine::DType compute_type,
                     const std::shared_ptr<const data::Dataset>& dataset, data::Residency residency,
                     const engine::RankEnvironment& rank, engine::Device& device) {
  const auto make = [&](data::Split split) {
    data::BatchSourceOptions batches =
        batch_options(options, split == data::Split::kTrain, rank.rank, rank.world_size);
    batches.dtype = compute_type;
    batches.residency = residency;
    return data::make_device_batches(dataset, dataset->samples_of(split), batches, options.pin_memory,
                                     device);
  };
  Batches batches;
  batches.train = make(data::Split::kTrain);
  if (!options.trainer.no_val) batches.val = make(data::Split::kVal);
  return batches;
}

/// Sizes of the data that the memory of a run depends on.
DataSizes sizes_of(const data::Dataset& dataset, const TrainOptions& options) {
  DataSizes sizes{.visual_dim = dataset.dim(data::Stream::kVisual),
                  .audio_dim = dataset.dim(data::Stream::kAudio),
                  .frame_bytes = data::frame_bytes(dataset, dataset.samples_of(data::Split::kTrain))};
  if (options.trainer.no_val) return sizes;
  const std::vector<std::int64_t> val = dataset.samples_of(data::Split::kVal);
  sizes.frame_bytes += data::frame_bytes(dataset, val);
  sizes.val_samples = static_cast<std::int64_t>(val.size());
  return sizes;
}

/// Whether stdout is open: main() replaces a closed one by an unwritable descriptor.
bool stdout_is_open() {
  return (::fcntl(STDOUT_FILENO, F_GETFL) & O_ACCMODE) != O_RDONLY;
}

std::string result_text(const ordered_json& result) {
  const auto counted = [&](const char* key, const char* one) {
    const auto count = result[key].get<std::int64_t>();
    return fmt::format("{} {}{}", count, one, count == 1 ? "" : "s");
  };
  std::string text = fmt::format("trained {}, {}", counted("epochs", "epoch"), counted("steps", "step"));
  if (const auto bad = result["bad_steps"].get<std::int64_t>(); bad > 0)
    text += fmt::format(", {} steps skipped", bad);
  text += '\n';
  if (!result["best"].is_null()) {
    text += fmt::format("best on val: epoch {}, by {}: {:.4f}\n", result["best"]["epoch"].get<std::int64_t>(),
                        result["best"]["by"].get<std::string>(), result["best"]["value"].get<double>());
  }
  if (!result["checkpoint"].is_null())
    text += fmt::format("checkpoint: {}\n", result["checkpoint"].get<std::string>());
  if (!result["no_test"].is_null())
    return text + fmt::format("no test: {}\n", result["no_test"].get<std::string>());
  return text + evaluation_text(result["test"], engine::terminal_columns(STDOUT_FILENO));
}

void print_result(const ordered_json& result, bool json) {
  if (!json && !stdout_is_open()) return;  // the run folder has it
  if (json) {
    print_json(result);
  } else {
    print_text(result_text(result));
  }
}

/// Observer of ranks other than rank 0, which reports nothing.
class SilentObserver final : public engine::TrainingObserver {};

std::unique_ptr<RunReporter> make_reporter(engine::RunFolder& folder, engine::ProgressBar& progress,
                                           const TrainOptions& options, const RunPaths& paths,
                                           const ordered_json& values, const ordered_json& facts,
                                           std::int64_t steps) {
  return std::make_unique<RunReporter>(
      folder, progress,
      CheckpointFacts{.save_path = options.trainer.no_val ? std::filesystem::path() : paths.save_path,
                      .save_last = options.trainer.no_val && options.save_last.empty()
                                       ? paths.save_path
                                       : std::filesystem::path(options.save_last),
                      .config = values,
                      .engine = facts,
                      .adamw = options.trainer.optimizer.adamw,
                      .threshold_by = options.threshold_by.text()},
      total_epochs(options), steps);
}

/// The result that the command prints.
ordered_json result_json(const TrainOptions& options, const RunPaths& paths,
                         const engine::TrainingResult& result, const Test& tested) {
  ordered_json json{{"epochs", result.epochs}, {"steps", result.step}, {"bad_steps", result.bad_steps}};
  if (result.overflow_steps > 0) json["overflow_steps"] = result.overflow_steps;
  json["best"] = nullptr;
  if (result.best) {
    json["best"] = {{"epoch", result.best->epoch},
                    {"by", options.trainer.select_by},
                    {"value", *result.best->measure(options.trainer.select_by)}};
  }
  const std::filesystem::path kept = kept_checkpoint(options, paths, result);
  json["checkpoint"] = kept.empty() ? ordered_json() : ordered_json(kept.string());
  json["run_dir"] = paths.run_dir.string();
  json["test"] = tested.measures;
  json["no_test"] = tested.untested.empty() ? ordered_json() : ordered_json(tested.untested);
  return json;
}

/// The model that the options describe, for this dataset.
std::unique_ptr<engine::Model> make_network(const TrainOptions& options, const data::Dataset& dataset,
                                            double pos_weight, engine::ProgressBar& progress) {
  const model::LossConfig losses = loss_config(options, pos_weight);
  if (model::certain_fake_exceeds_half(losses)) {
    progress.warning(fmt::format(
        "warning: --pos_weight {} with --label_smoothing {} makes a certain fake come out above 0.5",
        pos_weight, options.losses.label_smoothing));
  }
  const std::int64_t visual = dataset.dim(data::Stream::kVisual);
  const std::int64_t audio = dataset.dim(data::Stream::kAudio);
  std::unique_ptr<engine::Model> network =
      model::make_network(model_config(options, visual, audio), losses, activations(options));
  engine::check_provides(data::batch_spec(batch_options(options, /*training=*/true), visual, audio),
                         network->signature().batch, dataset.path().string());
  return network;
}

/// The banner that is printed before the first step.
std::string banner_of(const TrainOptions& options, const RunPaths& paths, const data::Dataset& dataset,
                      const engine::Model& network, const engine::BatchSource& train,
                      const engine::RankEnvironment& environment, Precision precision,
                      const RunMemory& memory, const Room& room, engine::Device& device, int columns) {
  const bool chooses_threads = device.kind() == engine::DeviceKind::kCpu && options.device.threads == 0;
  return banner(
      {.run_dir = paths.run_dir,
       .dataset = &dataset,
       .model = fmt::format("hidden {}, {} layer{}, {} heads, {} frames", options.model.hidden,
                            options.model.num_layers, options.model.num_layers == 1 ? "" : "s",
                            options.model.num_heads, options.model.seq_len),
       .parameters =
           engine::ParameterStore(network.parameters(), engine::DType::kF32, false, nullptr).parameters(),
       .batch_size = options.batches.sampler.batch_size,
       .ranks = environment.world_size,
       .grad_accum = options.trainer.grad_accum,
       .steps_per_epoch = steps_per_epoch(options, train),
       .steps = total_steps(options, train),
       .device = device.description(),
       .precision = std::string(engine::name_of(precision)),
       .threads = chooses_threads ? engine::thread_budget(environment.local_world_size).reason : "",
       .time_follows = total_steps(options, train) > RunReporter::kTimedSteps + 1,
       .memory = memory_text(memory, room)},
      columns);
}

void train_in(JoinedJob& job, const TrainArguments& arguments) {
  const TrainOptions& options = arguments.options;
  const OptionSet& set = arguments.set;
  // From here on, a signal before the first step stops the run at that step, with a state to resume from, and
  // a signal after the last step does not prevent the test.
  const engine::StopSignals signals;
  const engine::RankEnvironment& environment = job.environment();
  const int world_size = environment.world_size;
  engine::TrainerConfig config = options.trainer;
  const std::unique_ptr<engine::Task> task = task_of(options);
  const RunPaths paths = run_paths(options);
  engine::ProgressBar progress = engine::ProgressBar::on_stderr(options.quiet, /*silent=*/!job.first());
  std::optional<LogThrough> log;  // other ranks log to stderr directly: only they know of a damaged sample
  if (job.first()) log.emplace(progress);
  const std::unique_ptr<engine::Device> device = make_device(
      of_rank(device_options(options), job), [&](const std::string& text) { progress.message(text); });
  job.agree_on_devices(*device, device_options(options));
  for (const std::string& text : check_for_device(options, device->kind())) progress.message(text);
  ordered_json values = set.values();
  const Precision precision = resolve_precision(options, device->kind());
  values[set.name(options.precision)] = engine::name_of(precision);
  config.compute_type = compute_type_of(precision);
  config.wide_sums = sums_in_fp32(options, world_size);
  if (job.first()) check_train_files(options, paths, {values, world_size, &set});

  // Data.
  const std::shared_ptr<const data::Dataset> dataset = job.first_rank_first(
      "packing the features", [&] { return open_features(options.features_root, options.tree, progress); });
  job.agree("data", {{"the dataset's content", dataset->content_hash()},
                     {"the dataset's split", dataset->split_hash()}});
  record_split(set, options.tree, *dataset, values);
  check_labels(options, *dataset);
  check_contrastive_batch(options, *dataset, world_size);
  if (!options.trainer.no_val) {
    const std::vector<engine::PredictionColumn> targets = targets_of(*dataset, data::Split::kVal);
    if (targets[0].values.empty()) engine::refuse_empty_validation();
    task->check_selection(config.select_by, targets);
  }

  // Model and batches.
  const double pos_weight = resolve_pos_weight(options, dataset->summary());
  const std::unique_ptr<engine::Model> network = make_network(options, *dataset, pos_weight, progress);
  // Communicators allocate their memory before the free memory is queried.
  job.connect(*device);
  const Room room = look_at_room(*device, job.ranks(), environment.local_world_size);
  const RunMemory memory = plan_run_that_fits(
      training_needs(options, *network, {.device = device->kind(), .gemm_library = device->gemm_library()},
                     config.compute_type, world_size, sizes_of(*dataset, options)),
      room);
  Batches batches =
      make_batches(options, config.compute_type, dataset, memory.residency, environment, *device);

  // Run.
  config.config_hash =
      engine::sha256_hex(engine::json_text(numeric_options(values, world_size)) + dataset->content_hash());
  config.split_hash = dataset->split_hash();
  config.checkpoint_folder = engine::RunFolder::checkpoint_folder(paths.run_dir);
  std::optional<engine::RunFolder> folder;
  std::unique_ptr<RunReporter> reporter;
  std::vector<engine::NamedTensor> initial;
  if (job.first()) {
    const std::string note = keep_recorded_origin(options, paths, set, values);
    if (!note.empty()) progress.message(engine::wrapped(note, progress.columns(), 2));
    if (!continues_a_run(options, paths)) initial = read_initial_weights(options, *dataset, *network);
    folder.emplace(paths.run_dir);
    prepare_run_folder(*folder, options, paths, *dataset);
    const ordered_json facts{{"version", version()},
                             {"revision", revision()},
                             {"split_hash", dataset->split_hash()},
                             {"content_hash", dataset->content_hash()},
                             {"pos_weight", pos_weight},
                             {"world_size", world_size},
                             {"device", device->description()}};
    reporter =
        make_reporter(*folder, progress, options, paths, values, facts, total_steps(options, *batches.train));
    progress.message(banner_of(options, paths, *dataset, *network, *batches.train, environment, precision,
                               memory, room, *device, progress.columns()));
  }
  for (const std::string& note : notes_on_run(options, *dataset, world_size)) {
    const std::string lines = engine::wrapped(note, progress.columns(), 2);
    note.starts_with("warning: ") ? progress.warning(lines) : progress.message(lines);
  }
  engine::Ranks ranks = job.ranks();
  ranks.buckets.bucket_bytes = static_cast<std::size_t>(std::max(options.bucket_mb * 1048576, 1.0));
  SilentObserver silent;
  engine::TrainingObserver& observer = reporter ? static_cast<engine::TrainingObserver&>(*reporter) : silent;
  engine::TrainingResult result;
  {
    engine::Trainer trainer(config, *network, *task, *batches.train, batches.val.get(), *device, observer,
                            ranks);
    if (job.first()) {
      start_weights(trainer, options, paths, initial, observer);
      folder->write_config(run_config(values, world_size, *dataset, *device, config.config_hash, pos_weight));
    }
    trainer.set_stop_reason([&] { return signals.reason(); });
    result = trainer.run();
  }
  batches = {};  // frees the device memory for the test
  const Test tested = test(kept_checkpoint(options, paths, result),
                           result.best ? std::optional(result.best->epoch) : std::nullopt,
                           {values, world_size, &set}, dataset, options, pos_weight, job.ranks(), *device);
  if (!job.first()) return;

  const ordered_json json = result_json(options, paths, result, tested);
  if (!json["test"].is_null()) {
    ordered_json line{{"kind", "test"}, {"epoch", result.last_epoch}, {"step", result.step}};
    line.update(json["test"]);
    reporter->on_test(line);
  }
  print_result(json, options.json);
}

}  // namespace

void train(CommandLine command_line) {
  TrainArguments arguments;
  if (!read_train_arguments(command_line, arguments)) return;
  in_job(arguments.set.values_of_all_ranks(), arguments.options.comm_timeout,
         [&](JoinedJob& job) { train_in(job, arguments); });
}

}  // namespace voca::tools
