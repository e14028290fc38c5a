#pragma once

#include <cstdio>
#include <cstdlib>

#include "engine/error.h"
#include "tools/option_set.h"

namespace voca::benchmarks {

/// Parses the command line of a benchmark; false when --help was printed. What is wrong with it ends the
/// program with one line and the exit code of the program itself.
inline bool parse(tools::OptionSet& options, int argc, const char* const* argv) {
  try {
    return options.parse({argv + 1, argv + argc});
  } catch (const engine::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    std::exit(static_cast<int>(error.code()));
  }
}

}  // namespace voca::benchmarks
