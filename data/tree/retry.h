#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <thread>

#include "data/tree/npz.h"

namespace voca::data {

/// Whether a system error may be transient: a network disk that failed briefly, or too many open files.
[[nodiscard]] inline bool is_transient(int error_number) {
  constexpr std::array kTransient{EIO, ESTALE, ETIMEDOUT, EAGAIN, EMFILE, ENFILE};
  return std::ranges::find(kTransient, error_number) != kTransient.end();
}

/// Back-off before each retry.
inline constexpr std::array<std::chrono::milliseconds, 3> kBackOff{
    {std::chrono::milliseconds(50), std::chrono::milliseconds(200), std::chrono::milliseconds(800)}};

/// Returns the result of `read`, retried after a ReadError that may be transient. Throws the error of the
/// last attempt.
template <typename Read>
auto with_retries(Read read) {
  for (std::size_t tries = 0;; ++tries) {
    try {
      return read();
    } catch (const ReadError& error) {
      if (tries == kBackOff.size() || !is_transient(error.error_number())) throw;
    }
    std::this_thread::sleep_for(kBackOff[tries]);
  }
}

}  // namespace voca::data
