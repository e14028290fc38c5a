#include "kernels/cpu/levels.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string_view>
#include <vector>

#include "kernels/compiled_levels.h"

namespace voca::kernels::cpu {

#define VOCA_DECLARE(level, name)     \
  inline namespace level {            \
  extern const char* const kRequired; \
  }
VOCA_CPU_LEVELS(VOCA_DECLARE)
#undef VOCA_DECLARE

namespace {

struct Level {
  std::string_view name;
  std::string_view required;
};

const std::vector<Level>& compiled() {
#define VOCA_LEVEL(level, name) Level{name, level::kRequired},
  static const std::vector<Level> levels{VOCA_CPU_LEVELS(VOCA_LEVEL)};
#undef VOCA_LEVEL
  return levels;
}

bool processor_has(std::string_view extension) {
  struct Extension {
    std::string_view name;
    bool present;
  };
#if defined(__x86_64__)
#define VOCA_EXTENSION(name, of_compiler) \
  { name, __builtin_cpu_supports(of_compiler) != 0 }
  static const std::vector<Extension> known{
      VOCA_EXTENSION("SSE4.2", "sse4.2"),
      VOCA_EXTENSION("POPCNT", "popcnt"),
      VOCA_EXTENSION("AVX", "avx"),
      VOCA_EXTENSION("AVX2", "avx2"),
      VOCA_EXTENSION("FMA", "fma"),
      VOCA_EXTENSION("BMI", "bmi"),
      VOCA_EXTENSION("BMI2", "bmi2"),
      VOCA_EXTENSION("AVX-512", "avx512f"),
      VOCA_EXTENSION("AVX-512BW", "avx512bw"),
      VOCA_EXTENSION("AVX-512CD", "avx512cd"),
      VOCA_EXTENSION("AVX-512DQ", "avx512dq"),
      VOCA_EXTENSION("AVX-512VL", "avx512vl"),
      VOCA_EXTENSION("AVX-512VBMI", "avx512vbmi"),
  };
#undef VOCA_EXTENSION
#else
  static const std::vector<Extension> known{{"FMA", true}};
#endif
  const auto found = std::ranges::find(known, extension, &Extension::name);
  return found != known.end() && found->present;
}

/// The first extension that the level requires and this processor lacks; empty if none.
std::string_view missing(const Level& level) {
  for (std::string_view rest = level.required; !rest.empty();) {
    const std::string_view extension = rest.substr(0, rest.find(','));
    if (!processor_has(extension)) return extension;
    rest.remove_prefix(extension.size() + 1);
  }
  return {};
}

std::string names() {
  std::string list;
  for (const Level& level : compiled()) {
    if (!list.empty()) list += ", ";
    list += level.name;
  }
  return list;
}

int widest() {
  const std::vector<Level>& levels = compiled();
  for (auto level = levels.rbegin(); level != levels.rend(); ++level) {
    if (missing(*level).empty()) return static_cast<int>(levels.rend() - level) - 1;
  }
  throw std::runtime_error("the CPU kernels of this program are for " + names() +
                           ", and this processor lacks " + std::string(missing(levels.front())) +
                           ": build it with -DVOCA_CPU_ARCH=native on this machine");
}

int named(std::string_view name) {
  const std::vector<Level>& levels = compiled();
  for (const Level& level : levels) {
    if (level.name != name) continue;
    if (const std::string_view lacks = missing(level); !lacks.empty()) {
      throw std::runtime_error("VOCA_CPU_ARCH=" + std::string(name) + ": this processor lacks " +
                               std::string(lacks) + "; unset it for the kernels that suit this processor");
    }
    return static_cast<int>(&level - levels.data());
  }
  throw std::runtime_error("VOCA_CPU_ARCH=" + std::string(name) +
                           ": the CPU kernels of this program are for " + names() +
                           "; name one of these, or unset it");
}

/// Whether the chosen level does; the name with its comma.
bool requires_extension(std::string_view name) {
  return compiled()[static_cast<std::size_t>(level())].required.find(name) != std::string_view::npos;
}

}  // namespace

int level() {
  static const int chosen = [] {
    const char* name = std::getenv("VOCA_CPU_ARCH");
    return name == nullptr || *name == '\0' ? widest() : named(name);
  }();
  return chosen;
}

std::string instruction_set() {
  std::string text(compiled()[static_cast<std::size_t>(level())].name);
  if (requires_extension("AVX-512,")) return text + " (AVX-512)";
  if (requires_extension("AVX2,")) return text + " (AVX2)";
  return text;
}

bool multiply_adds() {
  return requires_extension("FMA,");
}

}  // namespace voca::kernels::cpu
