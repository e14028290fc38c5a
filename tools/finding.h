#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace voca::tools {

enum class Verdict : std::uint8_t { kOk, kWarning, kProblem };

[[nodiscard]] constexpr std::string_view name_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::kOk:
      return "ok";
    case Verdict::kWarning:
      return "warning";
    case Verdict::kProblem:
      return "PROBLEM";
  }
  return "unknown";
}

/// One line of the report of `doctor`.
struct Finding {
  std::string what;
  Verdict verdict = Verdict::kOk;
  std::string text;  ///< what was found and, if not ok, what to do
};

}  // namespace voca::tools
