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

// Whole trainings on several ranks, each a thread with a device of its own, host values over Gloo. In tests
// of the kernels on the CPU devices are HostDevices, and NCCL is its double; in tests on a GPU all share the
// first one, and NCCL is the library.

namespace voca::simt::host {

/// Counts a rank's collectives, of all communicators that share it, and fails before one of them.
struct CollectiveLog {
  std::int64_t fail_at = -1;  ///< the number of the one that throws FailedOnPurpose; −1: none
  std::atomic<std::int64_t> count{0};
  std::map<std::string, std::int64_t> host_calls;  ///< gather and barrier, by name; of the rank's own thread
};
struct FailedOnPurpose : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A training on several ranks.
struct Job {
  int world_size = 1;
  engine::TrainerConfig config;
  std::shared_ptr<const data::Dataset> dataset;
  std::int64_t global_batch = 12;
  Frames frames = Frames::kStaged;
  Stream::When sums = Stream::When::kLate;  ///< of gradients
  model::ContrastiveScope scope = model::ContrastiveScope::kGlobal;
  double dropout = 0.1;
  bool same_samples = false;  ///< every rank has the whole of each global batch instead of its slice
  bool on_cpu = false;        ///< of one rank: the CPU backend
  std::shared_ptr<const data::Dataset> dataset_of_last{};  ///< what the last rank reads instead
  std::set<std::uint32_t> spoiled{};                       ///< batches whose gradients the last rank spoils
  std::int64_t fail_at = -1;                               ///< collective before which a rank throws
  int failing_rank = 0;                                    ///< that one
  bool two_communicators = false;                          ///< one for the sums of gradients alone
  /// What trains; null: make_model().
  std::function<std::unique_ptr<engine::Model>()> model{};
  /// What a rank's sums of gradients are queued on; null: a HostCommunicationStream.
  std::function<std::unique_ptr<engine::CommunicationStream>()> stream{};
};

/// What a rank is left with.
struct Outcome {
  engine::test::Recorder recorder;
  std::string bits;             ///< weights, masters and moments
  std::vector<double> masters;  ///< after the run
  engine::TrainingResult result;
  std::string error;
  std::vector<std::vector<std::int64_t>> batches;  ///< samples of each training batch
  std::vector<engine::StepRecord> steps;
  CollectiveLog log;
};

/// Longest wait of a rank for another.
inline constexpr int kMaxWaitSeconds = 120;

/// One outcome a rank. Waits for every rank; nothing in it waits for longer than two minutes.
[[nodiscard]] std::vector<std::unique_ptr<Outcome>> run_job(const Job& job);

/// Samples of each global batch, in order: the ranks' slices joined.
[[nodiscard]] std::vector<std::vector<std::int64_t>> global_batches(
    const std::vector<std::unique_ptr<Outcome>>& ranks);

/// |a − b| / |b|.
[[nodiscard]] double distance(const std::vector<double>& a, const std::vector<double>& b);

}  // namespace voca::simt::host
