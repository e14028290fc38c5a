#include "engine/rendezvous/watchdog.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <exception>
#include <utility>

#include "engine/base/thread.h"
#include "engine/comm/communication_error.h"

namespace voca::engine {
namespace {

constexpr double kHeartbeatSeconds = 0.5;
/// Timeout for the last message to rank 0, which may be gone.
constexpr double kFarewellSeconds = 1;
constexpr Deadline kAtOnce{};

}  // namespace

void Watchdog::end_process(const std::string& reason) {
  const std::string line = "voca-engine: " + reason + "\n";
  static_cast<void>(::write(STDERR_FILENO, line.data(), line.size()));
  ::_exit(static_cast<int>(ExitCode::kIo));
}

Watchdog::Watchdog(Rendezvous& rendezvous, double comm_timeout_seconds, OnFailure on_failure)
    : rendezvous_(rendezvous),
      timeout_seconds_(comm_timeout_seconds),
      on_failure_(std::move(on_failure)),
      exceptions_(std::uncaught_exceptions()) {
  doing("the start");
  if (rendezvous_.world_size() == 1) return;
  wake_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (wake_.get() < 0) throw IoError("an event for the watchdog: {}", std::strerror(errno));
  channel_ = std::make_unique<Channel>(
      connect_to_rank(rendezvous_.environment(), Purpose::kWatch, 0, rendezvous_.coordinator_address(),
                      rendezvous_.environment().rendezvous_port, seconds_from_now(timeout_seconds_)));
  const double milliseconds = std::clamp(std::ceil(timeout_seconds_ * 1e3), 1.0, 4e9);
  channel_->send(MessageWriter(MessageType::kWatch).u32(static_cast<std::uint32_t>(milliseconds)).frame(),
                 seconds_from_now(timeout_seconds_));
  heard_ = clock_.now();
  thread_ = start_thread<std::thread>("the watchdog", [this] { watch(); });
}

Watchdog::~Watchdog() {
  if (std::uncaught_exceptions() > exceptions_) {
    fail("it ended with an error, which it tells itself");
  } else {
    say_goodbye();
  }
}

void Watchdog::say_goodbye() {
  leave_with(MessageWriter(MessageType::kGoodbye));
}

void Watchdog::leave_with(const MessageWriter& last) {
  if (!channel_) return;
  stop();
  try {
    channel_->send(last.frame(), seconds_from_now(kFarewellSeconds));
  } catch (const Error&) {
    // Rank 0 is gone: there is no one left to notify, or the others detect it themselves.
  }
  channel_.reset();
}

void Watchdog::leave() {
  say_goodbye();
  rendezvous_.leave();
}

void Watchdog::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  const std::uint64_t one = 1;
  static_cast<void>(::write(wake_.get(), &one, sizeof one));
  if (thread_.joinable()) thread_.join();
}

bool Watchdog::is_stopping() {
  const std::lock_guard lock(mutex_);
  return stopping_;
}

void Watchdog::doing(const char* what) {
  const std::size_t length = ::strnlen(what, kMaxDoing - 1);
  const std::lock_guard lock(mutex_);
  std::memcpy(doing_, what, length);
  doing_[length] = '\0';
  ++progress_;
}

void Watchdog::fail(const std::string& why) {
  const int rank = rendezvous_.rank();
  const std::string told =
      fmt::format("{} failed: {}", describe(rank, rendezvous_.facts()[static_cast<std::size_t>(rank)]), why);
  leave_with(MessageWriter(MessageType::kFailed).text(told.substr(0, kMaxReason)));
}

std::string Watchdog::reason(Deadline deadline) {
  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, deadline, [&] { return !reason_.empty(); });
  return reason_;
}

void Watchdog::watch() {
  try {
    while (!is_stopping()) {
      report();
      if (!listen(kHeartbeatSeconds)) return;
    }
  } catch (const Error&) {
    if (!is_stopping()) {
      failed(fmt::format("{} was lost; it was last at: {}", describe(0, rendezvous_.facts().front()),
                         rank_0_at_));
    }
  }
}

void Watchdog::report() {
  MessageWriter heartbeat(MessageType::kHeartbeat);
  {
    const std::lock_guard lock(mutex_);
    heartbeat.u64(progress_).text(doing_);
  }
  channel_->send(heartbeat.frame(), seconds_from_now(timeout_seconds_));
}

bool Watchdog::listen(double seconds) {
  const Deadline until = seconds_from_now(seconds);
  while (!is_stopping()) {
    std::string payload;
    while (channel_->receive(payload, kAtOnce))
      if (!handle(payload)) return false;
    const double left = seconds_until(until);
    if (left <= 0) break;
    std::array<pollfd, 2> waited{{{channel_->socket(), POLLIN, 0}, {wake_.get(), POLLIN, 0}}};
    ::poll(waited.data(), waited.size(), static_cast<int>(std::ceil(left * 1e3)));
  }
  const double silent = std::chrono::duration<double>(clock_.now() - heard_).count();
  if (silent <= timeout_seconds_ || is_stopping()) return true;
  failed(silence(0, rendezvous_.facts().front(), silent, rank_0_at_));
  return false;
}

bool Watchdog::handle(const std::string& payload) {
  heard_ = clock_.now();
  MessageReader message(payload);
  switch (message.type()) {
    case MessageType::kPulse:
      rank_0_at_ = message.text(kMaxReason);
      return true;
    case MessageType::kEnd: {
      static_cast<void>(message.u8());  // exit code: always that of CommunicationError here
      failed(message.text(kMaxReason));
      return false;
    }
    default:
      message.expect(MessageType::kClosing);
      return false;  // orderly shutdown of rank 0
  }
}

void Watchdog::failed(const std::string& reason) {
  {
    std::unique_lock lock(mutex_);
    reason_ = reason;
    changed_.notify_all();
    const Deadline until = seconds_from_now(kGraceSeconds);
    if (changed_.wait_until(lock, until, [&] { return stopping_; })) return;
  }
  on_failure_(reason);
}

}  // namespace voca::engine
