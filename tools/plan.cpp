#include <fmt/format.h>

#include <chrono>
#include <iostream>
#include <limits>
#include <vector>

#include "data/frame_reader.h"
#include "engine/device.h"
#include "engine/error.h"
#include "engine/progress.h"
#include "engine/trainer/memory.h"
#include "kernels/gemm.h"
#include "model/crossmodal_transformer.h"
#include "tools/commands.h"
#include "tools/train_options.h"

namespace voca::tools {
namespace {

using nlohmann::ordered_json;

/// What the plan knows of the data: from --features_root, else from options.
struct DataFacts {
  std::int64_t visual_dim = 512;
  std::int64_t audio_dim = 512;
  std::int64_t train_samples = 0;  ///< 0: no data given
  std::int64_t val_samples = 0;
  std::size_t frames_in_memory = 0;
  double pos_weight = 1;
};

DataFacts look_at(const data::Dataset& dataset, const TrainOptions& options) {
  const std::vector<std::int64_t> train = dataset.samples_of(data::Split::kTrain);
  const std::vector<std::int64_t> val =
      options.no_val ? std::vector<std::int64_t>() : dataset.samples_of(data::Split::kVal);
  DataFacts facts{.visual_dim = dataset.dim(data::Stream::kVisual),
                  .audio_dim = dataset.dim(data::Stream::kAudio),
                  .train_samples = static_cast<std::int64_t>(train.size()),
                  .val_samples = static_cast<std::int64_t>(val.size()),
                  .pos_weight = resolve_pos_weight(options, dataset.summary())};
  const data::Residency asked = data::parse_residency(options.data_residency);
  for (const auto& samples : {train, val}) {
    const std::int64_t bytes = data::frame_bytes(dataset, samples);
    if (data::resolve_residency(asked, bytes) == data::Residency::kHost)
      facts.frames_in_memory += static_cast<std::size_t>(bytes);
  }
  return facts;
}

/// FLOP/s of a float32 product of 1024 × 1024 on all threads, the best of a few: what a step cannot beat.
double measure_gemm_rate() {
  constexpr std::int64_t kSize = 1024;
  const auto elements = static_cast<std::size_t>(kSize * kSize);
  const std::vector<float> a(elements, 0.5F);
  const std::vector<float> b(elements, 0.25F);
  std::vector<float> c(elements);
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < 5; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    kernels::cpu::gemm<float>({.m = kSize,
                               .n = kSize,
                               .k = kSize,
                               .a = a.data(),
                               .lda = kSize,
                               .b = b.data(),
                               .ldb = kSize,
                               .c = c.data(),
                               .ldc = kSize});
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    best = std::min(best, seconds.count());
  }
  return 2.0 * static_cast<double>(kSize * kSize * kSize) / best;
}

std::size_t source_bytes(const TrainOptions& options, const DataFacts& facts, std::int64_t batch) {
  TrainOptions with_batch = options;
  with_batch.batch_size = batch;
  const std::size_t training =
      data::batch_buffer_bytes(batch_options(with_batch, true), facts.visual_dim, facts.audio_dim);
  return training * (options.no_val ? 1 : 2) + facts.frames_in_memory;
}

ordered_json lines_json(const std::vector<engine::MemoryLine>& lines) {
  ordered_json json = ordered_json::array();
  for (const engine::MemoryLine& line : lines) json.push_back({{"name", line.name}, {"bytes", line.bytes}});
  return json;
}

ordered_json make_plan(const TrainOptions& options, const DataFacts& facts) {
  const model::ModelConfig config = model_config(options, facts.visual_dim, facts.audio_dim);
  const model::LossConfig losses = loss_config(options, facts.pos_weight);
  const std::unique_ptr<engine::Model> network =
      model::make_crossmodal_transformer(config, losses, activations(options));
  const std::unique_ptr<engine::Device> device = engine::make_cpu_device(static_cast<int>(options.threads));
  const engine::MemoryRequest request{.train_batch = options.batch_size,
                                      .eval_batch = options.no_val ? 0 : options.batch_size};
  engine::MemoryPlan memory = engine::plan_memory(*network, request);
  const engine::ParameterStore parameters(network->parameters(), engine::DType::kF32, false, nullptr);
  const model::StepFlops flops = model::count_flops(config, losses, options.batch_size, activations(options));
  const double rate = measure_gemm_rate();
  const std::size_t of_device = memory.bytes();
  memory.lines.push_back(
      {"batches", source_bytes(options, facts, options.batch_size) - facts.frames_in_memory});
  if (facts.frames_in_memory > 0) memory.lines.push_back({"frames held in memory", facts.frames_in_memory});
  const std::size_t free = device->free_bytes();
  const std::int64_t largest = engine::largest_batch(
      *network, request, free, [&](std::int64_t batch) { return source_bytes(options, facts, batch); });
  ordered_json json{{"device", device->description()},
                    {"parameters", parameters.parameters()},
                    {"batch_size", options.batch_size},
                    {"memory", lines_json(memory.lines)},
                    {"memory_bytes", memory.bytes()},
                    {"device_memory_bytes", of_device},
                    {"activations_at_peak", lines_json(memory.arena_lines)},
                    {"free_bytes", free},
                    {"largest_batch_size", largest},
                    {"flops_per_step",
                     {{"gemm_forward", flops.gemm_forward},
                      {"gemm_backward", flops.gemm_backward},
                      {"attention_forward", flops.attention_forward},
                      {"attention_backward", flops.attention_backward},
                      {"gemm_recompute", flops.gemm_recompute},
                      {"attention_recompute", flops.attention_recompute},
                      {"all", flops.all()}}},
                    {"measured_gemm_flops", rate},
                    {"floor_seconds_per_step", flops.all() / rate}};
  json["steps_per_epoch"] = nullptr;
  if (facts.train_samples > 0) {
    const std::int64_t batches = std::max<std::int64_t>(facts.train_samples / options.batch_size, 1);
    json["steps_per_epoch"] = (batches + options.grad_accum - 1) / options.grad_accum;
    json["train_samples"] = facts.train_samples;
    json["val_samples"] = facts.val_samples;
  }
  return json;
}

std::vector<engine::MemoryLine> lines_of(const ordered_json& json) {
  std::vector<engine::MemoryLine> lines;
  for (const ordered_json& line : json)
    lines.push_back({line["name"].get<std::string>(), line["bytes"].get<std::size_t>()});
  return lines;
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
  const auto largest = p["largest_batch_size"].get<std::int64_t>();
  text += fmt::format("\nfree now: {:.1f} MiB; {}\n", p["free_bytes"].get<double>() / 1048576.0,
                      largest > 0 ? fmt::format("the largest --batch_size that fits is {}", largest)
                                  : "not even one video fits");
  const auto giga = [&](const char* part) { return flops[part].get<double>() / 1e9; };
  text += fmt::format(
      "\n{:.4g} GFLOP a step: matrix products {:.4g} forward and {:.4g} backward, attention {:.4g} and "
      "{:.4g}",
      giga("all"), giga("gemm_forward"), giga("gemm_backward"), giga("attention_forward"),
      giga("attention_backward"));
  const double again = giga("gemm_recompute") + giga("attention_recompute");
  text += again > 0 ? fmt::format(", {:.4g} of the forward pass again\n", again) : "\n";
  return text + fmt::format(
                    "floor of a step here: {:.3g} s, all of it at the {:.4g} GFLOP/s that a large product "
                    "reaches now\n",
                    p["floor_seconds_per_step"].get<double>(), p["measured_gemm_flops"].get<double>() / 1e9);
}

}  // namespace

