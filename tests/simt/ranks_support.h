#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "data/packed/dataset.h"
#include "engine/comm/communicator.h"
#include "engine/trainer/ranks.h"
#include "model/config.h"
#include "tests/engine/trainer/trainer_support.h"
#include "tests/simt/stream.h"
#include "tests/simt/training_support.h"

// Training runs on several ranks, each a thread with its own device, with host values over Gloo. In tests of
// the kernels on the CPU, devices are HostDevices and NCCL is replaced by nccl_double(); in tests on a GPU,
// all ranks share the first GPU and use the NCCL library.

namespace voca::simt::host {

/// Counts the collectives of a rank over all communicators that share this log, and can fail before one of
/// them.
struct CollectiveLog {
  std::int64_t fail_at = -1;  ///< index of the collective that throws FailedOnPurpose; −1: none
  std::atomic<std::int64_t> count{0};
  std::map<std::string, std::int64_t> host_calls;  ///< all-gathers and barriers by name; rank's thread only
};
struct FailedOnPurpose : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Configuration of a training run on several ranks.
struct Job {
  int world_size = 1;
  engine::TrainerConfig config;
  std::shared_ptr<const data::Dataset> dataset;
  std::int64_t global_batch = 12;
  Frames frames = Frames::kStaged;
  Stream::When sums = Stream::When::kLate;  ///< execution time of gradient all-reduces
  model::ContrastiveScope scope = model::ContrastiveScope::kGlobal;
  double dropout = 0.1;
  bool same_samples = false;  ///< every rank has the whole global batch instead of its slice
  bool on_cpu = false;        ///< use the CPU backend; one rank only
  std::shared_ptr<const data::Dataset> dataset_of_last{};  ///< dataset of the last rank, if different
  std::set<std::uint32_t> spoiled{};  ///< batches whose gradients the last rank makes infinite
  std::int64_t fail_at = -1;          ///< collective before which failing_rank throws; −1: none
  int failing_rank = 0;
  bool two_communicators = false;  ///< use a separate one for gradient all-reduces
  /// Factory of the model; null: make_model().
  std::function<std::unique_ptr<engine::Model>()> model{};
  /// Factory of the stream for gradient all-reduces of a rank; null: HostCommunicationStream.
  std::function<std::unique_ptr<engine::CommunicationStream>()> stream{};
};

/// Results of a rank.
struct Outcome {
  engine::test::Recorder recorder;
  std::string bits;             ///< bytes of weights, masters and moments
  std::vector<double> masters;  ///< master weights after the run
  engine::TrainingResult result;
  std::string error;
  std::vector<std::vector<std::int64_t>> batches;  ///< samples of each training batch
  std::vector<engine::StepRecord> steps;
  CollectiveLog log;
};

/// Timeout of a rank that waits for another, in seconds.
inline constexpr int kMaxWaitSeconds = 120;

/// Runs the job and returns one outcome per rank after all ranks have ended. No single wait exceeds two
/// minutes.
[[nodiscard]] std::vector<std::unique_ptr<Outcome>> run_job(const Job& job);

/// Samples of each global batch in order: the slices of all ranks, concatenated.
[[nodiscard]] std::vector<std::vector<std::int64_t>> global_batches(
    const std::vector<std::unique_ptr<Outcome>>& ranks);

/// ‖a − b‖ / ‖b‖.
[[nodiscard]] double distance(const std::vector<double>& a, const std::vector<double>& b);

}  // namespace voca::simt::host
