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
  while (!bytes.empty()) {
    const std::size_t newline = bytes.find('\n');
    const std::size_t room = kMaxLine - open_.size();
    const bool ends = newline != bytes.npos && newline <= room;
    const std::size_t taken = ends ? newline : std::min(bytes.size(), room);
    open_ += bytes.substr(0, taken);
    bytes.remove_prefix(ends ? taken + 1 : taken);
    if (!ends && open_.size() < kMaxLine) return;
    if (!ends) {
      open_ = after_carriage_returns(open_);
      if (open_.size() < kMaxLine) continue;
    }
    visit(after_carriage_returns(open_));
    open_.clear();
  }
}

void LineCutter::finish(const Visit& visit) {
  if (!open_.empty()) visit(after_carriage_returns(open_));
  open_.clear();
}

void OutputRelay::add(Stream stream, std::string lines) {
  if (lines.empty()) return;
  queued_ += lines.size();
  queue_.push_back({stream == Stream::kOut ? std::size_t{0} : std::size_t{1}, std::move(lines)});
}

int OutputRelay::waiting_for() const {
  return queue_.empty() ? -1 : descriptors_[queue_.front().stream];
}

void OutputRelay::write_some() {
  while (!queue_.empty() && is_writable(waiting_for())) write_front();
}

void OutputRelay::write_front() {
  const Chunk& chunk = queue_.front();
  const std::size_t left = chunk.text.size() - written_;
  // Writing PIPE_BUF bytes never blocks on a pipe that poll() reports as writable.
  const std::size_t size = std::min<std::size_t>(left, PIPE_BUF);
  std::size_t done = left;
  if (!broken_[chunk.stream]) {
    const ssize_t written = ::write(descriptors_[chunk.stream], chunk.text.data() + written_, size);
    if (written < 0 && (errno == EINTR || errno == EAGAIN)) return;
    broken_[chunk.stream] = written < 0;
    if (written >= 0) done = static_cast<std::size_t>(written);
  }
  written_ += done;
  queued_ -= done;
  if (written_ < chunk.text.size()) return;
  queue_.pop_front();
  written_ = 0;
}

}  // namespace voca::tools
