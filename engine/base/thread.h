#pragma once

#include <functional>
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

/// Has `start`, the first parallel region of a library that ends the process where it cannot have a thread,
/// start its team of `size`. Throws as start_thread() does where so many cannot run; should the library still
/// end the process, others having taken the last one meanwhile, that is with the same words and exit code 74.
void start_team(const char* purpose, int size, const std::function<void()>& start);

}  // namespace voca::engine
