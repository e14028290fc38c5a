#include "engine/base/signals.h"

#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "engine/base/error.h"

namespace voca::engine {
namespace {

// The only state that handlers access.
std::atomic<int> installed = 0;
std::atomic<int> first_signal = 0;
std::atomic<bool> interrupted = false;
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

void on_signal(int number) {
  if (number == SIGINT && interrupted.exchange(true)) {
    // Second Ctrl-C: end as the shell expects of SIGINT. The signal is delivered when this handler returns.
    struct sigaction standard {};
    standard.sa_handler = SIG_DFL;
    ::sigaction(SIGINT, &standard, nullptr);
    ::kill(::getpid(), SIGINT);
    return;
  }
  int none = 0;
  first_signal.compare_exchange_strong(none, number);
}

}  // namespace

StopSignals::StopSignals() : outermost_(installed++ == 0) {
  if (!outermost_) return;
  first_signal = 0;
  interrupted = false;
  for (std::size_t i = 0; i < std::size(kSignals); ++i) {
    struct sigaction action {};
    action.sa_handler = kSignals[i] == SIGPIPE ? SIG_IGN : on_signal;
    action.sa_flags = SA_RESTART;  // interrupted reads and writes restart
    sigemptyset(&action.sa_mask);
    if (::sigaction(kSignals[i], &action, &before_[i]) != 0) {
      --installed;
      throw InternalError("signals: cannot install a handler: {}", std::strerror(errno));
    }
    // SIGHUP ignored (nohup): the process is to outlive its terminal.
    if (kSignals[i] == SIGHUP && before_[i].sa_handler == SIG_IGN) ::sigaction(SIGHUP, &before_[i], nullptr);
  }
}

StopSignals::~StopSignals() {
  --installed;
  if (!outermost_) return;
  for (std::size_t i = 0; i < std::size(kSignals); ++i) ::sigaction(kSignals[i], &before_[i], nullptr);
}

int StopSignals::signal() const noexcept {
  return first_signal;
}

const char* StopSignals::reason() const noexcept {
  for (const auto& [number, name] : {std::pair{SIGTERM, "SIGTERM"}, {SIGINT, "SIGINT"}, {SIGHUP, "SIGHUP"}})
    if (signal() == number) return name;
  return signal() == 0 ? nullptr : "SIGUSR1";
}

void StopSignals::check(const char* what) const {
  if (signal() == 0) return;
  throw Stopped(signal(), fmt::format("{}: stopped by {}; nothing is left of it", what, reason()));
}

}  // namespace voca::engine
