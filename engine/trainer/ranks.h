#pragma once

#include <functional>
#include <string>

#include "engine/comm/communicator.h"
#include "engine/comm/gradient_buckets.h"
#include "engine/core/parameters.h"

namespace voca::engine {

/// Communicators of the job's ranks, for training and evaluation. The default is a world of one.
struct Ranks {
  Communicator* main = nullptr;  ///< used by the training thread
  /// For all-reduces that overlap backward: on CPUs it must differ from `main`, on GPUs it may be `main`
  /// itself.
  Communicator* gradients = nullptr;
  CommunicationStream* stream = nullptr;  ///< stream of those all-reduces, on a GPU
  BucketOptions buckets{};
  /// Reports what this rank does next, for the watchdog; `what` must have static lifetime.
  std::function<void(const char* what)> doing = [](const char*) {};
  /// Waits until every rank has called it, as long as the missing ranks make progress. Call it before a
  /// collective that one rank may reach much later than the others, which would otherwise time out.
  std::function<void(const char* what)> meet = [](const char*) {};

  [[nodiscard]] bool alone() const { return main == nullptr || main->world_size() == 1; }
  [[nodiscard]] int rank() const { return alone() ? 0 : main->rank(); }
  [[nodiscard]] int world_size() const { return alone() ? 1 : main->world_size(); }
  [[nodiscard]] bool first() const { return rank() == 0; }
};

/// Runs small and bucket-sized collectives, so that the communicators allocate the device memory that they
/// keep; free memory measured afterwards is really free. No-op if collectives run on the host, whose buffers
/// are part of the plan.
void warm_up(const Ranks& ranks, Device& device);

/// Sum over the ranks of each rank's `mine`; exact up to 2^53.
[[nodiscard]] std::int64_t sum_over_ranks(const Ranks& ranks, const char* name, std::int64_t mine);
/// Whether `mine` is true on any rank.
[[nodiscard]] bool any_rank(const Ranks& ranks, const char* name, bool mine);
/// Broadcasts rank 0's text.
[[nodiscard]] std::string text_of_first_rank(const Ranks& ranks, const char* name, const std::string& mine);

/// Broadcasts rank 0's weights, masters and moments.
void broadcast_parameters(const Ranks& ranks, const ParameterStore& parameters, Stream stream);
/// Throws InternalError naming the ranks whose weights or moments differ from rank 0's in any bit.
void check_ranks_agree(const Ranks& ranks, const ParameterStore& parameters);

}  // namespace voca::engine
