#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "data/packed/dataset.h"

namespace voca::tools {

/// Facts about a run that `train` prints before the first step.
struct BannerFacts {
  std::filesystem::path run_dir;
  const data::Dataset* dataset = nullptr;
  std::string model;  ///< "hidden 768, 4 layers, 8 heads, 256 frames"
  std::int64_t parameters = 0;
  std::int64_t batch_size = 0;  ///< per rank
  std::int64_t ranks = 1;
  std::int64_t grad_accum = 1;
  std::int64_t steps_per_epoch = 0;
  std::int64_t steps = 0;     ///< steps of the whole run
  std::string device;         ///< description() of the device
  std::string precision;      ///< computation precision, "bf16"
  std::string threads;        ///< reason for the number of threads; empty: not shown
  bool time_follows = false;  ///< the run is long enough for RunReporter to report its expected time
  std::string memory;         ///< required and available memory, from memory_text()
};

/// Five lines, each wrapped to `columns`: the run folder with the command that shows it, the data and whether
/// its splits share people, the model, the batch, the device. The expected time is unknown until steps have
/// been timed; RunReporter reports it then.
[[nodiscard]] std::string banner(const BannerFacts& facts, int columns);

/// Says whether the splits of a dataset share people, inferred from the video names, or groups if an
/// expression made these.
[[nodiscard]] std::string identities_text(const data::Dataset& dataset);

}  // namespace voca::tools
