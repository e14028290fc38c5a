#include "data/tree/parallel.h"

#include <atomic>
#include <exception>
#include <limits>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/base/thread.h"

namespace voca::data {

void for_each_index(std::int64_t count, int num_workers, const std::function<void(std::int64_t)>& f) {
  std::atomic<std::int64_t> next{0};
  std::mutex mutex;
  std::int64_t failed = std::numeric_limits<std::int64_t>::max();
  std::exception_ptr failure;
  const auto work = [&] {
    for (std::int64_t i = next++; i < count; i = next++) {
      try {
        f(i);
      } catch (...) {
        const std::scoped_lock lock(mutex);
        next = count;
        if (i < failed) {
          failed = i;
          failure = std::current_exception();
        }
      }
    }
  };
  {
    std::vector<std::jthread> threads;
    try {
      for (int t = 1; t < num_workers && t < count; ++t)
        threads.push_back(engine::start_thread("a worker", work));
    } catch (...) {
      next = count;  // threads already started stop after their current index
      throw;
    }
    work();
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace voca::data
