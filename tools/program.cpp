#include <fmt/format.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <exception>
#include <iostream>
#include <new>
#include <string>

#include "engine/error.h"
#include "kernels/cpu/features.h"
#include "tools/commands.h"
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

std::string usage() {
  std::string text = version_line() +
                     "\nTrains, evaluates and runs a detector of audio-visual deepfakes.\n\n"
                     "usage: voca-engine <command> [options]\n\n";
  for (const Command& command : kCommands) text += fmt::format("  {:<9}{}\n", command.name, command.summary);
  return text + "\nvoca-engine <command> --help lists the options of a command.\n";
}

void run_command(CommandLine command_line) {
  const std::string_view name = command_line.empty() ? std::string_view() : command_line[0];
  if (name == "--help" || name == "-h" || name == "help") {
    std::cout << usage();
    return;
  }
  if (name == "--version" || name == "version") {
    std::cout << version_line() << '\n';
    return;
  }
  const auto command =
      std::find_if(kCommands.begin(), kCommands.end(), [&](const Command& c) { return c.name == name; });
  if (command == kCommands.end()) {
    std::cerr << usage() << '\n';
    if (name.empty()) throw engine::UsageError("a command is needed");
    throw engine::UsageError("no such command: {}", name);
  }
  command->run(command_line.subspan(1));
}

int report(engine::ExitCode code, const char* message) {
  std::cout.flush();
  std::cerr << "voca-engine: " << message << '\n';
  return static_cast<int>(code);
}

}  // namespace

std::span<const Command> commands() {
  return kCommands;
}

int run_program(CommandLine command_line) {
  try {
    if (const std::string missing = kernels::cpu::missing_instruction_set(); !missing.empty()) {
      throw engine::UsageError(
          "this program was built for CPUs with {}, which this one lacks; build it here, or with "
          "-DVOCA_CPU_ARCH=x86-64-v2",
          missing);
    }
    // A file that grows beyond a limit is an error of its write.
    std::signal(SIGXFSZ, SIG_IGN);
    // Results go to stdout alone.
    auto logger = spdlog::stderr_logger_mt("voca-engine");
    logger->set_pattern("%l: %v");
    spdlog::set_default_logger(std::move(logger));
    run_command(command_line);
    std::cout.flush();
    if (!std::cout) throw engine::IoError("stdout: cannot be written");
    return static_cast<int>(engine::ExitCode::kDone);
  } catch (const engine::Error& error) {
    return report(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return report(engine::ExitCode::kIo, "out of memory");
  } catch (const std::exception& error) {
    return report(engine::ExitCode::kInternal, error.what());
  }
}

}  // namespace voca::tools
