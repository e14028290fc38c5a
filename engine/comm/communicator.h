#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/comm/key_value_store.h"
#include "engine/core/tensor.h"

namespace voca::engine {

/// The collectives of one job. Every rank calls the same ones in the same order, with tensors of the same
/// shape and type; one thread at a time, abort() apart. `name` says what for, in messages. Tensors lie on the
/// device of the communicator; a call returns when the result is there (CPU) or queues the work on `stream`
/// (GPU). Sums are the same bits on every rank and in every run with the same number of ranks.
///
/// Throws CommunicationError naming the collective, this rank, the ranks that are lost or late, and how long
/// it waited. After that the communicator is broken: every later call throws.
class Communicator {
 public:
  Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;
  virtual ~Communicator() = default;

  [[nodiscard]] virtual int rank() const = 0;
  [[nodiscard]] virtual int world_size() const = 0;

  /// data = the sum of every rank's data, in place.
  virtual void all_reduce_sum(const char* name, const Tensor& data, void* stream) = 0;
  /// `all` is overwritten with the parts of all ranks in rank order along the outermost extent: rank r's part
  /// has rows_by_rank[r] ≥ 0 rows, `all` their sum. `part` and `all` do not overlap.
  virtual void all_gather_rows(const char* name, const Tensor& part,
                               std::span<const std::int64_t> rows_by_rank, const Tensor& all,
                               void* stream) = 0;
  /// The same for parts of one size: `all` has world_size times the elements of `part`.
  void all_gather(const char* name, const Tensor& part, const Tensor& all, void* stream);
  /// data = root's data.
  virtual void broadcast(const char* name, const Tensor& data, int root, void* stream) = 0;
  /// Returns when every rank has called it. Of host threads: what is queued on a GPU goes on.
  virtual void barrier(const char* name) = 0;
  /// Host values of every rank, one rank's after the other's: `mine` has the same length on every rank.
  [[nodiscard]] virtual std::vector<double> all_gather_values(const char* name,
                                                              std::span<const double> mine) = 0;
  /// From another thread: ends what is stuck, here and, as they lose this rank, on the others.
  virtual void abort() noexcept = 0;
};

/// A world of one: nothing to do, on any device.
[[nodiscard]] std::unique_ptr<Communicator> make_single_communicator();

struct GlooOptions {
  std::string name = "main";          ///< tells the communicators of one job apart in the store
  std::string address = "127.0.0.1";  ///< of this host, by which the others reach it; what it binds to
  std::chrono::milliseconds timeout{std::chrono::seconds(300)};  ///< of a collective, and of the rendezvous
};
/// Of tensors on the CPU (float32, float64, int32, int64; all_gather and broadcast take any type), over TCP.
/// Ignores SIGPIPE in this process: a survivor writes to a rank that is gone. Its destructor waits, 5 s at
/// the most, for the others to be through with what they share with this rank. Throws CommunicationError when
/// the ranks do not meet within the timeout, UsageError in a build without Gloo.
[[nodiscard]] std::unique_ptr<Communicator> make_gloo_communicator(KeyValueStore& store, int rank,
                                                                   int world_size,
                                                                   const GlooOptions& options);
/// Whether this build has Gloo.
[[nodiscard]] bool with_gloo();

}  // namespace voca::engine
