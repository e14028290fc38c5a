#pragma once

// One hierarchy of exceptions. The message of a user's error is one line: the option or file, what was
// expected and what to do. main() prints it and exits with the type's code.

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace voca::engine {

/// Exit codes of the program (from sysexits.h if one fits).
enum class ExitCode : int {
  kDone = 0,
  kUsage = 64,        ///< wrong option or contradicting options
  kBadData = 65,      ///< file with unexpected content
  kInternal = 70,     ///< defect in this program
  kIo = 74,           ///< the system refused a read or write
  kInterrupted = 75,  ///< stopped by a signal
};

/// Base of everything this program throws on purpose.
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  [[nodiscard]] ExitCode code() const noexcept { return code_; }

 private:
  ExitCode code_;
};

/// An error of one exit code. `Tag` tells types of the same code apart.
template <ExitCode kCode, typename Tag = void>
class ErrorOf : public Error {
 public:
  template <typename... Args>
  explicit ErrorOf(fmt::format_string<Args...> format, Args&&... args)
      : Error(kCode, fmt::format(format, std::forward<Args>(args)...)) {}
};

using UsageError = ErrorOf<ExitCode::kUsage>;
using DataError = ErrorOf<ExitCode::kBadData>;
/// A failed system call; the message names the path and spells errno out.
using IoError = ErrorOf<ExitCode::kIo>;
using InternalError = ErrorOf<ExitCode::kInternal>;
/// Stopped by a signal after the state was saved.
using Interrupted = ErrorOf<ExitCode::kInterrupted>;

/// A file that the system could not open or read; it says nothing about the file's contents.
class ReadError : public IoError {
 public:
  ReadError(int error_number, const std::string& message)
      : IoError("{}", message), error_number_(error_number) {}
  /// errno of the failure.
  [[nodiscard]] int error_number() const noexcept { return error_number_; }

 private:
  int error_number_;
};

namespace detail {
[[noreturn]] inline void check_failed(const char* statement, const char* function, const char* file,
                                      int line) {
  throw InternalError("check failed: {} in {} at {}:{}", statement, function, file, line);
}
}  // namespace detail

}  // namespace voca::engine

/// Internal invariant; throws InternalError with the statement and its source location.
#define VOCA_CHECK(condition)                                                                         \
  do {                                                                                                \
    if (!(condition)) ::voca::engine::detail::check_failed(#condition, __func__, __FILE__, __LINE__); \
  } while (false)
