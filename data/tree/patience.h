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
[[nodiscard]] inline bool may_pass(int error_number) {
  constexpr std::array kPassing{EIO, ESTALE, ETIMEDOUT, EAGAIN, EMFILE, ENFILE};
  return std::find(kPassing.begin(), kPassing.end(), error_number) != kPassing.end();
}

/// Back-off before each retry.
inline constexpr std::array<std::chrono::milliseconds, 3> kPatience{
    {std::chrono::milliseconds(50), std::chrono::milliseconds(200), std::chrono::milliseconds(800)}};

/// Returns the result of `read`, retried after a ReadError that may be transient. Throws the error of the
/// last attempt.
template <typename Read>
auto with_patience(Read read) {
  for (std::size_t tries = 0;; ++tries) {
    try {
      return read();
    } catch (const ReadError& error) {
      if (tries == kPatience.size() || !may_pass(error.error_number())) throw;
    }
    std::this_thread::sleep_for(kPatience[tries]);
  }
}

}  // namespace voca::data
