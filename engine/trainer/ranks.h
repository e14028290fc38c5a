#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "engine/comm/communicator.h"
#include "engine/comm/gradient_buckets.h"
#include "engine/core/parameters.h"

namespace voca::engine {

/// The job's ranks, as a trainer and an evaluation need them. The default is a world of one.
struct Ranks {
  Communicator* main = nullptr;  ///< of the thread that trains
  /// Of the sums that run beside backward: on CPUs another one than `main`, on GPUs `main` itself will do.
  Communicator* gradients = nullptr;
  CommunicationStream* stream = nullptr;  ///< on a GPU, of those sums
  BucketOptions buckets{};
  /// Told what this rank is about to do, for a watchdog; a string that lives for ever.
  std::function<void(const char* what)> doing = [](const char*) {};
  /// Waits until every rank has come here, for as long as those that are missing get on with something.
  /// Before a collective to which one rank may come much later than the others: they would wait for it in
  /// vain.
  std::function<void(const char* what)> meet = [](const char*) {};

  [[nodiscard]] bool alone() const { return main == nullptr || main->world_size() == 1; }
  [[nodiscard]] int rank() const { return alone() ? 0 : main->rank(); }
  [[nodiscard]] int world_size() const { return alone() ? 1 : main->world_size(); }
  [[nodiscard]] bool first() const { return rank() == 0; }
};

/// Has the ranks' communicators take the device memory that they keep from their first collectives on, small
/// ones and such of whole buckets: what is free afterwards is free. Does nothing where collectives run on the
/// host, whose buffers are part of the plan.
void warm_up(const Ranks& ranks, Device& device);

/// The sum over the ranks of a number that each knows of itself, exact up to 2^53.
[[nodiscard]] std::int64_t sum_over_ranks(const Ranks& ranks, const char* name, std::int64_t mine);
/// Whether any rank says so.
[[nodiscard]] bool any_rank(const Ranks& ranks, const char* name, bool mine);
/// Rank 0's text, on every rank.
[[nodiscard]] std::string text_of_first_rank(const Ranks& ranks, const char* name, const std::string& mine);

/// Rank 0's weights, masters and moments, on every rank.
void broadcast_parameters(const Ranks& ranks, const ParameterStore& parameters, void* stream);
/// Throws InternalError naming the ranks whose weights and moments are not rank 0's, to the last bit.
void check_ranks_agree(const Ranks& ranks, const ParameterStore& parameters);

}  // namespace voca::engine
