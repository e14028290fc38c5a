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

/// Collectives of one job. Every rank calls the same ones in the same order, with tensors of the same shape
/// and type, from one thread at a time (except abort()). `name` identifies the data in messages. Tensors are
/// on the communicator's device. A call returns when the result is there (CPU), or queues the work on
/// `stream` (GPU). Sums are bitwise identical on every rank, and in every run with the same number of ranks.
///
/// Every collective throws CommunicationError with its name, this rank, the lost or late ranks and the time
/// waited. The communicator is then broken: every later call throws.
class Communicator {
 public:
  Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;
  virtual ~Communicator() = default;

  [[nodiscard]] virtual int rank() const = 0;
  [[nodiscard]] virtual int world_size() const = 0;

  /// In-place all-reduce: data = Σ over ranks of data.
  virtual void all_reduce_sum(const char* name, Tensor data, Stream stream) = 0;
  /// Overwrites `all` with the parts of all ranks, concatenated in rank order along the outermost extent:
  /// rank r's part has rows_by_rank[r] ≥ 0 rows, `all` has their sum. `part` and `all` must not overlap.
  virtual void all_gather_rows(const char* name, const Tensor& part,
                               std::span<const std::int64_t> rows_by_rank, Tensor all, Stream stream) = 0;
  /// all_gather_rows() for parts of equal size: `all` has world_size · (elements of `part`) elements.
  void all_gather(const char* name, const Tensor& part, Tensor all, Stream stream);
  /// Overwrites `data` with root's data.
  virtual void broadcast(const char* name, Tensor data, int root, Stream stream) = 0;
  /// Returns when every rank has called it. Synchronises host threads only: work queued on a GPU continues.
  virtual void barrier(const char* name) = 0;
  /// Returns the host values of all ranks, concatenated in rank order; `mine` has the same length on every
  /// rank.
  [[nodiscard]] virtual std::vector<double> all_gather_values(const char* name,
                                                              std::span<const double> mine) = 0;
  /// Thread-safe. Ends pending collectives here and, because they lose this rank, on the other ranks.
  virtual void abort() noexcept = 0;
};

struct GlooOptions {
  std::string name = "main";          ///< distinguishes the job's communicators in the store
  std::string address = "127.0.0.1";  ///< of this host: reachable by the other ranks, and bound
  std::chrono::milliseconds timeout{std::chrono::seconds(300)};  ///< of a collective, and of the rendezvous
};
/// Communicator over TCP for CPU tensors (float32, float64, int32, int64; all_gather and broadcast take any
/// type). Ignores SIGPIPE in this process, so that a write to a lost rank fails with an error. Its destructor
/// waits up to 5 s for the other ranks to finish their transfers with this one. Throws CommunicationError if
/// the rendezvous times out, UsageError in a build without Gloo.
[[nodiscard]] std::unique_ptr<Communicator> make_gloo_communicator(KeyValueStore& store, int rank,
                                                                   int world_size,
                                                                   const GlooOptions& options);
/// Whether this build includes Gloo.
[[nodiscard]] bool with_gloo();

}  // namespace voca::engine
