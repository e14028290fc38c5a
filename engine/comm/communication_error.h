#pragma once

#include <fmt/format.h>

#include <utility>

#include "engine/base/error.h"

namespace voca::engine {

/// A rank is unreachable, or did not respond before the timeout. The message names the operation, the waiting
/// rank and the time waited.
class CommunicationError : public Error {
 public:
  template <typename... Args>
  explicit CommunicationError(fmt::format_string<Args...> format, Args&&... args)
      : Error(ExitCode::kIo, fmt::format(format, std::forward<Args>(args)...)) {}
};

}  // namespace voca::engine
