#pragma once

#include <fmt/format.h>

#include <utility>

#include "engine/base/error.h"

namespace voca::engine {

/// Ranks cannot reach each other, or not in time. The message says what was waited for, by which rank, how
/// long.
class CommunicationError : public Error {
 public:
  template <typename... Args>
  explicit CommunicationError(fmt::format_string<Args...> format, Args&&... args)
      : Error(ExitCode::kIo, fmt::format(format, std::forward<Args>(args)...)) {}
};

}  // namespace voca::engine
