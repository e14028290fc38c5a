#include "tools/launch/rank_group.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <string_view>

#include "engine/base/error.h"
#include "engine/rendezvous/rank_facts.h"

namespace voca::tools {
namespace {

using engine::ExitCode;
using std::chrono::duration_cast;
using std::chrono::milliseconds;

/// Prefix that run_program() writes before an error, in the last line of a rank that fails.
constexpr std::string_view kErrorLine = "voca-engine: ";
constexpr std::size_t kMaxSaid = 500;
/// Longest poll() in ms while a deadline runs: RunningClock must be queried twice per second.
constexpr std::int64_t kMaxWait = 500;

bool is_ignored(int number) {
  struct sigaction action {};
  ::sigaction(number, nullptr, &action);
  return action.sa_handler == SIG_IGN;
}

double seconds(GracePeriods::Duration duration) {
  return std::chrono::duration<double>(duration).count();
}

bool is_failure(int status) {
  const int code = exit_code_of(status);
  return code != static_cast<int>(ExitCode::kDone) && code != static_cast<int>(ExitCode::kInterrupted);
}

}  // namespace

LauncherSignals::LauncherSignals() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int number : {SIGTERM, SIGINT, SIGUSR1, SIGCHLD}) ::sigaddset(&set, number);
  // A blocked signal arrives at the signalfd even if it is ignored.
  if (!is_ignored(SIGHUP)) ::sigaddset(&set, SIGHUP);
  file_.reset(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (file_.get() < 0) throw engine::IoError("launch: signalfd: {}", std::strerror(errno));
  ::sigprocmask(SIG_BLOCK, &set, &before_);
  struct sigaction action {};
  ::sigemptyset(&action.sa_mask);
  action.sa_handler = SIG_IGN;
  ::sigaction(SIGPIPE, &action, &pipe_before_);
  // If SIGCHLD is ignored, children leave no status.
  action.sa_handler = SIG_DFL;
  ::sigaction(SIGCHLD, &action, &child_before_);
}

LauncherSignals::~LauncherSignals() {
  // A repeated signal must not end the launcher now, in place of its exit code.
  while (next() != 0) {
  }
  ::sigaction(SIGCHLD, &child_before_, nullptr);
  ::sigaction(SIGPIPE, &pipe_before_, nullptr);
  ::sigprocmask(SIG_SETMASK, &before_, nullptr);
}

int LauncherSignals::next() {
  signalfd_siginfo info{};
  if (::read(file_.get(), &info, sizeof(info)) != static_cast<ssize_t>(sizeof(info))) return 0;
  return static_cast<int>(info.ssi_signo);
}

GroupEnd RankGroup::run(const std::vector<RankCommand>& commands) {
  take_signals();
  if (end_.stop_signal != 0) return end_;
  end_.started = true;
  for (const RankCommand& command : commands) start(command);
  while (running() > 0) {
    wait_for_something();
    relay_.write_some();
    if (!relay_.is_full()) {
      for (Member& member : members_)
        for (Output& output : member.outputs) relay_output(output);
    }
    take_signals();
    reap();
    kill_silent();
    tell_of_a_stop();
    watch_stragglers();
    keep_deadlines();
  }
  find_cause();
  return end_;
}

void RankGroup::start(const RankCommand& command) {
  Member member;
  member.process = std::make_unique<RankProcess>(command, signals_.mask_before());
  if (!command.shares_output) {
    const std::string prefix = rank_prefix(command.rank);
    member.outputs.push_back(
        {member.process->out(), OutputRelay::Stream::kOut, plain_stdout_ ? std::string() : prefix});
    member.outputs.push_back({member.process->err(), OutputRelay::Stream::kErr, prefix});
  }
  members_.push_back(std::move(member));
}

void RankGroup::wait_for_something() {
  std::vector<pollfd> entries{{.fd = signals_.descriptor(), .events = POLLIN, .revents = 0}};
  entries.push_back({.fd = relay_.waiting_for(), .events = POLLOUT, .revents = 0});
  if (!relay_.is_full()) {
    for (const Member& member : members_) {
      for (const Output& output : member.outputs)
        entries.push_back({.fd = output.descriptor, .events = POLLIN, .revents = 0});
    }
  }
  ::poll(entries.data(), entries.size(), milliseconds_to_deadline());
}

void RankGroup::take_signals() {
  while (const int number = signals_.next())
    if (number != SIGCHLD) on_stop(number);
}

