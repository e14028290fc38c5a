#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "tests/data/support/scratch.h"
#include "tests/tools/support/program.h"
#include "tools/launch/job.h"

// Launchers are processes of their own, their ranks shell scripts that do what a training rank does or should
// not do.

namespace voca::tools::testing {

/// Of the tests, for what takes a fraction of a second.
inline constexpr std::chrono::seconds kTestTimeout{30};

/// Whether it came true in time.
template <typename Condition>
bool comes_true(Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + kTestTimeout;
  while (std::chrono::steady_clock::now() < deadline) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return condition();
}

/// 'R' running, 'Z' ended and not waited for, …; 'X' when there is no such process.
[[nodiscard]] char state_of(pid_t pid);
[[nodiscard]] bool is_gone(pid_t pid);

/// What runs a script.
[[nodiscard]] Words shell(const std::string& script);
/// Of a script: the rank's pid into a file named for it.
inline const std::string kWritePid =
    "echo $$ > tmp.$RANK; mv tmp.$RANK pid.$RANK; ";  // NOLINT(cert-err58-cpp)

class LaunchJob : public ::testing::Test {
 protected:
  LaunchJob();
  ~LaunchJob() override;

  /// Starts a launcher with `ranks` of `script`; what they print goes to two files, or to one. job_ as it is
  /// then.
  void start(int ranks, const std::string& script, bool one_file = false);
  /// Its exit code, −signal, or −1000 when it does not end.
  int wait();
  int run(int ranks, const std::string& script);
  [[nodiscard]] std::string out() const { return read_text(here_ / "out"); }
  [[nodiscard]] std::string err() const { return read_text(here_ / "err"); }
  [[nodiscard]] std::string message() const { return read_text(here_ / "message"); }
  /// Lines of stdout, sorted: ranks run as they please.
  [[nodiscard]] std::vector<std::string> sorted_out() const;
  /// Waits until each rank has written its pid to a file named for it, and returns them.
  [[nodiscard]] std::vector<pid_t> pids(int ranks);

  data::testing::Scratch here_;
  Job job_;
  pid_t launcher_ = -1;
};

}  // namespace voca::tools::testing
