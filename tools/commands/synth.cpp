#include "data/synth.h"

#include <fmt/format.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "engine/base/error.h"
#include "engine/base/signals.h"
#include "engine/telemetry/progress_bar.h"
#include "tools/commands.h"
#include "tools/result.h"

namespace voca::tools {

void synth(CommandLine command_line) {
  data::SynthOptions options;
  std::string out;
  std::string dtype = "fp32";
  bool quiet = false;
  bool json = false;
  OptionSet set("synth",
                "Writes a feature tree <out>/{real,fake}/<video>/ to try the program with (docs/data.md).");
  set.begin_group("Tree");
  set.add("out", &out, "DIR", "where the tree goes; made, and must not hold one already");
  set.add("videos", &options.videos, "N", "videos in all");
  set.add("fake_ratio", &options.fake_ratio, "R", "share of fakes, from 0 to 1");
  set.add("frames_min", &options.frames_min, "FRAMES", "shortest video");
  set.add("frames_max", &options.frames_max, "FRAMES", "longest video");
  set.add("visual_dim", &options.visual_dim, "D", "width of the visual embeddings");
  set.add("audio_dim", &options.audio_dim, "D", "width of the audio embeddings");
  set.add("dtype", &dtype, "fp16|fp32", "type of the embeddings");
  set.add_flag("compressed", &options.compressed, "deflate the .npz files, as np.savez_compressed does");
  set.add("seed", &options.seed, "S", "the same options give the same bytes");
  set.begin_group("Output");
  set.add_flag("quiet", &quiet, "no progress on stderr");
  set.add_flag("json", &json, "print the result as one JSON object");
  if (!set.parse(command_line)) return;
  set.require("out");
  if (dtype != "fp16" && dtype != "fp32")
    throw engine::UsageError("--dtype: \"{}\" is not one of fp16, fp32", dtype);
  options.dtype = dtype == "fp16" ? engine::DType::kF16 : engine::DType::kF32;
  options.out = out;
  engine::ProgressBar progress = engine::ProgressBar::on_stderr(quiet);
  progress.start("synth", 0);
  options.progress = [&](std::int64_t done, std::int64_t total) {
    progress.update({.done = done, .total = total});
  };
  const engine::StopSignals signals;
  options.check_stop = [&] { signals.check("synth"); };
  const data::SynthReport report = data::synthesize_features(options);
  progress.finish();
  if (json) {
    print_json({{"out", out}, {"real", report.real}, {"fake", report.fake}, {"frames", report.frames}});
  } else {
    print_text(fmt::format("{}: {} real and {} fake videos, {} frames\n", out, report.real, report.fake,
                           report.frames));
  }
}

}  // namespace voca::tools
