#pragma once

#include <cstdint>
#include <deque>
#include <functional>

#include "kernels/backend.h"

namespace voca::simt::host {

/// Stream of a GPU for tests. Tasks run in order and as late as possible: when the host, or a task of another
/// stream, waits for them. A task that is never waited for never runs, so a missing wait shows up as missing
/// data. Used by one thread.
class Stream {
 public:
  /// kAtOnce runs each task, and the waits before it, when it is queued, which exposes work that starts too
  /// early. kLate exposes work that ends too late.
  enum class When : std::uint8_t { kLate, kAtOnce };
  explicit Stream(When when = When::kLate) : when_(when) {}
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  /// Position in a stream, after its first `count` tasks.
  struct Point {
    Stream* stream = nullptr;
    std::uint64_t count = 0;
    /// Runs all tasks before this point. Propagates their exceptions.
    void reach() const {
      if (stream != nullptr) stream->finish(count);
    }
  };

  /// The stream as the engine and the kernels know it, and back.
  [[nodiscard]] kernels::Stream handle() { return reinterpret_cast<kernels::Stream>(this); }
  [[nodiscard]] static Stream* of(kernels::Stream handle) { return reinterpret_cast<Stream*>(handle); }

  void queue(std::function<void()> task);
  /// Makes subsequent tasks wait for `point`.
  void wait(const Point& point);
  [[nodiscard]] Point end() { return {this, done_ + tasks_.size()}; }
  /// Runs all queued tasks.
  void finish() { finish(done_ + tasks_.size()); }
  /// Drops all queued tasks.
  void discard();

 private:
  void finish(std::uint64_t count);

  When when_;
  std::deque<std::function<void()>> tasks_;
  std::uint64_t done_ = 0;  ///< tasks started or dropped so far
};

}  // namespace voca::simt::host