void RankGroup::on_stop(int number) {
  const Clock::Time now = clock_.now();
  if (number == SIGINT) {
    if (interrupted_at_ && now - *interrupted_at_ >= grace_.of_one_keystroke) {
      say("launch: SIGINT again: the ranks are killed");
      signal_all(SIGKILL);
      return;
    }
    if (!interrupted_at_) interrupted_at_ = now;
  }
  // A rank exits at a second SIGINT, and a terminal sends it one besides ours. SIGTERM also asks it to stop,
  // and may be repeated.
  signal_all(number == SIGUSR1 ? SIGUSR1 : SIGTERM);
  if (end_.stop_signal != 0) return;
  end_.stop_signal = number;
  if (running() == 0) return;
  kill_at_ = std::min(kill_at_.value_or(Clock::Time::max()), now + grace_.after_stop);
  say(fmt::format("launch: SIG{}: the ranks are asked to save and stop, and have {:.0f} s",
                  ::sigabbrev_np(number), seconds(*kill_at_ - now)));
}

void RankGroup::relay_output(Output& output) {
  if (output.descriptor < 0) return;
  std::array<char, 65536> bytes;
  const ssize_t got = ::read(output.descriptor, bytes.data(), bytes.size());
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  pass_on(output, {bytes.data(), static_cast<std::size_t>(std::max<ssize_t>(got, 0))}, got <= 0);
}

/// Relays the lines that `bytes` complete; `ends`: nothing comes after them.
void RankGroup::pass_on(Output& output, std::string_view bytes, bool ends) {
  std::string lines;
  const auto visit = [&](std::string_view line) {
    if (output.stream == OutputRelay::Stream::kErr && line.starts_with(kErrorLine))
      output.said = line.substr(kErrorLine.size(), kMaxSaid);
    lines.append(output.prefix).append(line) += '\n';
  };
  output.cutter.add(bytes, visit);
  if (ends) {
    output.cutter.finish(visit);
    output.descriptor = -1;
  }
  relay_.add(output.stream, std::move(lines));
}

std::string RankGroup::Member::said() const {
  for (const Output& output : outputs)
    if (!output.said.empty()) return output.said;
  return {};
}

void RankGroup::drain(Member& member) {
  for (Output& output : member.outputs) {
    // What the rank wrote before its end fits its pipe (the largest pipe is 1 MiB). Other processes that have
    // the pipe open are not waited for.
    constexpr int kMaxReads = 16;
    for (int i = 0; i < kMaxReads && output.descriptor >= 0; ++i) relay_output(output);
    pass_on(output, {}, true);
  }
}

void RankGroup::reap() {
  const Member* failed = nullptr;
  const auto is_effect = [](int status) { return exit_code_of(status) == static_cast<int>(ExitCode::kIo); };
  for (Member& member : members_) {
    if (member.ended) continue;
    const std::optional<int> status = member.process->status();
    if (!status) continue;
    member.ended = true;
    member.status = *status;
    drain(member);
    if (exit_code_of(*status) == static_cast<int>(ExitCode::kInterrupted)) end_.saved_and_stopped = true;
    // If several failures are found together, a rank that lost another rank is not the first to fail.
    const bool is_straggler = member.was_ended && all_work_is_done();
    if (is_failure(*status) && !is_straggler &&
        (failed == nullptr || (!is_effect(*status) && is_effect(failed->status))))
      failed = &member;
  }
  if (failed == nullptr) return;
  // A rank that lost another one may end before that one does. Until SIGTERM is sent, every rank ends by
  // itself.
  const bool cause_came_later =
      end_.first_failure && is_effect(end_.first_failure->status) && term_at_ && !is_effect(failed->status);
  if (!end_.first_failure || cause_came_later) on_failure(*failed);
}

void RankGroup::on_failure(const Member& member) {
  end_.first_failure = GroupEnd::Failure{.rank = member.process->rank(),
                                         .pid = member.process->pid(),
                                         .status = member.status,
                                         .said = member.said()};
  if (running() > 0 && !term_at_) term_at_ = clock_.now() + grace_.after_failure;
}

/// The rank of this node that a failed rank names as lost; null if it names none.
const RankGroup::Member* RankGroup::member_named(const std::string& said) const {
  const std::optional<engine::NamedRank> named = engine::named_rank(said);
  if (!named) return nullptr;
  for (const Member& member : members_)
    if (member.process->pid() == named->pid && member.process->rank() == named->rank) return &member;
  return nullptr;
}

