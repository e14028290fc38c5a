#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/base/activity.h"
#include "engine/comm/communicator.h"
#include "engine/core/device.h"
#include "engine/core/gemm_library.h"
#include "engine/rendezvous/rank_environment.h"
#include "engine/rendezvous/rendezvous.h"
#include "engine/rendezvous/watchdog.h"
#include "engine/trainer/ranks.h"
#include "tools/options/device_options.h"
#include "tools/rank_devices.h"

namespace voca::tools {

/// Values that must be equal on every rank of a job, as pairs of a name for messages and a value.
using Agreement = std::vector<std::pair<std::string, std::string>>;

/// This process as a rank of its job (docs/distributed.md). With one rank there is no rendezvous and no
/// overhead.
class JoinedJob {
 public:
  /// Performs the rendezvous that `environment` describes, compares `agreement` and the build across the
  /// ranks, and probes the links. `comm_timeout`, in seconds, bounds the rendezvous and every collective.
  /// Throws UsageError naming what differs and on which ranks, CommunicationError naming the ranks that did
  /// not connect or the link that failed.
  JoinedJob(const engine::RankEnvironment& environment, Agreement agreement, double comm_timeout);
  ~JoinedJob();
  JoinedJob(const JoinedJob&) = delete;
  JoinedJob& operator=(const JoinedJob&) = delete;

  [[nodiscard]] bool alone() const { return rendezvous_.world_size() == 1; }
  [[nodiscard]] bool first() const { return rendezvous_.rank() == 0; }
  [[nodiscard]] const engine::RankEnvironment& environment() const { return rendezvous_.environment(); }

  /// Runs `work` on rank 0 while the others wait, and then on them; for work that creates a file that all
  /// ranks read.
  template <typename Work>
  auto first_rank_first(const char* what, Work work) {
    if (alone()) return work();
    if (!first()) wait_until(what, [&] { return rendezvous_.store().has(what); });
    auto result = [&] {
      const KeepAlive busy(*this, what);
      return work();
    }();
    if (first()) rendezvous_.store().set(what, "done");
    return result;
  }
  /// Barrier named `what`. There is no timeout while the missing ranks make progress.
  void meet(const char* what);
  /// Compares further values, once they are known. Throws as the constructor does.
  void agree(const std::string& about, const Agreement& agreement);
  /// Compares the devices of the ranks. Throws UsageError naming the ranks that cannot compute together
  /// (device_conflict), or what is missing here for several GPUs.
  void agree_on_devices(const engine::Device& device, const DeviceOptions& options);
  /// As above, for a described device; does not check NCCL.
  void agree_on_devices(const RankDevice& mine);
  /// How this rank obtains GEMM algorithms: rank 0 chooses them, the others receive them.
  [[nodiscard]] engine::AlgorithmSharing algorithm_sharing();
  /// Creates the communicators for tensors on `device`, which have then allocated their memory there. ranks()
  /// is a world of one before. No-op with one rank.
  void connect(engine::Device& device);
  [[nodiscard]] const engine::Ranks& ranks() const { return ranks_; }

  /// Reports to the other ranks that this rank fails, and why.
  void fail(const std::string& why);
  /// Why the job ends after a collective failed: the lost rank rather than the broken connection of its
  /// neighbour. Empty if nothing more is known.
  [[nodiscard]] std::string reason();

 private:
  /// Reports activity to the watchdog during work of unknown length.
  class KeepAlive {
   public:
    KeepAlive(JoinedJob& job, const char* what);

   private:
    std::mutex mutex_;
    std::condition_variable_any wake_;
    std::jthread thread_;  // last member: joined first
  };
  /// Throws UsageError saying what to install. Rank 0 warns of an old version that works.
  void check_nccl() const;
  /// Verdict of rank 0 on the values of all ranks; compare() throws it as UsageError on every rank unless it
  /// is empty.
  using Judge = std::function<std::string(const std::vector<std::string>& by_rank)>;
  void compare(const std::string& about, const std::string& mine, const Judge& judge);
  /// Polls until `condition`, which depends on the other ranks, holds. Reports activity to the watchdog
  /// meanwhile.
  void wait_until(const std::string& what, const std::function<bool()>& condition);

  double comm_timeout_;
  engine::Rendezvous rendezvous_;
  std::optional<engine::Watchdog> watchdog_;
  std::optional<engine::ActivityListener> activity_;
  std::map<std::string, std::int64_t> met_;  // number of meet() calls by `what`
  std::int64_t algorithms_told_ = 0;
  std::unique_ptr<engine::Communicator> main_;
  std::unique_ptr<engine::Communicator> gradients_;  // CPU only: gradient all-reduces have their own thread
  std::unique_ptr<engine::CommunicationStream> stream_;  // GPU only: for gradient all-reduces
  engine::Ranks ranks_;
};

/// Runs `body` in the job that this process is a rank of. If it fails because another rank was lost, throws
/// the job's reason instead of this rank's error. If it fails by itself, reports the reason to the other
/// ranks.
void in_job(const Agreement& agreement, double comm_timeout, const std::function<void(JoinedJob&)>& body);

/// Options of one rank of several: its own GPU unless one was given by number, the algorithms that rank 0
/// chooses, and its share of the CPU cores unless a number of threads was given. Throws UsageError if there
/// are more ranks than GPUs.
[[nodiscard]] DeviceOptions of_rank(DeviceOptions options, JoinedJob& job);

}  // namespace voca::tools
