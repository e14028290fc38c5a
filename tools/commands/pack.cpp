#include "data/packed/pack.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "engine/base/error.h"
#include "engine/base/signals.h"
#include "engine/core/thread_budget.h"
#include "engine/telemetry/progress_bar.h"
#include "tools/commands.h"
#include "tools/options/common_rows.h"
#include "tools/output_file.h"
#include "tools/result.h"
#include "tools/version.h"

namespace voca::tools {

void pack(CommandLine command_line) {
  data::PackOptions options;
  data::SplitRatios split_ratios = data::kUsualRatios;
  options.num_workers = std::min(engine::ThreadLimits::of_process().usable_cpus(), 16);
  bool overwrite = false;
  bool quiet = false;
  bool json = false;
  OptionSet set(
      "pack",
      "Packs a feature tree into one HDF5 file (docs/data.md). Videos that cannot be used are left out and "
      "named here and in <out>.report.json.");
  set.begin_group("File");
  set.add(options.features_root, {"features_root", "DIR", "the feature tree"});
  set.add(options.out, {"out", "F.h5", "the packed dataset; written whole or not at all"});
  set.add(overwrite, {"overwrite", "", "replace a packed dataset that --out holds"});
  set.add(options.dtype, {"dtype", "", "type of the packed frames; source keeps the tree's"});
  set.add(options.strict,
          {"strict", "", "the first video that cannot be used is an error, and no file is left"});
  set.begin_group("Split");
  set.add(split_ratios, {"split_ratios", "A,B,C", "train, val, test; stratified by label"});
  set.add(options.split_seed, {"split_seed", "S", "draws them"});
  set.add(options.group_by,
          {"group_by", "none|identity|REGEX", "keep videos that share an identity in one split"});
  set.begin_group("Machine");
  set.add(options.num_workers, kWorkersRow);
  set.add(quiet, kQuietRow);
  set.add(json, {"json", "", "print the report as one JSON object"});
  if (!set.parse(command_line)) return;
  set.require(options.features_root);
  set.require(options.out);
  const std::string out = options.out.string();
  const std::string report_path = out + ".report.json";
  const engine::StopSignals signals;  // installed before the first file that a signal could leave behind
  const InputFile tree{"--features_root", options.features_root};
  check_output({"--out", out, OutputKind::kPackedDataset}, {&tree, 1},
               overwrite ? Existing::kReplace : Existing::kAskFor);
  check_output({"--out", report_path, OutputKind::kReport}, {&tree, 1}, Existing::kReplace);
  if (set.given(split_ratios)) options.split_ratios = split_ratios;
  options.created_by = version_line();
  engine::ProgressBar progress = engine::ProgressBar::on_stderr(quiet);
  progress.start("pack", 0);
  options.progress = [&](std::int64_t done, std::int64_t total) {
    progress.update({.done = done, .total = total});
  };
  options.check_stop = [&] { signals.check("pack"); };
  // If its report cannot be written, the file is not written either.
  options.before_commit = [&](const data::PackReport& report) {
    write_output(report_path, data::report_json(report) + "\n");
  };
  const data::PackReport report = data::pack_features(options);
  progress.finish();
  if (json) return print_text(data::report_json(report) + "\n");  // escapes like print_json()
  print_text(data::report_text(report) + fmt::format("{}: {} bytes\n", out, report.bytes_written));
}

}  // namespace voca::tools
