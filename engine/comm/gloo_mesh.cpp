#if defined(VOCA_WITH_GLOO)

#include "engine/comm/gloo_mesh.h"

#include <fmt/ranges.h>
#include <gloo/rendezvous/store.h>
#include <gloo/transport/tcp/device.h>

#include <algorithm>
#include <csignal>
#include <exception>
#include <set>
#include <system_error>

#include "engine/base/thread.h"
#include "engine/comm/communication_error.h"

namespace voca::engine {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kNamingTime{200};
/// Interval at which keep_time() checks the transfer.
constexpr milliseconds kTick{100};
constexpr std::chrono::hours kForever{24 * 365};
// Message slots; exchanges use slots from 0 up.
constexpr std::uint64_t kLifeSlot = ~std::uint64_t{0};
constexpr std::uint64_t kProbeSlot = kLifeSlot - 1;

/// Gloo's rendezvous store, backed by the job's store. Lookups wait until the deadline of the rendezvous.
class RendezvousStore final : public ::gloo::rendezvous::Store {
 public:
  RendezvousStore(KeyValueStore& store, std::string prefix, Deadline deadline)
      : store_(store), prefix_(std::move(prefix)), deadline_(deadline) {}

  void set(const std::string& key, const std::vector<char>& data) override {
    store_.set(prefix_ + key, {data.begin(), data.end()});
  }
  std::vector<char> get(const std::string& key) override {
    const std::string value = store_.get(prefix_ + key, deadline_);
    return {value.begin(), value.end()};
  }
  void wait(const std::vector<std::string>& keys) override {
    for (const std::string& key : keys) static_cast<void>(store_.get(prefix_ + key, deadline_));
  }
  void wait(const std::vector<std::string>& keys, const milliseconds& /*timeout*/) override { wait(keys); }

 private:
  KeyValueStore& store_;
  std::string prefix_;
  Deadline deadline_;
};

}  // namespace

GlooMesh::GlooMesh(KeyValueStore& store, int rank, int world_size, const GlooOptions& options)
    : rank_(rank), world_size_(world_size) {
  VOCA_CHECK(world_size >= 1 && rank >= 0 && rank < world_size && options.timeout.count() > 0);
  const auto started = Clock::now();
  std::signal(SIGPIPE, SIG_IGN);
  try {
    ::gloo::transport::tcp::attr attributes(options.address.c_str());
    auto device = ::gloo::transport::tcp::CreateDevice(attributes);
    context_ = std::make_shared<::gloo::rendezvous::Context>(rank, world_size);
    // While connecting, Gloo waits for five times the context's timeout.
    context_->setTimeout(std::max(options.timeout / 5, milliseconds(1)));
    RendezvousStore rendezvous(store, "gloo/" + options.name + "/", started + options.timeout);
    context_->connectFullMesh(rendezvous, device);
    life_ = context_->createUnboundBuffer(nullptr, 0);
    for (int r = 0; r < world_size; ++r)
      if (r != rank) life_->recv(r, kLifeSlot, 0, 0);
    guard_ = start_thread<std::thread>("a communicator", [this] { guard(); });
    time_keeper_ = start_thread<std::thread>("a communicator", [this] { keep_time(); });
  } catch (const Error&) {
    end_threads();
    throw;
  } catch (const std::system_error& error) {
    no_thread("a communicator", error.code().value());  // a thread of Gloo's
  } catch (const std::exception& error) {
    throw CommunicationError(
        "communicator {}: rank {} of {}, at {}, could not connect to the others in {:.3f} s: {}",
        options.name, rank, world_size, options.address,
        std::chrono::duration<double>(Clock::now() - started).count(), error.what());
  }
}

GlooMesh::~GlooMesh() {
  leaving_ = true;
  end_threads();
}

void GlooMesh::end_threads() {
  {
    const std::lock_guard lock(mutex_);
    is_over_ = true;
  }
  over_.notify_all();
  if (time_keeper_.joinable()) time_keeper_.join();
  if (!guard_.joinable()) return;
  life_->abortWaitRecv();
  guard_.join();
}

void GlooMesh::set_timeout(milliseconds timeout) {
  const std::lock_guard lock(mutex_);
  deadline_ = clock_.now() + timeout;
  is_late_ = false;
}

std::string GlooMesh::exchange(const Region& out, const Region& in) {
  const std::uint64_t slot = next_slot_++;
  std::string reason;
  std::string late;
  {
    Transfer transfer(*this);
    try {
      transfer.start(out, in, slot);
      if (transfer.finish()) return {};
    } catch (const std::exception& error) {  // Gloo's exception types share no closer base
      reason = error.what();
    }
    if (was_late()) late = transfer.unfinished();
  }
  if (aborted_) return "aborted";
  if (!late.empty()) return fmt::format("still without rank {} (--comm_timeout)", late);
  const std::string lost = lost_ranks();
  // A rank that gives up closes its connections; the others, which detect the loss at the same time, must not
  // name this rank as lost.
  std::this_thread::sleep_for(kNamingTime);
  return lost + (reason.empty() ? "" : ": " + reason);
}

