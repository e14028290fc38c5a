#pragma once

// For builds with Gloo (VOCA_WITH_GLOO) alone.

#include <gloo/rendezvous/context.h>
#include <gloo/transport/unbound_buffer.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "engine/base/running_clock.h"
#include "engine/comm/communicator.h"

namespace voca::engine {

/// Bytes [offset, offset + size) of a region, sent to or received from `rank`.
struct Piece {
  int rank;
  std::size_t offset;
  std::size_t size;
};
struct Region {
  void* data = nullptr;
  std::vector<Piece> pieces{};

  void add(int rank, std::size_t offset, std::size_t bytes) {
    if (bytes > 0) pieces.push_back({rank, offset, bytes});
  }
};

/// TCP connections between every two ranks of a job, made and driven by Gloo. Moves pieces of memory within a
/// timeout and finds out which ranks were lost. Used by one thread at a time, except for abort().
class GlooMesh {
 public:
  /// Connects all ranks. Throws CommunicationError naming the communicator if they do not connect within the
  /// timeout, IoError if a thread cannot be started.
  GlooMesh(KeyValueStore& store, int rank, int world_size, const GlooOptions& options);
  ~GlooMesh();
  GlooMesh(const GlooMesh&) = delete;
  GlooMesh& operator=(const GlooMesh&) = delete;

  /// Exchanges must be done within `timeout` from now, while this process runs.
  void set_timeout(std::chrono::milliseconds timeout);
  /// Sends and receives all pieces concurrently. Returns "" when all are done, otherwise why not: aborted,
  /// late or lost ranks.
  [[nodiscard]] std::string exchange(const Region& out, const Region& in);
  /// Connections may be closed from now on: the job ends.
  void expect_end() { leaving_ = true; }
  /// Ends the exchange in flight and all later ones, here and on the other ranks. From any thread.
  void abort() noexcept;
  [[nodiscard]] bool is_aborted() const { return aborted_; }

 private:
  /// Messages to and from other ranks, all in flight at once.
  class Transfer {
   public:
    explicit Transfer(GlooMesh& owner) : owner_(owner) {}
    ~Transfer() { release(); }
    Transfer(const Transfer&) = delete;
    Transfer& operator=(const Transfer&) = delete;

    void start(const Region& out, const Region& in, std::uint64_t slot);
    /// Waits for all; false if interrupted.
    [[nodiscard]] bool finish();
    /// The ranks with unfinished messages.
    [[nodiscard]] std::string unfinished();
    /// Ends the wait. Called from another thread, which holds the owner's mutex_.
    void interrupt();

   private:
    struct Pending {
      int rank;
      std::unique_ptr<::gloo::transport::UnboundBuffer> buffer;
      bool done = false;
    };
    /// Deregisters from the owner: no interruption after this.
    void release();

    GlooMesh& owner_;
    std::vector<Pending> receiving_;
    std::vector<Pending> sending_;
  };

  [[nodiscard]] std::string lost_ranks();
  [[nodiscard]] std::string find_lost_ranks();
  void guard();
  void keep_time();
  [[nodiscard]] bool was_late();
  void end_threads();

  int rank_;
  int world_size_;
  std::shared_ptr<::gloo::rendezvous::Context> context_;
  std::uint64_t next_slot_ = 0;
  std::atomic<bool> aborted_{false};
  std::atomic<bool> leaving_{false};

  std::mutex mutex_;              // guards the members below
  Transfer* transfer_ = nullptr;  // in flight
  std::string lost_;              // lost ranks found by guard()
  RunningClock clock_;
  RunningClock::Time deadline_;
  bool is_late_ = false;  // the deadline has passed
  bool is_over_ = false;
  std::condition_variable over_;

  std::unique_ptr<::gloo::transport::UnboundBuffer> life_;
  std::thread guard_;
  std::thread time_keeper_;
};

}  // namespace voca::engine