/// Kills ranks that were reported as silent, once all others have ended: nothing more can come from them.
void RankGroup::kill_silent() {
  if (!end_.first_failure || running() == 0) return;
  std::vector<const Member*> silent;
  for (const Member& member : members_) {
    if (!member.ended || !is_failure(member.status)) continue;
    const std::optional<engine::NamedRank> named = engine::named_rank(member.said());
    if (named && named->is_silent) silent.push_back(member_named(member.said()));
  }
  const bool all_given_up = std::ranges::all_of(members_, [&](const Member& member) {
    return member.ended || std::ranges::find(silent, &member) != silent.end();
  });
  if (!all_given_up) return;
  kill_rest("did not respond to the other ranks");
  term_at_.reset();
  kill_at_.reset();
}

/// Kills the ranks that still run and were not ended by a signal before.
void RankGroup::kill_rest(const std::string& because) {
  for (Member& member : members_)
    if (!member.ended && !member.was_ended) kill(member, because);
}

void RankGroup::kill(Member& member, const std::string& because) {
  say(fmt::format("launch: rank {} (pid {}) {}: SIGKILL", member.process->rank(), member.process->pid(),
                  because));
  member.was_ended = true;
  member.process->signal(SIGKILL);
}

/// Replaces the first failure, if it was caused by the loss of a rank that failed by itself, by the failure
/// of that rank.
void RankGroup::find_cause() {
  if (!end_.first_failure) return;
  const Member* const cause = member_named(end_.first_failure->said);
  if (cause != nullptr && !cause->was_ended && is_failure(cause->status)) on_failure(*cause);
}

/// Whether no rank has work left: rank 0 ends only when every rank has disconnected.
bool RankGroup::all_work_is_done() const {
  return std::ranges::any_of(members_, [](const Member& m) { return m.process->rank() == 0 && m.is_done(); });
}

/// Reports once that every rank is stopped: the job then waits for whoever stopped it.
void RankGroup::tell_of_a_stop() {
  const bool all = running() > 0 && !end_.first_failure && std::ranges::all_of(members_, [](const Member& m) {
                     return m.ended || m.process->is_stopped();
                   });
  if (all && !all_stopped_) say("launch: every rank is stopped (SIGSTOP); SIGCONT lets them go on");
  all_stopped_ = all;
}

/// Sets a deadline for ranks that remain after others have ended, since nobody else watches them: they may
/// hang at exit, or be stopped. Rank 0 has the time that it needs, unless it is stopped.
void RankGroup::watch_stragglers() {
  const bool all_straggle = !end_.first_failure && std::ranges::any_of(members_, &Member::is_done) &&
                            (all_work_is_done() || std::ranges::all_of(members_, [](const Member& m) {
                               return m.ended || m.process->is_stopped();
                             }));
  const Clock::Time now = clock_.now();
  if (!all_straggle) straggled_at_.reset();
  if (all_straggle && !straggled_at_) straggled_at_ = now + grace_.after_done;
  if (!straggled_at_ || now < *straggled_at_) return;
  kill_rest(fmt::format("did not end within {:.0f} s of the others", seconds(grace_.after_done)));
  straggled_at_ = Clock::Time::max();
}

void RankGroup::keep_deadlines() {
  const Clock::Time now = clock_.now();
  if (running() == 0) return;
  if (term_at_ && now >= *term_at_) {
    say(fmt::format("launch: {} of the ranks still run {:.0f} s after rank {} failed: SIGTERM", running(),
                    seconds(grace_.after_failure), end_.first_failure->rank));
    signal_all(SIGTERM);
    term_at_.reset();
    kill_at_ = std::min(kill_at_.value_or(Clock::Time::max()), now + grace_.after_sigterm);
  }
  if (kill_at_ && now >= *kill_at_) {
    for (Member& member : members_)
      if (!member.ended) kill(member, "did not end in time");
    kill_at_.reset();
    term_at_.reset();
  }
}

void RankGroup::signal_all(int number) {
  for (Member& member : members_) {
    member.was_ended |= !member.ended && (number == SIGTERM || number == SIGKILL);
    member.process->signal(number);
  }
}

void RankGroup::say(const std::string& text) {
  relay_.add(OutputRelay::Stream::kErr, text + '\n');
}

int RankGroup::running() const {
  return static_cast<int>(std::ranges::count(members_, false, &Member::ended));
}

int RankGroup::milliseconds_to_deadline() {
  constexpr Clock::Time kNever = Clock::Time::max();
  const Clock::Time next =
      std::min({term_at_.value_or(kNever), kill_at_.value_or(kNever), straggled_at_.value_or(kNever)});
  if (next == kNever) return -1;
  // Rounded up: a poll() that returned too early would spin until the deadline.
  const auto left = duration_cast<milliseconds>(next - clock_.now()).count() + 1;
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, kMaxWait));
}

}  // namespace voca::tools
