#include <fmt/format.h>
#include <unistd.h>

#include <iostream>
#include <nlohmann/json.hpp>
#include <vector>

#include "data/packed/frame_reader.h"
#include "engine/base/error.h"
#include "engine/base/terminal.h"
#include "engine/telemetry/progress_bar.h"
#include "engine/trainer/memory_plan.h"
#include "model/registry.h"
#include "tools/commands.h"
#include "tools/options/train_options.h"
#include "tools/planned_device.h"
#include "tools/result.h"
#include "tools/run_memory.h"

namespace voca::tools {
namespace {

using nlohmann::ordered_json;

/// Facts about the data, from --features_root or else from options.
struct DataFacts {
  DataSizes sizes;
  std::int64_t train_samples = 0;  ///< 0: no data given
  double pos_weight = 1;
};

DataFacts look_at(const data::Dataset& dataset, const TrainOptions& options) {
  const std::vector<std::int64_t> train = dataset.samples_of(data::Split::kTrain);
  const std::vector<std::int64_t> val =
      options.trainer.no_val ? std::vector<std::int64_t>() : dataset.samples_of(data::Split::kVal);
  return {.sizes = {.visual_dim = dataset.dim(data::Stream::kVisual),
                    .audio_dim = dataset.dim(data::Stream::kAudio),
                    .frame_bytes = data::frame_bytes(dataset, train) + data::frame_bytes(dataset, val),
                    .val_samples = std::ssize(val)},
          .train_samples = std::ssize(train),
          .pos_weight = resolve_pos_weight(options, dataset.summary())};
}

template <typename T>
ordered_json or_null(const std::optional<T>& value) {
  return value ? ordered_json(*value) : ordered_json();
}

ordered_json lines_json(const std::vector<engine::MemoryLine>& lines) {
  ordered_json json = ordered_json::array();
  for (const engine::MemoryLine& line : lines) json.push_back({{"name", line.name}, {"bytes", line.bytes}});
  return json;
}

ordered_json make_plan(const TrainOptions& options, const DataFacts& facts, const PlannedDevice& device,
                       engine::DType compute_type) {
  const model::ModelConfig config = model_config(options, facts.sizes.visual_dim, facts.sizes.audio_dim);
  const model::LossConfig losses = loss_config(options, facts.pos_weight);
  const std::unique_ptr<engine::Model> network = model::make_network(config, losses, activations(options));
  const RunNeeds needs = training_needs(options, *network, {.device = device.kind}, compute_type,
                                        /*world_size=*/1, facts.sizes);
  const Room room = room_of(device.kind, device.free);
  const RunMemory memory = plan_run(needs, room);
  const std::optional<std::int64_t> largest = largest_batch(needs, memory, room);
  const engine::ParameterStore parameters(network->parameters(), engine::DType::kF32, false, nullptr);
  const model::StepFlops flops =
      model::count_flops(config, losses, options.batches.sampler.batch_size, activations(options));
  ordered_json json{{"device", device.description},
                    {"parameters", parameters.parameters()},
                    {"batch_size", options.batches.sampler.batch_size},
                    {"memory", lines_json(memory.device)},
                    {"memory_bytes", bytes_of(memory.device)},
                    {"device_memory_bytes", bytes_of(memory.workspace)},
                    {"host_memory", lines_json(memory.host)},
                    {"activations_at_peak", lines_json(memory.activations)},
                    {"free_bytes", device.free ? ordered_json(device.free->bytes) : ordered_json()},
                    {"free_limit", device.free ? ordered_json(device.free->limit) : ordered_json()},
                    {"host_free_bytes", room.host.bytes},
                    {"host_free_limit", room.host.limit},
                    {"largest_batch_size", or_null(largest)},
                    {"flops_per_step",
                     {{"gemm_forward", flops.gemm_forward},
                      {"gemm_backward", flops.gemm_backward},
                      {"attention_forward", flops.attention_forward},
                      {"attention_backward", flops.attention_backward},
                      {"gemm_recompute", flops.gemm_recompute},
                      {"attention_recompute", flops.attention_recompute},
                      {"all", flops.all()}}},
                    {"gemm_flops", or_null(device.flops_per_s)},
                    {"gemm_flops_source", device.flops_source},
                    {"floor_seconds_per_step",
                     device.flops_per_s ? ordered_json(flops.all() / *device.flops_per_s) : ordered_json()}};
  json["steps_per_epoch"] = nullptr;
  if (facts.train_samples > 0) {
    const std::int64_t batches =
        std::max<std::int64_t>(facts.train_samples / options.batches.sampler.batch_size, 1);
    json["steps_per_epoch"] = (batches + options.trainer.grad_accum - 1) / options.trainer.grad_accum;
    json["train_samples"] = facts.train_samples;
    json["val_samples"] = facts.sizes.val_samples;
  }
  return json;
}

std::vector<engine::MemoryLine> lines_of(const ordered_json& json) {
  std::vector<engine::MemoryLine> lines;
  for (const ordered_json& line : json)
    lines.push_back({line["name"].get<std::string>(), line["bytes"].get<std::size_t>()});
  return lines;
}

std::string free_text(const ordered_json& bytes, const ordered_json& limit) {
  return engine::FreeMemory{.bytes = bytes.get<std::size_t>(), .limit = limit.get<std::string>()}.text();
}

std::string plan_text(const ordered_json& p) {
  const ordered_json& flops = p["flops_per_step"];
  std::string text = fmt::format("{} parameters, batch {}, on {}\n", p["parameters"].dump(),
                                 p["batch_size"].dump(), p["device"].get<std::string>());
  if (!p["steps_per_epoch"].is_null()) {
    text += fmt::format("{} training and {} validation videos: {} steps an epoch\n",
                        p["train_samples"].dump(), p["val_samples"].dump(), p["steps_per_epoch"].dump());
  }
  text += fmt::format("\nmemory\n{}\nof the activations, at their peak\n{}",
                      engine::format_memory(lines_of(p["memory"])),
                      engine::format_memory(lines_of(p["activations_at_peak"])));
  if (!p["host_memory"].empty()) {
    text += fmt::format("\nof the host\n{}\nmemory of the host: {}\n",
                        engine::format_memory(lines_of(p["host_memory"])),
                        free_text(p["host_free_bytes"], p["host_free_limit"]));
  }
  if (p["free_bytes"].is_null()) {
    text += "\nfree memory: n/a; --gpu_memory GIB says what to plan for\n";
  } else {
    const auto largest = p["largest_batch_size"].get<std::int64_t>();
    text += fmt::format("\nmemory: {}; {}\n", free_text(p["free_bytes"], p["free_limit"]),
                        largest > 0 ? fmt::format("the largest --batch_size that fits is {}", largest)
                                    : "not even one video fits");
  }
  const auto giga = [&](const char* part) { return flops[part].get<double>() / 1e9; };
  text += fmt::format(
      "\n{:.4g} GFLOP a step: GEMM {:.4g} forward and {:.4g} backward, attention {:.4g} and "
      "{:.4g}",
      giga("all"), giga("gemm_forward"), giga("gemm_backward"), giga("attention_forward"),
      giga("attention_backward"));
  const double again = giga("gemm_recompute") + giga("attention_recompute");
  text += again > 0 ? fmt::format(", {:.4g} of the forward pass again\n", again) : "\n";
  if (p["floor_seconds_per_step"].is_null()) return text + "floor of a step: n/a for this device\n";
  return text + fmt::format("floor of a step: {:.3g} s, all of it at the {:.4g} GFLOP/s that {}\n",
                            p["floor_seconds_per_step"].get<double>(), p["gemm_flops"].get<double>() / 1e9,
                            p["gemm_flops_source"].get<std::string>());
}

}  // namespace

void plan(CommandLine command_line) {
  TrainArguments arguments("plan",
                           "Says what train with these options would take: parameters, memory by name, "
                           "operations, the largest batch.");
  TrainOptions& options = arguments.options;
  OptionSet& set = arguments.set;
  set.begin_group("Width (without --features_root)");
  set.add(options.model.visual_dim, {"visual_dim", "D", "width of the visual embeddings", kWidth});
  set.add(options.model.audio_dim, {"audio_dim", "D", "width of the audio embeddings", kWidth});
  std::int64_t gpu_memory = 0;
  set.begin_group("GPU (that is not here)");
  set.add(gpu_memory, {"gpu_memory", "GIB", "its free memory; with --device cuda", between(0, 4096, " GiB")});
  if (!arguments.parse(command_line)) return;
  check_values(options);
  DataFacts facts{.sizes = {.visual_dim = options.model.visual_dim, .audio_dim = options.model.audio_dim}};
  const PlannedDevice device = look_at_device(
      device_options(options), static_cast<std::size_t>(gpu_memory) << 30,
      [&](engine::DeviceKind kind) { return compute_type_of(resolve_precision(options, kind)); },
      [](const std::string& note) { engine::write_at_once(STDERR_FILENO, note + '\n'); });
  for (const std::string& note : check_for_device(options, device.kind))
    engine::write_at_once(STDERR_FILENO, note + '\n');
  if (!options.features_root.empty()) {
    if (set.given(options.model.visual_dim) || set.given(options.model.audio_dim)) {
      throw engine::UsageError(
          "--visual_dim, --audio_dim: are read from --features_root; give one or the other");
    }
    engine::ProgressBar progress = engine::ProgressBar::on_stderr(options.quiet);
    facts = look_at(*open_features(options.features_root, options.tree, progress), options);
  } else if (!options.pos_weight) {
    throw engine::UsageError("--pos_weight auto: needs --features_root to count the videos of");
  } else {
    facts.pos_weight = *options.pos_weight;
  }
  const engine::DType compute_type = compute_type_of(resolve_precision(options, device.kind));
  const ordered_json result = make_plan(options, facts, device, compute_type);
  if (options.json) return print_json(result);
  print_text(engine::wrapped(plan_text(result), engine::terminal_columns(STDOUT_FILENO), 2));
}

}  // namespace voca::tools
