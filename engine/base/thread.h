#pragma once

#include <functional>
#include <system_error>
#include <thread>
#include <utility>

namespace voca::engine {

/// Throws the IoError of a thread that could not be started: its purpose, the reason `error_number`, and the
/// limits and options to check.
[[noreturn]] void no_thread(const char* purpose, int error_number);

/// Starts a thread. Throws IoError (exit code 74) if the system refuses; `purpose` names its task. The caller
/// must then stop threads it started before: nothing else wakes those that wait for work.
template <typename Thread = std::jthread, typename F>
[[nodiscard]] Thread start_thread(const char* purpose, F&& f) {
  try {
    return Thread(std::forward<F>(f));
  } catch (const std::system_error& error) {
    no_thread(purpose, error.code().value());
  }
}

/// Runs `start`, the first parallel region of a library that ends the process if it cannot start a thread, so
/// that the library creates its team of `size` threads. Throws as start_thread() if that many threads cannot
/// run. If the library still ends the process, because others took the last thread meanwhile, it ends with
/// the same message and exit code 74.
void start_team(const char* purpose, int size, const std::function<void()>& start);

}  // namespace voca::engine
