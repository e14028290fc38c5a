#include "data/synth.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "engine/base/signals.h"
#include "engine/core/thread_budget.h"
#include "engine/telemetry/progress_bar.h"
#include "tools/commands.h"
#include "tools/options/common_rows.h"
#include "tools/result.h"

namespace voca::tools {
namespace {

constexpr auto kTypes = std::to_array<engine::Named<engine::DType>>(
    {{"fp16", engine::DType::kF16}, {"fp32", engine::DType::kF32}});

}  // namespace

void synth(CommandLine command_line) {
  data::SynthOptions options;
  options.num_workers = std::min(engine::ThreadLimits::of_process().usable_cpus(), 16);
  bool quiet = false;
  bool json = false;
  OptionSet set("synth",
                "Writes a feature tree <out>/{real,fake}/<video>/ to try the program with (docs/data.md).");
  set.begin_group("Tree");
  set.add(options.out, {"out", "DIR", "where the tree goes; made, and must not hold one already"});
  set.add(options.videos, {"videos", "N", "videos in all", between(1, data::kMaxSynthVideos)});
  set.add(options.fake_ratio, {"fake_ratio", "R", "share of fakes, from 0 to 1", between(0, 1)});
  set.add(options.frames_min, {"frames_min", "FRAMES", "shortest video", kFrames});
  set.add(options.frames_max, {"frames_max", "FRAMES", "longest video", kFrames});
  set.add(options.visual_dim, {"visual_dim", "D", "width of the visual embeddings", kWidth});
  set.add(options.audio_dim, {"audio_dim", "D", "width of the audio embeddings", kWidth});
  set.add(options.dtype, {"dtype", "", "type of the embeddings"}, kTypes);
  set.add(options.compressed, {"compressed", "", "deflate the .npz files, as np.savez_compressed does"});
  set.add(options.seed, {"seed", "S", "the same options give the same bytes"});
  set.begin_group("Machine");
  set.add(options.num_workers, kWorkersRow);
  set.add(quiet, kQuietRow);
  set.add(json, kJsonRow);
  if (!set.parse(command_line)) return;
  set.require(options.out);
  engine::ProgressBar progress = engine::ProgressBar::on_stderr(quiet);
  progress.start("synth", 0);
  options.progress = [&](std::int64_t done, std::int64_t total) {
    progress.update({.done = done, .total = total});
  };
  const engine::StopSignals signals;
  options.check_stop = [&] { signals.check("synth"); };
  const data::SynthReport report = data::synthesize_features(options);
  progress.finish();
  const std::string out = options.out.string();
  if (json) {
    return print_json(
        {{"out", out}, {"real", report.real}, {"fake", report.fake}, {"frames", report.frames}});
  }
  print_text(fmt::format("{}: {} real and {} fake videos, {} frames\n", out, report.real, report.fake,
                         report.frames));
}

}  // namespace voca::tools
