#pragma once

#include <cstdio>
#include <cstdlib>

#include "engine/base/error.h"
#include "tools/options/option_set.h"

namespace voca::benchmarks {

/// Parses the command line of a benchmark, which must give the options that set `needed`; false if --help was
/// printed.
/// An error ends the program with one line on stderr and the exit code of voca-engine.
template <typename... Variables>
bool parse(tools::OptionSet& options, int argc, const char* const* argv, const Variables&... needed) {
  try {
    if (!options.parse({argv + 1, argv + argc})) return false;
    (options.require(needed), ...);
    return true;
  } catch (const engine::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    std::exit(static_cast<int>(error.code()));
  }
}

}  // namespace voca::benchmarks
