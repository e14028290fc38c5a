#include "engine/thread.h"

#include <condition_variable>
#include <cstring>
#include <mutex>
#include <vector>

#include "engine/error.h"

namespace voca::engine {

void no_thread(const char* purpose, int error_number) {
  throw IoError(
      "a thread for {} cannot be started: {}; raise the limit on processes and threads (ulimit -u, pids.max "
      "of "
      "the cgroup) or on memory (ulimit -v), or ask for fewer with --threads and --num_workers",
      purpose, std::strerror(error_number));
}

void check_threads_can_start(const char* purpose, int count) {
  std::mutex mutex;
  std::condition_variable_any changed;
  std::vector<std::jthread> threads;  // last: asked to stop and joined first, also when one cannot be had
  threads.reserve(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) {
    threads.push_back(start_thread(purpose, [&](const std::stop_token& stop) {
      std::unique_lock lock(mutex);
      changed.wait(lock, stop, [] { return false; });
    }));
  }
}

}  // namespace voca::engine
