#include "tests/simt/stream.h"

#include <utility>

namespace voca::simt::host {

void Stream::queue(std::function<void()> task) {
  tasks_.push_back(std::move(task));
  if (when_ == When::kAtOnce) finish();
}

void Stream::wait(const Point& point) {
  queue([point] { point.reach(); });
}

void Stream::discard() {
  done_ += tasks_.size();
  tasks_.clear();
}

void Stream::finish(std::uint64_t count) {
  while (done_ < count) {
    const std::function<void()> task = std::move(tasks_.front());
    tasks_.pop_front();
    ++done_;
    task();
  }
}

}  // namespace voca::simt::host
