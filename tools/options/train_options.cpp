#include "tools/options/train_options.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "engine/base/error.h"
#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/telemetry/run_folder.h"
#include "model/parameter_table.h"
#include "model/registry.h"

namespace voca::tools {

using engine::UsageError;
using nlohmann::ordered_json;

namespace {

constexpr auto kOnOff = std::to_array<engine::Named<bool>>({{"on", true}, {"off", false}});

/// A table of the names that `name_of(row)` gives, each the name of itself.
template <typename Rows, typename NameOf>
std::vector<engine::Named<std::string>> names_of_rows(const Rows& rows, const NameOf& name_of) {
  std::vector<engine::Named<std::string>> names;
  for (const auto& row : rows) names.push_back({name_of(row), std::string(name_of(row))});
  return names;
}

void add_data_options(OptionSet& set, TrainOptions& o) {
  set.begin_group("Data");
  set.add(o.features_root, {"features_root", "PATH", "feature tree (packed once beside it) or packed .h5",
                            kAny, Effect::kRank});
  // The hashes of the dataset, which the numbers depend on, cover its split.
  set.add(o.tree.split_ratios,
          {"split_ratios", "A,B,C", "train, val, test; for a feature tree", kAny, Effect::kJob});
  set.add(o.tree.split_seed, {"split_seed", "S", "draws the splits; for a feature tree", kAny, Effect::kJob});
  set.add(o.tree.group_by, {"group_by", "none|identity|REGEX",
                            "keep identities in one split; for a feature tree", kAny, Effect::kJob});
  set.add(o.batches.sampler.batch_size, {"batch_size", "B", "videos a batch, on each rank", at_least(1)});
  set.add(o.batches.num_workers,
          {"num_workers", "N", "threads that assemble batches; 0: the training thread does", kThreadCount,
           Effect::kRank});
  set.add(o.pin_memory, {"pin_memory", "", "page-locked batches for the copy to a GPU", kAny, Effect::kRank});
  set.add(o.batches.residency,
          {"data_residency", "", "where the frames lie while training", kAny, Effect::kRank});
  set.add(o.batches.augment_prob,
          {"augment_prob", "P", "probability that a training sample's streams are shifted", between(0, 1)});
  set.add(o.batches.max_shift, {"max_shift", "FRAMES", "largest such shift", between(0, kFrames.max)});
  set.add(o.trainer.max_bad_samples,
          {"max_bad_samples", "N", "end the run when more samples fail their checksum", at_least(0),
           Effect::kJob});
}

void add_model_options(OptionSet& set, TrainOptions& o) {
  constexpr double kMaxClasses = 255;  // a packed label is a byte, of which 255 is unknown
  set.begin_group("Model");
  static const auto networks =
      names_of_rows(model::networks(), [](const model::NetworkKind* kind) { return kind->name; });
  set.add(o.model.model, {.name = "model", .help = "the network", .added_later = true}, networks);
  set.add(o.model.seq_len, {"seq_len", "FRAMES", "T, frames of each sample", at_least(1)});
  set.add(o.model.hidden, {"hidden", "H", "hidden width", at_least(2)});
  set.add(o.model.num_layers,
          {"num_layers", "L", "layers of the temporal encoder", between(1, model::kMaxLayers)});
  set.add(o.model.num_heads, {"num_heads", "N", "attention heads; divides --hidden", at_least(1)});
  set.add(o.model.num_classes, {"num_classes", "K", "1: real against fake on one logit; K >= 2: softmax",
                                between(1, kMaxClasses, ": labels are bytes")});
  set.add(o.model.dropout, {"dropout", "P", "dropout probability", kBelowOne});
  set.add(o.model.cross_attention, {"cross_attention", "", "audio asks visual, or both ways"});
  set.add(o.model.positional_encoding, {"positional_encoding", "", "added after projection"});
}

void add_loss_options(OptionSet& set, TrainOptions& o) {
  set.begin_group("Loss");
  set.add(o.losses.label_smoothing, {"label_smoothing", "S", "smoothing of the targets", kBelowOne});
  set.add(o.pos_weight, {.name = "pos_weight",
                         .argument = "W|auto",
                         .help = "weight of real; auto: fakes per real of the training split",
                         .range = above(0),
                         .none = "auto"});
  set.add(o.losses.use_contrastive, {"use_contrastive", "", "add the InfoNCE loss between the two streams"});
  set.add(o.losses.contrastive_weight, {"contrastive_weight", "W", "its weight", at_least(0)});
  set.add(o.losses.contrastive_scope, {"contrastive_scope", "", "over each rank's batch or all ranks'"});
}

void add_optimiser_options(OptionSet& set, TrainOptions& o) {
  set.begin_group("Optimiser and schedule");
  set.add(o.trainer.epochs, {"epochs", "E", "epochs", at_least(1)});
  set.add(o.trainer.max_steps,
          {"max_steps", "N", "stop after so many steps; 0: no limit", at_least(0), Effect::kJob});
  set.add(o.trainer.lr, {"lr", "LR", "peak learning rate", above(0)});
  set.add(o.trainer.optimizer.adamw.weight_decay,
          {"weight_decay", "W", "decoupled, on every parameter", at_least(0)});
  set.add(o.trainer.warmup_epochs, {"warmup_epochs", "W", "epochs of linear warm-up", at_least(0)});
  set.add(o.trainer.extend_epochs,
          {"extend_epochs", "N",
           "with --resume: train a finished run N epochs beyond --epochs, from a tenth of --lr", at_least(0),
           Effect::kJob});
  set.add(o.trainer.schedule, {"schedule", "", "the learning rate changes each epoch or each step"});
  set.add(o.trainer.optimizer.max_grad_norm,
          {"max_grad_norm", "NORM", "clip the global gradient norm; 0: do not", at_least(0)});
  set.add(o.trainer.grad_accum, {"grad_accum", "N", "batches a step", at_least(1)});
  set.add(o.grad_dtype,
          {"grad_dtype", "",
           "what the gradients of a step's batches and of the ranks are added up in; auto: fp32 where "
           "there are several, else --precision's type"});
  set.add(o.trainer.max_bad_steps,
          {"max_bad_steps", "N", "end the run after so many steps in a row without finite gradients",
           at_least(1), Effect::kJob});
  set.add(o.trainer.seed, {"seed", "S", "of initialisation, order, dropout and augmentation"});
}

void add_evaluation_options(OptionSet& set, TrainOptions& o) {
  set.begin_group("Evaluation");
  static const auto measures =
      names_of_rows(model::selecting_measures(), [](std::string_view name) { return name; });
  set.add(o.trainer.select_by, {"select_by", "", "what makes a checkpoint the best, on val"}, measures);
  set.add(
      o.threshold_by,
      {.name = "threshold_by",
       .argument = "RULE",
       .help =
           "what the decision threshold is fitted on val by: balanced_acc, acc, f1_real, f1_fake, eer, or "
           "fpr=P (the most reals found while a share P of the fakes passes)"});
  set.add(o.trainer.eval_every,
          {"eval_every", "EPOCHS", "epochs between evaluations on val; the last is always one", at_least(1)});
  set.add(o.trainer.no_val, {"no_val", "", "train without a validation split"});
}

void add_file_options(OptionSet& set, TrainOptions& o) {
  constexpr double kMaxStates = 1 << 20;
  set.begin_group("File");
  set.add(o.run_dir, {"run_dir", "DIR", "records and resume states; empty: beside --save_path, or voca_run",
                      kAny, Effect::kRank});
  set.add(o.save_path, {"save_path", "F.pt", "the best checkpoint on val; empty: best_model.pt in --run_dir",
                        kAny, Effect::kRank});
  set.add(o.save_last,
          {"save_last", "F.pt", "the checkpoint after the last step; .safetensors: weights alone", kAny,
           Effect::kRank});
  set.add(o.resume, {.name = "resume",
                     .argument = "[auto|PATH]",
                     .help = "continue the run of --run_dir (afresh where there is none), or from a state",
                     .effect = Effect::kRank,
                     .left_with_run = true,
                     .implied = "auto"});
  set.add(o.init_from,
          {"init_from", "F.pt", "start from these weights (.pt, .safetensors, a run folder's best)", kAny,
           Effect::kRank});
  set.add(o.weights,
          {"weights", "KEY", "which of --init_from, where it holds several: model_state_dict, ema, ...", kAny,
           Effect::kRank});
  set.add(o.overwrite, {.name = "overwrite",
                        .help = "discard what an earlier run left in --run_dir",
                        .effect = Effect::kRank,
                        .left_with_run = true});
  set.add(o.trainer.checkpoint_every,
          {"checkpoint_every", "N[steps|epochs]", "how often a resume state is saved; 0: at the end only",
           kAny, Effect::kJob});
  set.add(o.trainer.keep, {"keep", "N", "resume states kept", between(1, kMaxStates), Effect::kRank});
  set.add(o.trainer.log_every,
          {"log_every", "STEPS", "steps between lines of metrics.jsonl; 0: a line an epoch only", at_least(0),
           Effect::kJob});
}

void add_machine_options(OptionSet& set, TrainOptions& o) {
  constexpr double kMaxBucket = 4096;
  set.begin_group("Machine");
  set.add(o.device.choice, kDeviceRow);
  set.add(o.precision,
          {"precision", "", "of products, activations and gradients; auto: bf16 on a GPU, fp32 on a CPU"});
  set.add(o.device.cuda.autotune,
          {"gemm_autotune", "", "time a GPU's algorithms for each GEMM once and keep the best on disk", kAny,
           Effect::kJob},
          kOnOff);
  set.add(o.device.threads, kThreadsRow);
  set.add(o.comm_timeout, kCommTimeoutRow);
  set.add(o.bucket_mb, {"bucket_mb", "MB", "gradients summed over the ranks at a time", above(0, kMaxBucket),
                        Effect::kJob});
  set.add(o.recompute, {"recompute", "",
                        "compute activations again in backward: less memory, a longer step, the same bits",
                        kAny, Effect::kJob});
  set.add(o.quiet, kQuietRow);
  set.add(o.json, kJsonRow);
}

/// Throws UsageError for options on the command line that would have no effect.
void check_effects(const TrainOptions& o, const OptionSet& set) {
  const auto refuse = [&](bool without_effect, const auto& option, const char* why) {
    if (without_effect && set.origin(option) == OptionSet::Origin::kCommandLine)
      throw UsageError("--{}: has no effect {}", set.name(option), why);
  };
  constexpr const char* kNoContrast = "without --use_contrastive; add it, or leave the option out";
  refuse(!o.losses.use_contrastive, o.losses.contrastive_weight, kNoContrast);
  refuse(!o.losses.use_contrastive, o.losses.contrastive_scope, kNoContrast);
  constexpr const char* kNoVal = "with --no_val, which leaves nothing to evaluate; leave one of them out";
  refuse(o.trainer.no_val, o.trainer.select_by, kNoVal);
  refuse(o.trainer.no_val, o.threshold_by, kNoVal);
  refuse(o.trainer.no_val, o.trainer.eval_every, kNoVal);
  refuse(o.model.num_classes > 1, o.threshold_by,
         "with --num_classes above 1, where the likeliest class is predicted; leave it out");
  refuse(o.trainer.no_val && !o.save_last.empty(), o.save_path,
         "with --no_val and --save_last: nothing is selected, and the last checkpoint is the only one");
}

/// Throws UsageError for options that ask for a run that cannot be, whatever the data.
void check_run(const TrainOptions& o) {
  const auto exclude = [](bool both, const char* one, const char* other, const char* why) {
    if (both) throw UsageError("{}: contradicts {}, {}", one, other, why);
  };
  exclude(o.overwrite && o.resume.requested(), "--overwrite", "--resume",
          "which continues what it would discard; give one");
  exclude(!o.init_from.empty() && !o.resume.path.empty(), "--init_from", "--resume PATH",
          "whose state has the weights; give one");
  if (o.trainer.extend_epochs > 0 && !o.resume.requested())
    throw UsageError("--extend_epochs: goes on from a finished run; add --resume auto and its --run_dir");
  if (o.device.choice.kind == DeviceChoice::Kind::kCpu) {
    static_cast<void>(resolve_precision(o, engine::DeviceKind::kCpu));
    static_cast<void>(check_for_device(o, engine::DeviceKind::kCpu));
  }
  if (!o.trainer.no_val) static_cast<void>(task_of(o)->selection(o.trainer.select_by));
}

/// Throws UsageError for an option that is not UTF-8: the records of a run are UTF-8 and name its files.
void check_recordable(const ordered_json& values) {
  for (const auto& [name, value] : values.items()) {
    if (value.is_string() && !engine::is_utf8(value.get_ref<const std::string&>())) {
      throw UsageError("--{} {}: is not UTF-8, as the records of a run are; rename the file or folder", name,
                       value.get_ref<const std::string&>());
    }
  }
}

/// The table of `train`, for options that another process recorded.
const TrainArguments& train_table() {
  static const TrainArguments table;
  return table;
}

}  // namespace

std::optional<Resume> Resume::parse(std::string_view text) {
  if (text == "auto") return Resume{.latest = true, .path = {}};
  return Resume{.latest = false, .path = std::string(text)};
}

TrainArguments::TrainArguments(std::string command, std::string summary)
    : set(std::move(command), std::move(summary)) {
  add_data_options(set, options);
  add_model_options(set, options);
  add_loss_options(set, options);
  add_optimiser_options(set, options);
  add_evaluation_options(set, options);
  add_file_options(set, options);
  add_machine_options(set, options);
}

TrainArguments::TrainArguments() : TrainArguments("train", "Trains a detector (docs/training.md).") {}

bool TrainArguments::parse(CommandLine command_line) {
  if (!set.parse(command_line)) return false;
  options.tree.given = {.split_ratios = set.given(options.tree.split_ratios),
                        .split_seed = set.given(options.tree.split_seed),
                        .group_by = set.given(options.tree.group_by)};
  options.tree.num_workers = std::max(options.batches.num_workers, 1);
  return true;
}

bool read_train_arguments(CommandLine command_line, TrainArguments& arguments) {
  if (!arguments.parse(command_line)) return false;
  const TrainOptions& o = arguments.options;
  if (o.features_root.empty() && o.resume.requested()) {
    throw UsageError(
        "--features_root PATH is needed with --resume, as are the run's other options: --config {} has "
        "all of them",
        engine::RunFolder::config_path(run_paths(o).run_dir).string());
  }
  arguments.set.require(o.features_root);
  check_recordable(arguments.set.values());
  check_values(o);
  check_effects(o, arguments.set);
  check_run(o);
  return true;
}

void check_values(const TrainOptions& o) {
  model::validate(o.model);
  if (!o.weights.empty() && o.init_from.empty())
    throw UsageError("--weights {}: chooses among the weights of --init_from, which is not given", o.weights);
  if (o.model.num_classes > 1 && o.pos_weight != 1)
    throw UsageError("--pos_weight {}: is for --num_classes 1",
                     o.pos_weight ? fmt::format("{}", *o.pos_weight) : "auto");
}

RunPaths run_paths(const TrainOptions& options) {
  RunPaths paths{.run_dir = options.run_dir, .save_path = options.save_path};
  if (paths.run_dir.empty()) {
    paths.run_dir = "voca_run";
    if (!paths.save_path.empty())
      paths.run_dir = std::filesystem::path(paths.save_path).replace_extension("run");
  }
  if (paths.save_path.empty()) paths.save_path = paths.run_dir / kDefaultCheckpoint;
  return paths;
}

std::int64_t total_epochs(const TrainOptions& o) {
  return o.trainer.epochs + o.trainer.extend_epochs;
}

Precision resolve_precision(const TrainOptions& o, engine::DeviceKind device) {
  const bool gpu = device == engine::DeviceKind::kCuda;
  if (o.precision == Precision::kAuto) return gpu ? Precision::kBf16 : Precision::kFp32;
  if (!gpu && o.precision != Precision::kFp32) {
    throw UsageError("--precision {}: the run is on a CPU, which trains in fp32",
                     engine::name_of(o.precision));
  }
  return o.precision;
}

engine::DType compute_type_of(Precision precision) {
  if (precision == Precision::kBf16) return engine::DType::kBF16;
  return precision == Precision::kFp16 ? engine::DType::kF16 : engine::DType::kF32;
}

bool sums_in_fp32(const TrainOptions& o, int world_size) {
  if (o.grad_dtype == GradDtype::kAuto) return o.trainer.grad_accum > 1 || world_size > 1;
  return o.grad_dtype == GradDtype::kFp32;
}

std::vector<std::string> check_for_device(const TrainOptions& o, engine::DeviceKind device) {
  if (device == engine::DeviceKind::kCuda) return {};
  if (o.batches.residency == data::Residency::kGpu)
    throw UsageError("--data_residency gpu: the run is on a CPU; use auto, host or disk");
  std::vector<std::string> notes;
  if (!o.device.cuda.autotune) {
    notes.emplace_back("--gemm_autotune off: nothing to time, a CPU's GEMMs have one algorithm each");
  }
  if (o.pin_memory)
    notes.emplace_back("--pin_memory: nothing to pin, batches on a CPU are not copied to a device");
  return notes;
}

DeviceOptions device_options(const TrainOptions& o) {
  DeviceOptions device = o.device;
  device.cuda.allow_tf32 = o.precision == Precision::kTf32;
  return device;
}

double resolve_pos_weight(const TrainOptions& o, const data::DatasetSummary& data) {
  if (o.pos_weight) return *o.pos_weight;
  const std::vector<std::int64_t>& train = data.counts[static_cast<std::size_t>(data::Split::kTrain)];
  const std::int64_t fake = train.at(data::kFake);
  const std::int64_t real = train.at(data::kReal);
  if (real == 0 || fake == 0) {
    throw UsageError("--pos_weight auto: the training split has {} real and {} fake videos; give a number",
                     real, fake);
  }
  return static_cast<double>(fake) / static_cast<double>(real);
}

model::ModelConfig model_config(const TrainOptions& o, std::int64_t visual_dim, std::int64_t audio_dim) {
  model::ModelConfig config = o.model;
  config.visual_dim = visual_dim;
  config.audio_dim = audio_dim;
  return config;
}

model::Activations activations(const TrainOptions& o) {
  return o.recompute ? model::Activations::kRecompute : model::Activations::kKeep;
}

model::LossConfig loss_config(const TrainOptions& o, double pos_weight) {
  model::LossConfig config = o.losses;
  config.pos_weight = pos_weight;
  return config;
}

std::unique_ptr<engine::Task> task_of(const TrainOptions& o) {
  return model::network(o.model.model).make_task(o.model, o.threshold_by);
}

data::BatchSourceOptions batch_options(const TrainOptions& o, bool training, int rank, int world_size) {
  data::BatchSourceOptions batches = o.batches;
  batches.sampler.seed = o.trainer.seed;
  batches.sampler.training = training;
  batches.sampler.rank = rank;
  batches.sampler.world_size = world_size;
  batches.seq_len = o.model.seq_len;
  // With several ranks, the trainer counts the bad samples of all ranks.
  batches.max_bad_samples =
      world_size == 1 ? o.trainer.max_bad_samples : std::numeric_limits<std::int64_t>::max();
  return batches;
}

ordered_json numeric_options(const ordered_json& values, int world_size) {
  const TrainArguments& table = train_table();
  ordered_json numeric = table.set.values_for_numbers(values);
  // Left out where they have the default, so that states of versions without these options go on.
  const ordered_json added = table.set.values_added_later();
  for (const auto& [name, usual] : added.items())
    if (numeric.contains(name) && numeric[name] == usual) numeric.erase(name);
  // Values from files are arbitrary; an unsigned product cannot have undefined behaviour.
  const auto batch_size = numeric.find(table.set.name(table.options.batches.sampler.batch_size));
  if (batch_size != numeric.end() && batch_size->is_number_integer())
    *batch_size = batch_size->get<std::uint64_t>() * static_cast<std::uint64_t>(world_size);
  return numeric;
}

std::optional<Difference> first_difference(const RunValues& now, const RunValues& before) {
  const TrainArguments& table = train_table();
  const ordered_json added = table.set.values_added_later();
  const auto numeric_of = [&](const RunValues& run) {
    ordered_json numeric = numeric_options(run.options, run.world_size);
    for (const auto& [name, usual] : added.items())
      if (!numeric.contains(name)) numeric[name] = usual;
    return numeric;
  };
  const ordered_json numeric_before = numeric_of(before);
  const ordered_json numeric_now = numeric_of(now);
  for (const auto& [name, value] : numeric_now.items()) {
    if (!numeric_before.contains(name) || numeric_before[name] == value) continue;
    Difference found{.option = name, .text = {}};
    if (now.set != nullptr) found.origin = now.set->origin_of(name);
    std::string source;
    if (found.origin == OptionSet::Origin::kDefault) source = " by default";
    if (found.origin == OptionSet::Origin::kConfig) source = " by --config " + now.set->config();
    if (name == table.set.name(table.options.batches.sampler.batch_size)) {
      found.text = fmt::format(
          "--{} is {}{} on each of {} ranks and was {} on each of {}, and their product must stay", name,
          engine::json_text(now.options[name]), source, now.world_size,
          engine::json_text(before.options[name]), before.world_size);
    } else {
      found.text = fmt::format("--{} is {}{} and was {}", name, engine::json_text(value), source,
                               engine::json_text(numeric_before[name]));
    }
    return found;
  }
  return std::nullopt;
}

}  // namespace voca::tools
