#pragma once

#include <utility>

#include "engine/error.h"

namespace voca::engine {

/// Ranks cannot reach each other, or one of them is lost, late or does something else than this one.
class CommunicationError : public Error {
 public:
  template <typename... Args>
  explicit CommunicationError(fmt::format_string<Args...> format, Args&&... args)
      : Error(ExitCode::kIo, fmt::format(format, std::forward<Args>(args)...)) {}
};

}  // namespace voca::engine
