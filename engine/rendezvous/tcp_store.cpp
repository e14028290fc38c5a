#include "engine/rendezvous/tcp_store.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <thread>
#include <utility>

#include "engine/comm/communication_error.h"
#include "engine/rendezvous/memory_store.h"

namespace voca::engine {
namespace {

constexpr double kSliceSeconds = 0.2;
/// Minimum timeout for an immediate response, for loaded machines.
constexpr double kMinTimeout = 5;
/// Timeout for the last message to rank 0, which may hang.
constexpr double kFarewellSeconds = 5;

std::int64_t number_in(const std::string& answer) {
  MessageReader message(answer);
  message.expect(MessageType::kNumber);
  const auto number = static_cast<std::int64_t>(message.u64());
  message.finish();
  return number;
}

}  // namespace

void throw_end(MessageReader& end) {
  const auto code = static_cast<ExitCode>(end.u8());
  const std::string reason = end.text(kMaxReason);
  end.finish();
  if (code == ExitCode::kUsage) throw UsageError("{}", reason);
  throw CommunicationError("{}", reason);
}

TcpStore::TcpStore(Channel channel, int rank, double answer_seconds)
    : channel_(std::move(channel)),
      rank_(rank),
      answer_seconds_(answer_seconds),
      exceptions_(std::uncaught_exceptions()) {}

TcpStore::~TcpStore() {
  if (is_broken_ || std::uncaught_exceptions() > exceptions_) return;
  try {
    channel_.send(MessageWriter(MessageType::kGoodbye).frame(), seconds_from_now(1));
  } catch (const Error&) {
    return;  // rank 0 is gone; there is no one left to notify
  }
}

std::string TcpStore::ask(const std::string& frame, const std::string& what, double seconds) {
  const Deadline deadline = seconds_from_now(seconds);
  std::string answer;
  try {
    if (is_broken_) throw CommunicationError("rank 0 has not answered before");
    channel_.send(frame, deadline);
    // Notices of the rendezvous may still be in flight.
    do {
      if (!channel_.receive(answer, deadline))
        throw CommunicationError("rank 0 has not answered for {:.1f} s", seconds);
    } while (MessageReader(answer).type() == MessageType::kWaiting);
  } catch (const Error& error) {
    is_broken_ = true;
    throw CommunicationError("rank {}, {}: {}", rank_, what, error.what());
  }
  MessageReader message(answer);
  if (message.type() == MessageType::kEnd) throw_end(message);
  if (message.type() == MessageType::kRefused)
    throw InternalError("{}", message.text(BoundedDictionary::kMaxValue));
  return answer;
}

void TcpStore::set(const std::string& key, const std::string& value) {
  const std::lock_guard lock(mutex_);
  // Checked before sending: rank 0 treats a longer message as malformed.
  if (key.size() > BoundedDictionary::kMaxKey || value.size() > BoundedDictionary::kMaxValue) {
    throw InternalError("the ranks' store: {} has {} bytes, expected at most {}", key.substr(0, 256),
                        value.size(), BoundedDictionary::kMaxValue);
  }
  const std::string answer =
      ask(MessageWriter(MessageType::kSet).text(key).text(value).frame(), "setting " + key, answer_seconds_);
  MessageReader(answer).expect(MessageType::kDone);
}

std::string TcpStore::get(const std::string& key, Deadline deadline) {
  const auto started = std::chrono::steady_clock::now();
  for (;;) {
    const double left = std::clamp(seconds_until(deadline), 0.0, kSliceSeconds);
    const auto wait = static_cast<std::uint32_t>(std::ceil(left * 1e3));
    {
      const std::lock_guard lock(mutex_);
      const double timeout = std::min(answer_seconds_, std::max(seconds_until(deadline), 0.0) + kMinTimeout);
      const std::string answer = ask(MessageWriter(MessageType::kGet).text(key).u32(wait).frame(),
                                     "waiting for " + key, left + timeout);
      MessageReader message(answer);
      if (message.type() != MessageType::kAbsent) {
        message.expect(MessageType::kValue);
        return message.text(BoundedDictionary::kMaxValue);
      }
    }
    if (seconds_until(deadline) <= 0) {
      throw CommunicationError("rank {}, waiting for {}: no rank has set it within {:.1f} s", rank_, key,
                               -seconds_until(started));
    }
    // Long enough for another thread to take the lock.
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

std::int64_t TcpStore::add(const std::string& key, std::int64_t amount) {
  const std::lock_guard lock(mutex_);
  return number_in(
      ask(MessageWriter(MessageType::kAdd).text(key).u64(static_cast<std::uint64_t>(amount)).frame(),
          "adding to " + key, answer_seconds_));
}

bool TcpStore::has(const std::string& key) {
  const std::lock_guard lock(mutex_);
  return number_in(ask(MessageWriter(MessageType::kHas).text(key).frame(), "asking for " + key,
                       answer_seconds_)) != 0;
}

std::string TcpStore::fail(const std::string& why) {
  const std::lock_guard lock(mutex_);
  try {
    static_cast<void>(ask(MessageWriter(MessageType::kFailed).text(why.substr(0, kMaxReason)).frame(),
                          "telling of a failure", kFarewellSeconds));
  } catch (const Error& error) {
    return error.what();
  }
  return why;
}

}  // namespace voca::engine
