#include "tools/launch/output_relay.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>

namespace voca::tools {
namespace {

/// The part of a line that a terminal shows in the end.
std::string_view after_carriage_returns(std::string_view line) {
  while (line.ends_with('\r')) line.remove_suffix(1);
  const std::size_t last = line.rfind('\r');
  return last == line.npos ? line : line.substr(last + 1);
}

bool is_writable(int descriptor) {
  pollfd entry{.fd = descriptor, .events = POLLOUT, .revents = 0};
  return ::poll(&entry, 1, 0) > 0;
}

}  // namespace

void LineCutter::add(std::string_view bytes, const Visit& visit) {
  open_ += bytes;
  std::string_view rest = open_;
  for (std::size_t end = 0; (end = rest.find('\n')) != rest.npos; rest.remove_prefix(end + 1)) {
    std::string_view line = after_carriage_returns(rest.substr(0, end));
    for (; line.size() > kMaxLine; line.remove_prefix(kMaxLine)) visit(line.substr(0, kMaxLine));
    visit(line);
  }
  if (rest.size() >= kMaxLine) rest = after_carriage_returns(rest);
  for (; rest.size() >= kMaxLine; rest.remove_prefix(kMaxLine)) visit(rest.substr(0, kMaxLine));
  open_ = std::string(rest);
}

void LineCutter::finish(const Visit& visit) {
  if (!open_.empty()) add("\n", visit);
}

void OutputRelay::add(Stream stream, std::string lines) {
  if (lines.empty()) return;
  queued_ += lines.size();
  queue_.push_back({static_cast<std::size_t>(stream), std::move(lines)});
}

int OutputRelay::waiting_for() const {
  return queue_.empty() ? -1 : descriptors_[queue_.front().stream];
}

void OutputRelay::write_some() {
  while (!queue_.empty() && is_writable(waiting_for())) {
    auto& [stream, text] = queue_.front();
    std::size_t done = text.size();  // without a reader, everything is dropped
    if (!broken_[stream]) {
      // Writing PIPE_BUF bytes never blocks on a pipe that poll() reports as writable.
      const ssize_t written =
          ::write(descriptors_[stream], text.data(), std::min<std::size_t>(done, PIPE_BUF));
      if (written < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      broken_[stream] = written < 0;
      if (written >= 0) done = static_cast<std::size_t>(written);
    }
    text.erase(0, done);
    queued_ -= done;
    if (text.empty()) queue_.pop_front();
  }
}

}  // namespace voca::tools
