#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "data/packed/dataset.h"

namespace voca::tools {

/// What `train` says of a run before its first step.
struct BannerFacts {
  std::filesystem::path run_dir;
  const data::Dataset* dataset = nullptr;
  std::string model;  ///< "hidden 768, 4 layers, 8 heads, 256 frames"
  std::int64_t parameters = 0;
  std::int64_t batch_size = 0;  ///< of each rank
  std::int64_t ranks = 1;
  std::int64_t grad_accum = 1;
  std::int64_t steps_per_epoch = 0;
  std::int64_t steps = 0;     ///< of the whole run
  std::string device;         ///< as it describes itself
  std::string precision;      ///< that it computes in
  std::string threads;        ///< why so many; empty where there is nothing to say
  bool time_follows = false;  ///< the run is long enough for RunReporter to say its time
  std::string memory;         ///< what it takes of what there is
};

/// Five lines, each broken where it does not fit the columns: the run folder with the command that shows it,
/// the data and whether people are apart, the model, the batch, the device. The time a run takes is known
/// once steps have been timed: RunReporter says it then.
[[nodiscard]] std::string banner(const BannerFacts& facts, int columns);

/// Whether the splits of a dataset share people, as far as its names tell, or the groups that an expression
/// made.
[[nodiscard]] std::string identities_text(const data::Dataset& dataset);

}  // namespace voca::tools