void plan(CommandLine command_line) {
  TrainOptions options;
  DataFacts facts;
  OptionSet set("plan",
                "Says what train with these options would take: parameters, memory by name, operations, the "
                "largest batch.");
  add_train_options(set, options);
  set.begin_group("Width (without --features_root)");
  set.add("visual_dim", &facts.visual_dim, "D", "width of the visual embeddings");
  set.add("audio_dim", &facts.audio_dim, "D", "width of the audio embeddings");
  if (!set.parse(command_line)) return;
  for (const std::string& note : check_buildable(options)) std::cerr << note << '\n';
  static_cast<void>(trainer_config(options));  // refuses what train would refuse
  if (options.batch_size < 1)
    throw engine::UsageError("--batch_size: is {}, must be at least 1", options.batch_size);
  if (!options.features_root.empty()) {
    if (set.given("visual_dim") || set.given("audio_dim")) {
      throw engine::UsageError(
          "--visual_dim, --audio_dim: are read from --features_root; give one or the other");
    }
    engine::Progress progress = engine::Progress::on_stderr(options.quiet);
    facts = look_at(*open_features(options.features_root, tree_options(options, set), progress), options);
  } else if (options.pos_weight == "auto") {
    throw engine::UsageError("--pos_weight auto: needs --features_root to count the videos of");
  } else {
    facts.pos_weight = resolve_pos_weight(options, {});
  }
  const ordered_json result = make_plan(options, facts);
  std::cout << (options.json ? result.dump(2) + "\n" : plan_text(result));
}

}  // namespace voca::tools
