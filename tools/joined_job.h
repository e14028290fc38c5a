#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/activity.h"
#include "engine/comm/communicator.h"
#include "engine/core/algorithm_sharing.h"
#include "engine/core/device.h"
#include "engine/rendezvous/environment.h"
#include "engine/rendezvous/rendezvous.h"
#include "engine/rendezvous/watchdog.h"
#include "engine/trainer/ranks.h"
#include "tools/options/device_options.h"
#include "tools/rank_devices.h"

namespace voca::tools {

/// What every rank of a job must have the same, by the name it has in messages.
using Agreement = std::vector<std::pair<std::string, std::string>>;

/// This process among the ranks of its job (docs/distributed.md). Alone, it meets nobody and costs nothing.
class JoinedJob {
 public:
  /// Meets the other ranks that the environment tells of, compares `agreement` and the build, and tries the
  /// links. `comm_timeout` in seconds bounds the rendezvous and every collective. Throws UsageError naming
  /// what differs between which ranks, CommunicationError naming the ranks that did not come or the link that
  /// fails.
  JoinedJob(const engine::RankEnvironment& environment, Agreement agreement, double comm_timeout);
  ~JoinedJob();
  JoinedJob(const JoinedJob&) = delete;
  JoinedJob& operator=(const JoinedJob&) = delete;

  [[nodiscard]] bool alone() const { return rendezvous_.world_size() == 1; }
  [[nodiscard]] bool first() const { return rendezvous_.rank() == 0; }
  [[nodiscard]] const engine::RankEnvironment& environment() const { return rendezvous_.environment(); }

  /// Runs `work` on rank 0 while the others wait, and then on them: what leaves a file that all read.
  template <typename Work>
  auto first_rank_first(const char* what, Work work) {
    if (alone()) return work();
    if (!first()) wait_for_first(what);
    auto result = [&] {
      const KeepAlive busy(*this, what);
      return work();
    }();
    if (first()) rendezvous_.store().set(what, "done");
    return result;
  }
  /// Waits until every rank has come here, for as long as those that are missing get on with something.
  void meet(const char* what);
  /// Compares more, once it is known. Throws as the constructor does.
  void agree(const std::string& about, const Agreement& agreement);
  /// Compares what ranks compute on. Throws UsageError naming the ranks that cannot compute together
  /// (device_conflict), or what several GPUs lack here.
  void agree_on_devices(const engine::Device& device, const DeviceOptions& options);
  /// The same of a device that is described.
  void agree_on_devices(const RankDevice& mine);
  /// How this rank comes to the algorithms of its matrix products.
  [[nodiscard]] engine::AlgorithmSharing algorithm_sharing();
  /// Makes the collectives of tensors on `device`, which have then taken what memory they take there; ranks()
  /// is alone before. With one rank it changes nothing.
  void connect(engine::Device& device);
  [[nodiscard]] const engine::Ranks& ranks() const { return ranks_; }

  /// Tells the other ranks that this one fails, and why.
  void fail(const std::string& why);
  /// What the job knows of why it ends, where a collective failed: the lost rank rather than its neighbour's
  /// broken connection. "" where it knows nothing more.
  [[nodiscard]] std::string reason();

 private:
  /// Tells the watchdog that work of unknown length goes on.
  class KeepAlive {
   public:
    KeepAlive(JoinedJob& job, const char* what);
    ~KeepAlive();
    KeepAlive(const KeepAlive&) = delete;
    KeepAlive& operator=(const KeepAlive&) = delete;

   private:
    struct Thread;
    std::unique_ptr<Thread> thread_;
  };
  /// Throws UsageError saying what to install; an old one that works is warned of, once.
  void check_nccl() const;
  /// Rank 0 judges what every rank says; throws UsageError on all of them where its verdict is not empty.
  using Judge = std::function<std::string(const std::vector<std::string>& by_rank)>;
  void compare(const std::string& about, const std::string& mine, const Judge& judge);
  void wait_for_first(const char* what);
  /// Sleeps until the condition holds, which other ranks see to; this rank gets on meanwhile.
  void wait_until(const std::string& what, const std::function<bool()>& condition);

  double comm_timeout_;
  engine::Rendezvous rendezvous_;
  std::optional<engine::Watchdog> watchdog_;
  std::optional<engine::ActivityListener> activity_;
  std::map<std::string, std::int64_t> met_;  // by what: how often
  std::int64_t algorithms_told_ = 0;
  std::unique_ptr<engine::Communicator> main_;
  std::unique_ptr<engine::Communicator> gradients_;      // on CPUs, whose sums have a thread of their own
  std::unique_ptr<engine::CommunicationStream> stream_;  // on a GPU, of the gradients' sums
  engine::Ranks ranks_;
};

/// Runs `body` in the job that this process is a rank of. Where it fails because another rank was lost,
/// throws what the job knows of that instead of what this rank saw; where it fails by itself, the others are
/// told why.
void in_job(const Agreement& agreement, double comm_timeout, const std::function<void(JoinedJob&)>& body);

/// The same options for one rank of several: a GPU of its own where it was given none by number, the
/// algorithms that rank 0 chooses for it, and its part of the CPU's cores where it was given no number of
/// threads. Throws UsageError when there are more ranks than GPUs.
[[nodiscard]] DeviceOptions of_rank(DeviceOptions options, JoinedJob& job);

}  // namespace voca::tools
