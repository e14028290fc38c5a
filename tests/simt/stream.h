#pragma once

#include <cstdint>
#include <deque>
#include <functional>

namespace voca::simt::host {

/// A GPU's queue of work, for tests: what is queued is done in order, as late as may be, which is when
/// someone waits for it: the host, or work of another stream that has come to a wait. What nobody waits for
/// is not done, so that a missing wait shows as data that are not there. Used by one thread.
class Stream {
 public:
  /// At once: what is queued is done when it is queued, the waits before it included. For work that must not
  /// begin too early, as kLate is for work that must not end too late.
  enum class When : std::uint8_t { kLate, kAtOnce };
  explicit Stream(When when = When::kLate) : when_(when) {}
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  /// A place in the order of a stream: behind its first `count` tasks.
  struct Point {
    Stream* stream = nullptr;
    std::uint64_t count = 0;
    /// Does what lies in front of it. Throws what that throws.
    void reach() const {
      if (stream != nullptr) stream->finish(count);
    }
  };

  void queue(std::function<void()> task);
  /// What is queued from now on waits for `point`.
  void wait(const Point& point);
  [[nodiscard]] Point end() { return {this, done_ + tasks_.size()}; }
  /// Does all that is queued.
  void finish() { finish(done_ + tasks_.size()); }
  /// What is queued is never done.
  void discard();

 private:
  void finish(std::uint64_t count);

  When when_;
  std::deque<std::function<void()>> tasks_;
  std::uint64_t done_ = 0;  ///< since the beginning; the task that runs is not among them
};

}  // namespace voca::simt::host
