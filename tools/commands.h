#pragma once

#include <string_view>

#include "engine/base/error.h"
#include "tools/options/option_set.h"

// The commands of the program, a file each. A command returns when it did what it was asked for, and throws
// engine::Error when it could not; its results go to stdout, everything else to stderr.

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
/// Null where there is none of that name.
[[nodiscard]] const Command* find_command(std::string_view name);
/// What to throw then: names the command that was meant, or all.
[[nodiscard]] engine::UsageError unknown_command(std::string_view name);

/// The whole program: argv without the program's name. Returns the exit code; what went wrong is one line on
/// stderr.
[[nodiscard]] int run_program(CommandLine command_line);

}  // namespace voca::tools
