#pragma once

#include <system_error>
#include <thread>
#include <utility>

namespace voca::engine {

/// Throws the IoError of a thread that the system would not start, `error_number` saying why: what it was to
/// do, and which limits and options to look at.
[[noreturn]] void no_thread(const char* purpose, int error_number);

/// Starts a thread. Throws IoError, exit code 74, where the system has none left; `purpose` names what it was
/// to do. Whoever started siblings before must end them then: nobody else wakes what waits for work.
template <typename Thread = std::jthread, typename F>
[[nodiscard]] Thread start_thread(const char* purpose, F&& f) {
  try {
    return Thread(std::forward<F>(f));
  } catch (const std::system_error& error) {
    no_thread(purpose, error.code().value());
  }
}

/// Throws as start_thread() does unless so many threads can run beside this one, and leaves none. For
/// libraries that end the process when a thread cannot be had, as libgomp does. Limits that others share may
/// bind later.
void check_threads_can_start(const char* purpose, int count);

}  // namespace voca::engine
