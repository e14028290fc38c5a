#include "tools/launch/rank_process.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "engine/base/error.h"
#include "engine/base/path_status.h"
#include "engine/base/system_limits.h"

namespace voca::tools {
namespace {

using engine::IoError;
using engine::UniqueFd;

/// Creates a pipe. Both ends close on exec; a descriptor duplicated onto 0, 1 or 2 stays open.
void make_pipe(UniqueFd& read_end, UniqueFd& write_end) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0)
    throw IoError("launch: a pipe: {}; {}", std::strerror(errno), engine::kRaiseFileLimit);
  read_end.reset(ends[0]);
  write_end.reset(ends[1]);
}

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (const std::string& text : texts) result.push_back(const_cast<char*>(text.c_str()));
  result.push_back(nullptr);
  return result;
}

/// Everything that the child needs between fork and exec, where nothing may allocate.
struct ChildSetup {
  const char* executable;
  char* const* words;
  char* const* environment;
  const sigset_t* signals;
  const cpu_set_t* cores;  // null: unrestricted
  pid_t launcher;
  int in, out, err;  // −1: inherited
  int failure;       // where errno is written if the program cannot be started
};

[[noreturn]] void become_rank(const ChildSetup& setup) {
  // SIGKILL, not SIGTERM: a rank that hangs in a collective must not outlive its launcher either. If the
  // launcher died before the call, no signal is sent, but the parent is another process by now.
  const bool bound = ::prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && ::getppid() == setup.launcher;
  // Failure is ignored: the system may have withdrawn the cores meanwhile.
  if (setup.cores != nullptr) static_cast<void>(::sched_setaffinity(0, sizeof(cpu_set_t), setup.cores));
  const bool connected = (setup.in < 0 || ::dup2(setup.in, STDIN_FILENO) >= 0) &&
                         (setup.out < 0 || ::dup2(setup.out, STDOUT_FILENO) >= 0) &&
                         (setup.err < 0 || ::dup2(setup.err, STDERR_FILENO) >= 0);
  if (bound && connected) {
    // Ignored signals and the mask would be inherited by the new program.
    std::signal(SIGPIPE, SIG_DFL);
    ::sigprocmask(SIG_SETMASK, setup.signals, nullptr);
    ::execve(setup.executable, setup.words, setup.environment);
  }
  const int error = errno;
  static_cast<void>(::write(setup.failure, &error, sizeof(error)) == 0);
  ::_exit(static_cast<int>(engine::ExitCode::kIo));
}

struct Meaning {
  int code;
  std::string_view text;
};
constexpr std::array<Meaning, 5> kMeanings{{{64, "an option is wrong"},
                                            {65, "a file is not what it should be"},
                                            {70, "a defect of the program"},
                                            {74, "the system refused something, or another rank was lost"},
                                            {75, "stopped by a signal, the state was saved"}}};

}  // namespace

RankProcess::RankProcess(const RankCommand& command, const sigset_t& signals) : rank_(command.rank) {
  UniqueFd in;
  UniqueFd out;
  UniqueFd err;
  if (!command.shares_output) {
    in.reset(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    if (!in) throw IoError("/dev/null: {}", std::strerror(errno));
    make_pipe(out_, out);
    make_pipe(err_, err);
    for (const int end : {out_.get(), err_.get()}) ::fcntl(end, F_SETFL, O_NONBLOCK);
  }
  UniqueFd failure_seen;
  UniqueFd failure;
  make_pipe(failure_seen, failure);

  cpu_set_t cores;
  CPU_ZERO(&cores);
  for (const int core : command.cores) CPU_SET(static_cast<std::size_t>(core), &cores);
  const std::vector<char*> words = pointers(command.words);
  const std::vector<char*> environment = pointers(command.environment);
  const ChildSetup setup{.executable = command.executable.c_str(),
                         .words = words.data(),
                         .environment = environment.data(),
                         .signals = &signals,
                         .cores = command.cores.empty() ? nullptr : &cores,
                         .launcher = ::getpid(),
                         .in = in.get(),
                         .out = out.get(),
                         .err = err.get(),
                         .failure = failure.get()};
  pid_ = ::fork();
  if (pid_ == 0) become_rank(setup);
  const int fork_error = errno;
  failure.reset();
  if (pid_ < 0) {
    throw IoError("launch: rank {} cannot be started: {}; {}", rank_, std::strerror(fork_error),
                  engine::kRaiseProcessLimits);
  }
  // The child's write end closes when the program starts.
  int error = 0;
  if (engine::uninterrupted([&] { return ::read(failure_seen.get(), &error, sizeof(error)); }) == 0) return;
  ::waitpid(pid_, nullptr, 0);
  throw IoError("launch: rank {}: {} cannot be started: {}", rank_, command.executable, std::strerror(error));
}

RankProcess::~RankProcess() {
  if (status_) return;
  ::kill(pid_, SIGKILL);
  engine::uninterrupted([&] { return ::waitpid(pid_, nullptr, 0); });
}

void RankProcess::signal(int number) const {
  if (!status_) ::kill(pid_, number);
}

std::optional<int> RankProcess::status() {
  int status = 0;
  if (!status_ && ::waitpid(pid_, &status, WNOHANG) == pid_) status_ = status;
  return status_;
}

bool RankProcess::is_stopped() const {
  siginfo_t info{};
  const int kinds = WSTOPPED | WNOHANG | WNOWAIT;
  return !status_ && ::waitid(P_PID, static_cast<id_t>(pid_), &info, kinds) == 0 && info.si_pid == pid_;
}

std::string describe_end(int status) {
  if (WIFSIGNALED(status)) {
    const char* name = ::sigabbrev_np(WTERMSIG(status));
    return name == nullptr ? fmt::format("ended by signal {}", WTERMSIG(status))
                           : fmt::format("ended by SIG{}", name);
  }
  const int code = WEXITSTATUS(status);
  const auto* const known = std::ranges::find(kMeanings, code, &Meaning::code);
  return fmt::format("exit code {}{}", code,
                     known == kMeanings.end() ? "" : fmt::format(" ({})", known->text));
}

int exit_code_of(int status) {
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace voca::tools
