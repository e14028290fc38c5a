#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <thread>

#include "data/tree/npz.h"

namespace voca::data {

/// Whether such a failure of the system may be over in a moment: of a network disk that stumbled, or of files
/// that others have open.
[[nodiscard]] inline bool may_pass(int error_number) {
  constexpr std::array kPassing{EIO, ESTALE, ETIMEDOUT, EAGAIN, EMFILE, ENFILE};
  return std::find(kPassing.begin(), kPassing.end(), error_number) != kPassing.end();
}

/// How long is waited before each further try.
inline constexpr std::array<std::chrono::milliseconds, 3> kPatience{
    {std::chrono::milliseconds(50), std::chrono::milliseconds(200), std::chrono::milliseconds(800)}};

/// What `read` returns; tried again after a ReadError that may pass. Throws what the last try threw.
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
