#pragma once

#include <string_view>

#include "engine/base/error.h"
#include "tools/options/option_set.h"

// The commands of the program, one per file. A command returns on success and throws engine::Error on
// failure. Results go to stdout, everything else to stderr.

namespace voca::tools {

void synth(CommandLine command_line);
void pack(CommandLine command_line);
void inspect(CommandLine command_line);
void train(CommandLine command_line);
void eval(CommandLine command_line);
void predict(CommandLine command_line);
void plan(CommandLine command_line);
void launch(CommandLine command_line);
void doctor(CommandLine command_line);

struct Command {
  std::string_view name;
  std::string_view summary;
  void (*run)(CommandLine);
};
/// Null if there is no command of that name.
[[nodiscard]] const Command* find_command(std::string_view name);
/// The error for an unknown command; suggests the nearest command, or lists all.
[[nodiscard]] engine::UsageError unknown_command(std::string_view name);

/// Runs the whole program; `command_line` is argv without the program's name. Returns the exit code; errors
/// are reported on stderr.
[[nodiscard]] int run_program(CommandLine command_line);

}  // namespace voca::tools
