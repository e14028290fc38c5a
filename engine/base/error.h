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

class UsageError : public Error {
 public:
  template <typename... Args>
  explicit UsageError(fmt::format_string<Args...> format, Args&&... args)
      : Error(ExitCode::kUsage, fmt::format(format, std::forward<Args>(args)...)) {}
};

class DataError : public Error {
 public:
  template <typename... Args>
  explicit DataError(fmt::format_string<Args...> format, Args&&... args)
      : Error(ExitCode::kBadData, fmt::format(format, std::forward<Args>(args)...)) {}
};

/// A failed system call; the message names the path and spells errno out.
class IoError : public Error {
 public:
  template <typename... Args>
  explicit IoError(fmt::format_string<Args...> format, Args&&... args)
      : Error(ExitCode::kIo, fmt::format(format, std::forward<Args>(args)...)) {}
};

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

class InternalError : public Error {
 public:
  template <typename... Args>
  explicit InternalError(fmt::format_string<Args...> format, Args&&... args)
      : Error(ExitCode::kInternal, fmt::format(format, std::forward<Args>(args)...)) {}
};

/// Stopped by a signal after the state was saved.
class Interrupted : public Error {
 public:
  template <typename... Args>
  explicit Interrupted(fmt::format_string<Args...> format, Args&&... args)
      : Error(ExitCode::kInterrupted, fmt::format(format, std::forward<Args>(args)...)) {}
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