void GlooMesh::Transfer::release() {
  const std::lock_guard lock(owner_.mutex_);
  owner_.transfer_ = nullptr;
}

void GlooMesh::Transfer::start(const Region& out, const Region& in, std::uint64_t slot) {
  const auto buffer_of = [&](const Region& region, const Piece& piece) {
    return owner_.context_->createUnboundBuffer(static_cast<std::byte*>(region.data) + piece.offset,
                                                piece.size);
  };
  for (const Piece& piece : in.pieces) receiving_.push_back({piece.rank, buffer_of(in, piece)});
  for (const Piece& piece : out.pieces) sending_.push_back({piece.rank, buffer_of(out, piece)});
  {
    const std::lock_guard lock(owner_.mutex_);
    owner_.transfer_ = this;
    if (owner_.aborted_ || !owner_.lost_.empty()) interrupt();
  }
  for (const Pending& pending : receiving_) pending.buffer->recv(pending.rank, slot);
  for (const Pending& pending : sending_) pending.buffer->send(pending.rank, slot);
}

bool GlooMesh::Transfer::finish() {
  const auto received = [&](Pending& pending) {
    return pending.done = pending.buffer->waitRecv(nullptr, kForever);
  };
  const auto sent = [&](Pending& pending) {
    return pending.done = pending.buffer->waitSend(nullptr, kForever);
  };
  return std::all_of(receiving_.begin(), receiving_.end(), received) &&
         std::all_of(sending_.begin(), sending_.end(), sent);
}

std::string GlooMesh::Transfer::unfinished() {
  release();
  std::set<int> ranks;
  const auto look = [&](std::vector<Pending>& all, const auto& wait) {
    for (Pending& pending : all) {
      try {  // completed messages still count; the first call may only consume an earlier interruption
        pending.done = pending.done || wait(*pending.buffer) || wait(*pending.buffer);
      } catch (const std::exception&) {
        pending.done = false;
      }
      if (!pending.done) ranks.insert(pending.rank);
    }
  };
  look(receiving_, [](auto& buffer) { return buffer.waitRecv(nullptr, milliseconds(0)); });
  look(sending_, [](auto& buffer) { return buffer.waitSend(nullptr, milliseconds(0)); });
  return fmt::format("{}", fmt::join(ranks, ", "));
}

void GlooMesh::Transfer::interrupt() {
  for (const Pending& pending : receiving_) pending.buffer->abortWaitRecv();
  for (const Pending& pending : sending_) pending.buffer->abortWaitSend();
}

// If a connection breaks, Gloo wakes waiters for messages on it, except for messages that are partly
// transferred. This thread therefore waits all the time for a message from every rank that never comes; when
// that wait ends, a connection is broken.
void GlooMesh::guard() {
  try {
    // Interrupted by end_threads().
    static_cast<void>(life_->waitRecv(nullptr, kForever));
  } catch (const std::exception&) {
    if (leaving_) return;
    const std::string lost = find_lost_ranks();
    const std::lock_guard lock(mutex_);
    lost_ = lost;
    if (transfer_ != nullptr) transfer_->interrupt();
  }
}

// Replaces Gloo's own timeouts, whose clock runs on while the job is stopped, and which close connections.
void GlooMesh::keep_time() {
  std::unique_lock lock(mutex_);
  while (!over_.wait_for(lock, kTick, [this] { return is_over_; })) {
    if (clock_.now() < deadline_ || transfer_ == nullptr) continue;
    is_late_ = true;
    transfer_->interrupt();
  }
}

bool GlooMesh::was_late() {
  const std::lock_guard lock(mutex_);
  return is_late_;
}

std::string GlooMesh::lost_ranks() {
  {
    const std::lock_guard lock(mutex_);
    if (!lost_.empty()) return lost_;
  }
  return find_lost_ranks();
}

std::string GlooMesh::find_lost_ranks() {
  std::vector<int> lost;
  for (int r = 0; r < world_size_; ++r) {
    if (r == rank_) continue;
    try {  // using a broken connection throws
      context_->createUnboundBuffer(nullptr, 0)->send(r, kProbeSlot, 0, 0);
    } catch (const std::exception&) {
      lost.push_back(r);
    }
  }
  return fmt::format("lost the connection to rank {}", fmt::join(lost, ", "));
}

void GlooMesh::abort() noexcept {
  aborted_ = true;
  try {
    {
      const std::lock_guard lock(mutex_);
      if (transfer_ != nullptr) transfer_->interrupt();
    }
    // A wait that times out closes all connections of its context, which the other ranks detect.
    context_->createUnboundBuffer(nullptr, 0)->waitRecv(nullptr, milliseconds(0));
  } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch): that is what it does
  }
}

}  // namespace voca::engine

#endif
