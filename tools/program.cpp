#include <fmt/format.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <exception>
#include <iostream>
#include <new>
#include <string>
#include <system_error>

#include "engine/base/error.h"
#include "engine/base/memory_limits.h"
#include "engine/base/signals.h"
#include "engine/base/terminal.h"
#include "engine/base/text.h"
#include "kernels/cpu/levels.h"
#include "tools/commands.h"
#include "tools/did_you_mean.h"
#include "tools/log_sink.h"
#include "tools/version.h"

namespace voca::tools {
namespace {

constexpr std::array<Command, 9> kCommands{{
    {"synth", "writes a feature tree to try the program with", synth},
    {"pack", "packs a feature tree into one file, naming what is wrong with it", pack},
    {"inspect", "says what is in a packed dataset, a checkpoint or a run folder", inspect},
    {"train", "trains a detector", train},
    {"eval", "measures a checkpoint on a split", eval},
    {"predict", "writes a checkpoint's verdict on every video as CSV", predict},
    {"plan", "says what a training would take: parameters, memory, operations", plan},
    {"launch", "starts a training on several ranks", launch},
    {"doctor", "checks this build and this machine", doctor},
}};

constexpr std::string_view kMarkdownHead =
    "# Options\n\n"
    "Every option of every command with its default, as the program has it. This page is made by\n"
    "`voca-engine help --markdown >docs/options.md`, and a test compares it. An empty default is none. Names "
    "may be\n"
    "written with dashes, values behind `=` or as the next word. A switch, whose default is `off`, is given "
    "alone,\n"
    "or with `true` or `false`.\n";

std::string usage() {
  constexpr std::size_t kColumn = 11;
  std::string text = version_line() +
                     "\nTrains, evaluates and runs a detector of audio-visual deepfakes.\n\n"
                     "usage: voca-engine <command> [options]\n\n";
  const int columns = engine::terminal_columns(STDOUT_FILENO);
  for (const Command& command : kCommands)
    text += engine::wrapped(fmt::format("  {:<9}{}\n", command.name, command.summary), columns, kColumn);
  return text + engine::wrapped("\nvoca-engine help <command> lists the options of a command.\n", columns, 0);
}

const Command& command_of(std::string_view name) {
  if (const Command* command = find_command(name)) return *command;
  if (name.starts_with("-"))
    throw engine::UsageError("a command is needed before {}; voca-engine help lists them", name);
  throw unknown_command(name);
}

/// Handles "help", "help train" and "help --markdown".
void help(CommandLine words) {
  if (words.size() > 1)
    throw engine::UsageError("help: \"{}\" is one word too many; voca-engine help <command>", words[1]);
  if (words.empty()) {
    std::cout << usage();
  } else if (std::string_view(words[0]) == "--markdown") {
    std::cout << kMarkdownHead;
    for (const Command& command : kCommands) {
      std::cout << '\n';
      command.run(std::array{"--help=markdown"});
    }
  } else {
    command_of(words[0]).run(std::array{"--help"});
  }
}

void run_command(CommandLine command_line) {
  if (command_line.empty()) {
    engine::write_at_once(STDERR_FILENO, usage() + '\n');
    throw engine::UsageError("a command is needed");
  }
  const std::string_view name = command_line[0];
  const CommandLine rest = command_line.subspan(1);
  if (name == "--help" || name == "-h" || name == "help") return help(rest);
  if (name == "--version" || name == "version") {
    if (!rest.empty()) throw engine::UsageError("{}: takes no options ({})", name, rest[0]);
    std::cout << version_line() << '\n';
    return;
  }
  command_of(name).run(rest);
}

/// Prints an error in a single write, since other ranks may write to the same stream. Usage and data errors
/// are one line, whatever the names in them contain; other errors may include a table. Returns the exit code.
int report(engine::ExitCode code, const std::string& message) {
  std::cout.flush();
  const bool one_line = code == engine::ExitCode::kUsage || code == engine::ExitCode::kBadData;
  const std::string text =
      one_line ? engine::printable(message, message.size()) : engine::printable_lines(message);
  engine::write_at_once(STDERR_FILENO, fmt::format("voca-engine: {}\n", text));
  return static_cast<int>(code);
}

/// The error for an unwritten result: Stopped by SIGPIPE if the reader has closed stdout, as `… | head -1`
/// does. Throws IoError otherwise.
engine::Stopped unwritten_stdout() {
  pollfd out{.fd = STDOUT_FILENO, .events = POLLOUT, .revents = 0};
  if (::poll(&out, 1, 0) == 1 && (out.revents & POLLERR) != 0) return {SIGPIPE, "stdout: its reader is gone"};
  throw engine::IoError("stdout: cannot be written");
}

/// Ends the process by the same signal. SIGPIPE gets no message: nobody reads it, and nothing is wrong.
int end_as_by(const engine::Stopped& stopped) {
  if (stopped.signal() != SIGPIPE) static_cast<void>(report(stopped.code(), stopped.what()));
  std::signal(stopped.signal(), SIG_DFL);
  std::raise(stopped.signal());
  return static_cast<int>(stopped.code());
}

/// Message for a failed allocation.
std::string out_of_memory_text() {
  try {
    return fmt::format(
        "out of memory; {} now: raise the limit, or take smaller sizes (of a training plan has the table)",
        engine::free_host_memory().text());
  } catch (const std::bad_alloc&) {
    return "out of memory";
  }
}

/// Throws UsageError if this processor cannot run the CPU kernels.
void choose_kernels() {
  try {
    static_cast<void>(kernels::cpu::level());
  } catch (const std::runtime_error& error) {
    throw engine::UsageError("{}", error.what());
  }
}

}  // namespace

const Command* find_command(std::string_view name) {
  const auto command = std::ranges::find(kCommands, name, &Command::name);
  return command == kCommands.end() ? nullptr : &*command;
}

engine::UsageError unknown_command(std::string_view name) {
  std::array<std::string_view, kCommands.size()> names;
  std::ranges::transform(kCommands, names.begin(), &Command::name);
  if (const std::string near = did_you_mean(name, names); !near.empty())
    return engine::UsageError("unknown command \"{}\", did you mean \"{}\"?", name, near);
  return engine::UsageError("unknown command \"{}\"; there are {}", name, fmt::join(names, ", "));
}

int run_program(CommandLine command_line) {
  try {
    choose_kernels();
    // Writing beyond a file size limit is then an error of the write.
    std::signal(SIGXFSZ, SIG_IGN);
    // So is writing to a pipe without a reader: a lost progress line must not abort the work.
    std::signal(SIGPIPE, SIG_IGN);
    // The log goes to stderr: stdout is for results.
    spdlog::set_default_logger(stderr_logger());
    run_command(command_line);
    std::cout.flush();
    if (!std::cout) throw unwritten_stdout();
    return static_cast<int>(engine::ExitCode::kDone);
  } catch (const engine::Stopped& stopped) {
    return end_as_by(stopped);
  } catch (const engine::Error& error) {
    return report(error.code(), error.what());
  } catch (const std::system_error& error) {  // from std::filesystem; includes the path
    return report(engine::ExitCode::kIo, error.what());
  } catch (const std::bad_alloc&) {
    return report(engine::ExitCode::kIo, out_of_memory_text());
  } catch (const std::exception& error) {
    return report(engine::ExitCode::kInternal, error.what());
  }
}

}  // namespace voca::tools
