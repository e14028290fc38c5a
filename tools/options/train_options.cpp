#include "tools/options/train_options.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <nlohmann/json.hpp>

#include "engine/base/error.h"
#include "engine/base/json.h"
#include "model/metrics/measure_table.h"
#include "model/registry.h"

namespace voca::tools {

using engine::UsageError;
using nlohmann::ordered_json;

namespace {

void add_data_options(OptionSet& set, TrainOptions& o) {
  set.begin_group("Data");
  set.add("features_root", &o.features_root, "PATH", "feature tree (packed once beside it) or packed .h5");
  set.add("split_ratios", &o.split_ratios, "A,B,C", "train, val, test; for a feature tree");
  set.add("split_seed", &o.split_seed, "S", "draws the splits; for a feature tree");
  set.add("group_by", &o.group_by, "none|identity|REGEX", "keep identities in one split; for a feature tree");
  set.add("batch_size", &o.batch_size, "B", "videos a batch, on each rank");
  set.add("num_workers", &o.num_workers, "N", "threads that assemble batches; 0: the training thread does");
  set.add_flag("pin_memory", &o.pin_memory, "page-locked batches for the copy to a GPU");
  set.add("data_residency", &o.data_residency, "auto|gpu|host|disk", "where the frames lie while training");
  set.add("augment_prob", &o.augment_prob, "P", "probability that a training sample's streams are shifted");
  set.add("max_shift", &o.max_shift, "FRAMES", "largest such shift");
  set.add("max_bad_samples", &o.max_bad_samples, "N", "end the run when more samples fail their checksum");
}

void add_model_options(OptionSet& set, TrainOptions& o) {
  set.begin_group("Model");
  set.add("model", &o.model, model::network_names(), "the network");
  set.add("seq_len", &o.seq_len, "FRAMES", "T, frames of each sample");
  set.add("hidden", &o.hidden, "H", "hidden width");
  set.add("num_layers", &o.num_layers, "L", "layers of the temporal encoder");
  set.add("num_heads", &o.num_heads, "N", "attention heads; divides --hidden");
  set.add("num_classes", &o.num_classes, "K", "1: real against fake on one logit; K >= 2: softmax");
  set.add("dropout", &o.dropout, "P", "dropout probability");
  set.add("cross_attention", &o.cross_attention, "a2v|bidirectional", "audio asks visual, or both ways");
  set.add("positional_encoding", &o.positional_encoding, "none|sinusoidal|learned", "added after projection");
}

void add_loss_options(OptionSet& set, TrainOptions& o) {
  set.begin_group("Loss");
  set.add("label_smoothing", &o.label_smoothing, "S", "smoothing of the targets");
  set.add("pos_weight", &o.pos_weight, "W|auto",
          "weight of real; auto: fakes per real of the training split");
  set.add_flag("use_contrastive", &o.use_contrastive, "add the InfoNCE loss between the two streams");
  set.add("contrastive_weight", &o.contrastive_weight, "W", "its weight");
  set.add("contrastive_scope", &o.contrastive_scope, "local|global", "over each rank's batch or all ranks'");
}

void add_optimiser_options(OptionSet& set, TrainOptions& o) {
  set.begin_group("Optimiser and schedule");
  set.add("epochs", &o.epochs, "E", "epochs");
  set.add("max_steps", &o.max_steps, "N", "stop after so many steps; 0: no limit");
  set.add("lr", &o.lr, "LR", "peak learning rate");
  set.add("weight_decay", &o.weight_decay, "W", "decoupled, on every parameter");
  set.add("warmup_epochs", &o.warmup_epochs, "W", "epochs of linear warm-up");
  set.add("extend_epochs", &o.extend_epochs, "N",
          "with --resume: train a finished run N epochs beyond --epochs, from a tenth of --lr");
  set.add("schedule", &o.schedule, "epoch|step", "the learning rate changes each epoch or each step");
  set.add("max_grad_norm", &o.max_grad_norm, "NORM", "clip the global gradient norm; 0: do not");
  set.add("grad_accum", &o.grad_accum, "N", "batches a step");
  set.add(
      "grad_dtype", &o.grad_dtype, "auto|fp32|compute",
      "what the gradients of a step's batches and of the ranks are added up in; auto: fp32 where there are "
      "several, else --precision's type");
  set.add("max_bad_steps", &o.max_bad_steps, "N",
          "end the run after so many steps in a row without finite gradients");
  set.add("seed", &o.seed, "S", "of initialisation, order, dropout and augmentation");
}

void add_file_options(OptionSet& set, TrainOptions& o) {
  set.begin_group("Evaluation");
  set.add("select_by", &o.select_by, model::selection_names("|"), "what makes a checkpoint the best, on val");
  set.add("threshold_by", &o.threshold_by, "RULE",
          "what the decision threshold is fitted on val by: balanced_acc, acc, f1_real, f1_fake, eer, or "
          "fpr=P (the most reals found while a share P of the fakes passes)");
  set.add("eval_every", &o.eval_every, "EPOCHS", "epochs between evaluations on val; the last is always one");
  set.add_flag("no_val", &o.no_val, "train without a validation split");
  set.begin_group("File");
  set.add("run_dir", &o.run_dir, "DIR", "records and resume states; empty: beside --save_path, or voca_run");
  set.add("save_path", &o.save_path, "F.pt", "the best checkpoint on val; empty: best_model.pt in --run_dir");
  set.add("save_last", &o.save_last, "F.pt",
          "the checkpoint after the last step; .safetensors: weights alone");
  set.add_optional("resume", &o.resume, "auto", "[auto|PATH]",
                   "continue the run of --run_dir (afresh where there is none), or from a state");
  set.add("init_from", &o.init_from, "F.pt",
          "start from these weights (.pt, .safetensors, a run folder's best)");
  set.add("weights", &o.weights, "KEY",
          "which of --init_from, where it holds several: model_state_dict, ema, ...");
  set.add_flag("overwrite", &o.overwrite, "discard what an earlier run left in --run_dir");
  set.add("checkpoint_every", &o.checkpoint_every, "N[steps|epochs]",
          "how often a resume state is saved; 0: at the end only");
  set.add("keep", &o.keep, "N", "resume states kept");
  set.add("log_every", &o.log_every, "STEPS",
          "steps between lines of metrics.jsonl; 0: a line an epoch only");
}

void add_machine_options(OptionSet& set, TrainOptions& o) {
  set.begin_group("Machine");
  set.add("device", &o.device, "auto|cpu|cuda[:N]", "where to compute");
  set.add("precision", &o.precision, "auto|fp32|tf32|bf16|fp16",
          "of products, activations and gradients; auto: bf16 on a GPU, fp32 on a CPU");
  set.add("gemm_autotune", &o.gemm_autotune, "on|off",
          "time a GPU's algorithms for each matrix product once and keep the best on disk");
  set.add("threads", &o.threads, "N",
          "CPU threads of the kernels; 0: OMP_NUM_THREADS, or the CPUs this process may use");
  set.add("comm_timeout", &o.comm_timeout, "SECONDS", "longest wait for another rank, anywhere");
  set.add("bucket_mb", &o.bucket_mb, "MB", "gradients summed over the ranks at a time");
  set.add_flag("recompute", &o.recompute,
               "compute activations again in backward: less memory, a longer step, the same bits");
  set.add_flag("quiet", &o.quiet, "no progress on stderr");
  set.add_flag("json", &o.json, "print the result as one JSON object");
}

/// Options about locations, speed and limits, on which the numbers of a run do not depend. The hashes of the
/// dataset cover its split.
constexpr std::array kNotNumeric{"features_root",
                                 "split_ratios",
                                 "split_seed",
                                 "group_by",
                                 "num_workers",
                                 "pin_memory",
                                 "data_residency",
                                 "max_bad_samples",
                                 "max_bad_steps",
                                 "max_steps",
                                 "run_dir",
                                 "save_path",
                                 "save_last",
                                 "resume",
                                 "init_from",
                                 "overwrite",
                                 "checkpoint_every",
                                 "keep",
                                 "log_every",
                                 "extend_epochs",
                                 "device",
                                 "gemm_autotune",
                                 "threads",
                                 "recompute",
                                 "quiet",
                                 "json",
                                 "comm_timeout",
                                 "bucket_mb",
                                 "weights"};

/// Subset of kNotNumeric that may differ between ranks.
constexpr std::array kOfOneRank{"features_root", "num_workers", "pin_memory", "data_residency",
                                "device",        "threads",     "run_dir",    "save_path",
                                "save_last",     "resume",      "init_from",  "overwrite",
                                "quiet",         "json",        "keep",       "weights"};

void expect_one_of(const char* option, const std::string& value, std::initializer_list<const char*> values) {
  std::string list;
  for (const char* allowed : values) {
    if (value == allowed) return;
    list += list.empty() ? allowed : std::string(", ") + allowed;
  }
  throw UsageError("--{}: \"{}\" is not one of {}", option, value, list);
}

}  // namespace

void add_train_options(OptionSet& set, TrainOptions& options) {
  add_data_options(set, options);
  add_model_options(set, options);
  add_loss_options(set, options);
  add_optimiser_options(set, options);
  add_file_options(set, options);
  add_machine_options(set, options);
  set.leave_with_run({"resume", "overwrite"});
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

void check_values(const TrainOptions& o) {
  (void)parse_device(o.device);
  expect_one_of("gemm_autotune", o.gemm_autotune, {"on", "off"});
  expect_one_of("grad_dtype", o.grad_dtype, {"auto", "fp32", "compute"});
  expect_one_of("precision", o.precision, {"auto", "fp32", "tf32", "bf16", "fp16"});
  (void)data::parse_residency(o.data_residency);
  if (!(o.comm_timeout >= 1))
    throw UsageError("--comm_timeout: is {}, must be at least 1 second", o.comm_timeout);
  constexpr double kLargestBucket = 4096;
  if (!(o.bucket_mb > 0 && o.bucket_mb <= kLargestBucket))
    throw UsageError("--bucket_mb: is {}, must be above 0 and at most {}", o.bucket_mb, kLargestBucket);
  if (!o.weights.empty() && o.init_from.empty())
    throw UsageError("--weights {}: chooses among the weights of --init_from, which is not given", o.weights);
  if (o.keep < 1) throw UsageError("--keep: is {}, must be at least 1", o.keep);
  constexpr std::int64_t kMaxClasses = 256;
  if (o.num_classes < 1 || o.num_classes > kMaxClasses)
    throw UsageError("--num_classes: is {}, must be from 1 to {}: labels are bytes", o.num_classes,
                     kMaxClasses);
  if (o.batch_size < 1) throw UsageError("--batch_size: is {}, must be at least 1", o.batch_size);
  check_threads("--threads", o.threads);
  check_threads("--num_workers", o.num_workers);
  static_cast<void>(model::parse_contrastive_scope(o.contrastive_scope));
}

void check_combinations(const TrainOptions& o, const OptionSet& set) {
  const auto refuse = [&](bool without_effect, std::initializer_list<const char*> names, const char* why) {
    for (const char* name : names)
      if (without_effect && set.given_on_command_line(name))
        throw UsageError("--{}: has no effect {}", name, why);
  };
  refuse(!o.use_contrastive, {"contrastive_weight", "contrastive_scope"},
         "without --use_contrastive; add it, or leave the option out");
  refuse(o.no_val, {"select_by", "threshold_by", "eval_every"},
         "with --no_val, which leaves nothing to evaluate; leave one of them out");
  refuse(o.num_classes > 1, {"threshold_by"},
         "with --num_classes above 1, where the likeliest class is predicted; leave it out");
  refuse(o.no_val && !o.save_last.empty(), {"save_path"},
         "with --no_val and --save_last: nothing is selected, and the last checkpoint is the only one");
  const auto exclude = [](bool both, const char* one, const char* other, const char* why) {
    if (both) throw UsageError("{}: contradicts {}, {}", one, other, why);
  };
  exclude(o.overwrite && !o.resume.empty(), "--overwrite", "--resume",
          "which continues what it would discard; give one");
  exclude(!o.init_from.empty() && !o.resume.empty() && o.resume != "auto", "--init_from", "--resume PATH",
          "whose state has the weights; give one");
  if (o.extend_epochs > 0 && o.resume.empty())
    throw UsageError("--extend_epochs: goes on from a finished run; add --resume auto and its --run_dir");
}

std::int64_t total_epochs(const TrainOptions& o) {
  return o.epochs + o.extend_epochs;
}

std::string resolve_precision(const TrainOptions& o, engine::DeviceKind device) {
  const bool gpu = device == engine::DeviceKind::kCuda;
  if (o.precision == "auto") return gpu ? "bf16" : "fp32";
  if (!gpu && o.precision != "fp32")
    throw UsageError("--precision {}: the run is on a CPU, which trains in fp32", o.precision);
  return o.precision;
}

engine::DType compute_type_of(const std::string& precision) {
  if (precision == "bf16") return engine::DType::kBF16;
  return precision == "fp16" ? engine::DType::kF16 : engine::DType::kF32;
}

bool sums_in_fp32(const TrainOptions& o, int world_size) {
  if (o.grad_dtype == "auto") return o.grad_accum > 1 || world_size > 1;
  return o.grad_dtype == "fp32";
}

std::vector<std::string> check_for_device(const TrainOptions& o, engine::DeviceKind device) {
  if (device == engine::DeviceKind::kCuda) return {};
  if (o.data_residency == "gpu")
    throw UsageError("--data_residency gpu: the run is on a CPU; use auto, host or disk");
  std::vector<std::string> notes;
  if (o.gemm_autotune == "off") {
    notes.emplace_back(
        "--gemm_autotune off: nothing to time, a CPU's matrix products have one algorithm each");
  }
  if (o.pin_memory)
    notes.emplace_back("--pin_memory: nothing to pin, batches on a CPU are not copied to a device");
  return notes;
}

DeviceOptions device_options(const TrainOptions& o) {
  return {.device = o.device,
          .threads = o.threads,
          .cuda = {.allow_tf32 = o.precision == "tf32", .autotune = o.gemm_autotune == "on"}};
}

double resolve_pos_weight(const TrainOptions& o, const data::DatasetSummary& data) {
  if (o.pos_weight != "auto") {
    double weight = 0;
    const char* end = o.pos_weight.data() + o.pos_weight.size();
    const auto [rest, error] = std::from_chars(o.pos_weight.data(), end, weight);
    if (error != std::errc{} || rest != end || !(weight > 0))
      throw UsageError("--pos_weight: \"{}\" is not a positive number or auto", o.pos_weight);
    return weight;
  }
  if (o.num_classes > 1) throw UsageError("--pos_weight auto: is for --num_classes 1");
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
  model::ModelConfig config{.model = o.model,
                            .visual_dim = visual_dim,
                            .audio_dim = audio_dim,
                            .hidden = o.hidden,
                            .num_layers = o.num_layers,
                            .num_heads = o.num_heads,
                            .seq_len = o.seq_len,
                            .num_classes = o.num_classes,
                            .dropout = o.dropout,
                            .cross_attention = model::parse_cross_attention(o.cross_attention),
                            .positional_encoding = model::parse_positional_encoding(o.positional_encoding)};
  model::validate(config);
  return config;
}

model::Activations activations(const TrainOptions& o) {
  return o.recompute ? model::Activations::kRecompute : model::Activations::kKeep;
}

model::LossConfig loss_config(const TrainOptions& o, double pos_weight) {
  if (o.num_classes > 1 && pos_weight != 1)
    throw UsageError("--pos_weight {}: is for --num_classes 1", o.pos_weight);
  model::LossConfig config{.label_smoothing = o.label_smoothing,
                           .pos_weight = pos_weight,
                           .use_contrastive = o.use_contrastive,
                           .contrastive_weight = o.contrastive_weight,
                           .contrastive_scope = model::parse_contrastive_scope(o.contrastive_scope)};
  model::validate(config);
  return config;
}

engine::TrainerConfig trainer_config(const TrainOptions& o) {
  engine::TrainerConfig config;
  config.epochs = o.epochs;
  config.extend_epochs = o.extend_epochs;
  config.max_steps = o.max_steps;
  config.grad_accum = o.grad_accum;
  config.lr = o.lr;
  config.warmup_epochs = o.warmup_epochs;
  config.schedule = engine::parse_schedule_kind(o.schedule);
  config.optimizer = {.weight_decay = o.weight_decay, .max_grad_norm = o.max_grad_norm};
  config.max_bad_steps = o.max_bad_steps;
  config.max_bad_samples = o.max_bad_samples;
  config.eval_every = o.eval_every;
  config.log_every = o.log_every;
  config.select_by = model::selection(o.select_by).name;
  config.no_val = o.no_val;
  config.seed = o.seed;
  config.checkpoint_every = engine::parse_interval("--checkpoint_every", o.checkpoint_every);
  config.keep = static_cast<int>(std::clamp<std::int64_t>(o.keep, 0, 1 << 20));
  engine::validate(config);
  return config;
}

std::unique_ptr<engine::Task> task_of(const TrainOptions& o) {
  return model::network(o.model).make_task({.model = o.model, .num_classes = o.num_classes},
                                           model::parse_threshold_rule(o.threshold_by));
}

data::BatchSourceOptions batch_options(const TrainOptions& o, bool training, int rank, int world_size) {
  return {.sampler = {.seed = o.seed,
                      .training = training,
                      .batch_size = o.batch_size,
                      .rank = rank,
                      .world_size = world_size},
          .seq_len = o.seq_len,
          .augment_prob = o.augment_prob,
          .max_shift = o.max_shift,
          .num_workers = static_cast<int>(o.num_workers),
          .residency = data::parse_residency(o.data_residency),
          // With several ranks, the trainer counts the bad samples of all ranks.
          .max_bad_samples = world_size == 1 ? o.max_bad_samples : std::numeric_limits<std::int64_t>::max()};
}

TreeOptions tree_options(const TrainOptions& options, const OptionSet& set) {
  return {.split_ratios = data::parse_split_ratios(options.split_ratios),
          .split_seed = options.split_seed,
          .group_by = options.group_by,
          .given = {.split_ratios = set.given("split_ratios"),
                    .split_seed = set.given("split_seed"),
                    .group_by = set.given("group_by")},
          .num_workers = std::max<std::int64_t>(options.num_workers, 1)};
}

std::vector<std::pair<std::string, std::string>> options_to_agree_on(const ordered_json& values) {
  std::vector<std::pair<std::string, std::string>> options;
  for (const auto& [name, value] : values.items()) {
    if (std::find(kOfOneRank.begin(), kOfOneRank.end(), name) != kOfOneRank.end()) continue;
    options.emplace_back("--" + name,
                         value.is_string() ? value.get<std::string>() : engine::json_text(value));
  }
  return options;
}

ordered_json numeric_options(const ordered_json& values, int world_size) {
  ordered_json numeric = ordered_json::object();
  for (const auto& [name, value] : values.items()) {
    if (std::find(kNotNumeric.begin(), kNotNumeric.end(), name) == kNotNumeric.end()) numeric[name] = value;
  }
  // Runs of versions before there was --model are of this network, and their states go on.
  if (numeric.contains("model") && numeric["model"] == model::ModelConfig{}.model) numeric.erase("model");
  // Values from files are arbitrary; an unsigned product cannot have undefined behaviour.
  if (numeric.contains("batch_size") && numeric["batch_size"].is_number_integer()) {
    numeric["batch_size"] =
        numeric["batch_size"].get<std::uint64_t>() * static_cast<std::uint64_t>(world_size);
  }
  return numeric;
}

std::string first_difference(const RunValues& now, const RunValues& before) {
  const ordered_json numeric_before = numeric_options(before.options, before.world_size);
  const ordered_json numeric_now = numeric_options(now.options, now.world_size);
  for (const auto& [name, value] : numeric_now.items()) {
    if (!numeric_before.contains(name) || numeric_before[name] == value) continue;
    if (name == "batch_size") {
      return fmt::format(
          "--batch_size is {} on each of {} ranks and was {} on each of {}, and their product must stay",
          engine::json_text(now.options[name]), now.world_size, engine::json_text(before.options[name]),
          before.world_size);
    }
    return fmt::format("--{} is {} and was {}", name, engine::json_text(value),
                       engine::json_text(numeric_before[name]));
  }
  return {};
}

}  // namespace voca::tools
