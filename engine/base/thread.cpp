#include "engine/base/thread.h"

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

#include "engine/base/error.h"
#include "engine/base/system_limits.h"
#include "engine/base/terminal.h"

namespace voca::engine {
namespace {

std::string reason(const char* purpose, int error_number) {
  return fmt::format(
      "a thread for {} cannot be started: {}; {}, or ask for fewer with --threads and --num_workers", purpose,
      std::strerror(error_number), kRaiseProcessLimits);
}

void check_threads_can_start(const char* purpose, int count) {
  std::mutex mutex;
  std::condition_variable_any changed;
  std::vector<std::jthread> threads;  // declared last: stopped and joined first, even on failure
  threads.reserve(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) {
    threads.push_back(start_thread(purpose, [&](const std::stop_token& stop) {
      std::unique_lock lock(mutex);
      changed.wait(lock, stop, [] { return false; });
    }));
  }
}

std::atomic<const char*> team_being_started = nullptr;

/// atexit() handler: reports if the process ends while a team starts, because the library called exit().
void end_without_team() {
  const char* const purpose = team_being_started;
  if (purpose == nullptr) return;
  write_at_once(STDERR_FILENO, "voca-engine: " + reason(purpose, EAGAIN) + "\n");
  ::_exit(static_cast<int>(ExitCode::kIo));
}

}  // namespace

void no_thread(const char* purpose, int error_number) {
  throw IoError("{}", reason(purpose, error_number));
}

void start_team(const char* purpose, int size, const std::function<void()>& start) {
  if (size <= 1) return;
  check_threads_can_start(purpose, size - 1);
  static const bool registered = std::atexit(end_without_team) == 0;
  if (registered) team_being_started = purpose;
  start();
  team_being_started = nullptr;
}

}  // namespace voca::engine
