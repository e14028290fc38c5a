#include "tests/tools/launch/support/launched_job.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <fstream>
#include <iterator>
#include <sstream>

namespace voca::tools::testing {

namespace fs = std::filesystem;

char state_of(pid_t pid) {
  const std::string stat = read_text("/proc/" + std::to_string(pid) + "/stat");
  const std::size_t name_end = stat.rfind(')');
  return name_end == std::string::npos ? 'X' : stat.at(name_end + 2);
}

bool is_gone(pid_t pid) {
  const char state = state_of(pid);
  return state == 'X' || state == 'Z';
}

Words shell(const std::string& script) {
  return {"sh", "-c", script};
}

LaunchJob::LaunchJob() {
  job_.executable = "/bin/sh";
  job_.grace = {.after_failure = std::chrono::milliseconds(300),
                .after_sigterm = std::chrono::milliseconds(300),
                .after_stop = kTestTimeout};
}

LaunchJob::~LaunchJob() {
  if (launcher_ < 0) return;
  ::kill(launcher_, SIGKILL);
  ::waitpid(launcher_, nullptr, 0);
}

void LaunchJob::start(int ranks, const std::string& script, bool one_file) {
  job_.ranks_per_node = ranks;
  job_.words = shell("cd " + here_.path().string() + "; " + script);
  launcher_ = ::fork();
  ASSERT_GE(launcher_, 0);
  if (launcher_ != 0) return;
  ::setpgid(0, 0);
  constexpr int kFlags = O_WRONLY | O_CREAT | O_APPEND;
  if (job_.out == 1) job_.out = ::open((here_ / "out").c_str(), kFlags, 0600);
  job_.err = one_file ? job_.out : ::open((here_ / "err").c_str(), kFlags, 0600);
  // A single rank shares them.
  ::dup2(job_.out, 1);
  ::dup2(job_.err, 2);
  int code = 99;
  try {
    const JobEnd end = run_job(job_);
    std::ofstream(here_ / "message") << end.message;
    code = end.exit_code;
  } catch (const std::exception& error) {
    std::ofstream(here_ / "message") << error.what();
  }
  ::_exit(code);
}

int LaunchJob::wait() {
  int status = 0;
  const bool ended = comes_true([&] { return ::waitpid(launcher_, &status, WNOHANG) == launcher_; });
  if (!ended) return -1000;
  launcher_ = -1;
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

int LaunchJob::run(int ranks, const std::string& script) {
  start(ranks, script);
  return wait();
}

std::vector<std::string> LaunchJob::sorted_out() const {
  std::vector<std::string> lines = lines_of(out());
  std::sort(lines.begin(), lines.end());
  return lines;
}

std::vector<pid_t> LaunchJob::pids(int ranks) {
  std::vector<pid_t> result(static_cast<std::size_t>(ranks), 0);
  const bool all = comes_true([&] {
    for (int rank = 0; rank < ranks; ++rank) {
      std::istringstream text(read_text(here_ / ("pid." + std::to_string(rank))));
      text >> result[static_cast<std::size_t>(rank)];
    }
    return std::count(result.begin(), result.end(), 0) == 0;
  });
  EXPECT_TRUE(all) << err();
  return result;
}

}  // namespace voca::tools::testing
