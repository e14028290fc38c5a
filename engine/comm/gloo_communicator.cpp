// Gloo does the rendezvous, the connections and non-blocking transfers; the algorithms of the collectives are
// here (docs/collectives.md explains why). Every rank talks to every other directly, so that all others
// detect and name a lost rank at once. Sums are taken in rank order, whatever buffer a tensor is a slice of.

#include "engine/base/running_clock.h"
#include "engine/base/thread.h"
#include "engine/comm/communication_error.h"
#include "engine/comm/communicator.h"
#include "engine/comm/rank_order_sum.h"

#if defined(VOCA_WITH_GLOO)

#include <fmt/ranges.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/store.h>
#include <gloo/transport/tcp/device.h>
#include <gloo/transport/unbound_buffer.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <exception>
#include <mutex>
#include <set>
#include <thread>
#include <type_traits>

namespace voca::engine {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kLeaveTimeout{5000};
constexpr milliseconds kNamingTime{200};
/// Interval at which keep_time() checks the transfer.
constexpr milliseconds kTick{100};
constexpr std::chrono::hours kForever{24 * 365};
// Message slots; collectives use slots from 0 up.
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

enum class Kind : std::uint32_t { kNone, kAllReduce, kAllGather, kBroadcast, kBarrier, kLeave };

const char* name_of(Kind kind) {
  switch (kind) {
    case Kind::kAllReduce:
      return "all_reduce_sum";
    case Kind::kAllGather:
      return "all_gather";
    case Kind::kBroadcast:
      return "broadcast";
    case Kind::kBarrier:
      return "barrier";
    case Kind::kLeave:
      return "the end";
    case Kind::kNone:
      break;
  }
  return "nothing";
}

/// The collective that a rank is about to start. All ranks exchange announcements before any data moves,
/// because Gloo ends the process when a message is longer than its buffer.
struct Announcement {
  Kind kind = Kind::kNone;
  std::uint32_t detail = 0;  ///< broadcast: root; all_gather: digest of the part sizes
  std::uint64_t bytes = 0;   ///< size of the result
  std::array<char, 48> name{};

  [[nodiscard]] bool operator==(const Announcement&) const = default;
  [[nodiscard]] std::string text() const {
    return fmt::format("{} of {} ({} bytes)", name_of(kind), name.data(), bytes);
  }
};
static_assert(std::has_unique_object_representations_v<Announcement>);

/// Bytes [offset, offset + size) of a region, sent to or received from `rank`.
struct Piece {
  int rank;
  std::size_t offset;
  std::size_t size;
};
struct Region {
  void* data = nullptr;
  std::vector<Piece> pieces{};

  void add(int rank, std::size_t offset, std::size_t bytes) {
    if (bytes > 0) pieces.push_back({rank, offset, bytes});
  }
};

class GlooCommunicator final : public Communicator {
 public:
  GlooCommunicator(KeyValueStore& store, int rank, int world_size, const GlooOptions& options);
  ~GlooCommunicator() override;
  GlooCommunicator(const GlooCommunicator&) = delete;
  GlooCommunicator& operator=(const GlooCommunicator&) = delete;

  [[nodiscard]] int rank() const override { return rank_; }
  [[nodiscard]] int world_size() const override { return world_size_; }
  void all_reduce_sum(const char* name, const Tensor& data, void* stream) override;
  void all_gather_rows(const char* name, const Tensor& part, std::span<const std::int64_t> rows_by_rank,
                       const Tensor& all, void* stream) override;
  void broadcast(const char* name, const Tensor& data, int root, void* stream) override;
  void barrier(const char* name) override { begin(Kind::kBarrier, name, 0); }
  [[nodiscard]] std::vector<double> all_gather_values(const char* name,
                                                      std::span<const double> mine) override;
  void abort() noexcept override;

 private:
  /// Starts a collective: waits until every rank has announced it. Throws if any announces another.
  void begin(Kind kind, const char* name, std::size_t bytes, std::uint32_t detail = 0);
  /// Sends and receives all pieces concurrently; returns when all are done.
  void exchange(const Region& out, const Region& in);
  /// In-place all-gather: rank r contributes slice r of `data`. Slice sizes differ by at most one element.
  void gather_slices(const Tensor& data);
  [[nodiscard]] Piece slice(const Tensor& data, int rank) const;
  [[noreturn]] void fail(const std::string& reason);
  [[nodiscard]] std::string lost_ranks();
  [[nodiscard]] std::string find_lost_ranks();
  void guard();
  void keep_time();
  [[nodiscard]] bool was_late();
  void end_threads();

  /// Messages to and from other ranks, all in flight at once.
  class Transfer {
   public:
    explicit Transfer(GlooCommunicator& owner) : owner_(owner) {}
    ~Transfer() { release(); }
    Transfer(const Transfer&) = delete;
    Transfer& operator=(const Transfer&) = delete;

    void start(const Region& out, const Region& in, std::uint64_t slot);
    /// Waits for all; false if interrupted.
    [[nodiscard]] bool finish();
    /// The ranks with unfinished messages.
    [[nodiscard]] std::string unfinished();
    /// Ends the wait. Called from another thread, which holds the owner's transfer_mutex_.
    void interrupt();

   private:
    struct Pending {
      int rank;
      std::unique_ptr<::gloo::transport::UnboundBuffer> buffer;
      bool done = false;
    };
    /// Deregisters from the owner: no interruption after this.
    void release();

    GlooCommunicator& owner_;
    std::vector<Pending> receiving_;
    std::vector<Pending> sending_;
  };

  int rank_;
  int world_size_;
  std::string name_;
  milliseconds timeout_;
  std::shared_ptr<::gloo::rendezvous::Context> context_;
  std::uint64_t next_slot_ = 0;
  std::vector<std::byte> scratch_;
  std::string broken_;  // the first error
  std::atomic<bool> aborted_{false};
  std::atomic<bool> leaving_{false};
  int exceptions_at_start_ = std::uncaught_exceptions();

  std::mutex transfer_mutex_;     // guards the members below
  Transfer* transfer_ = nullptr;  // in flight
  std::string lost_;              // lost ranks found by guard()
  RunningClock clock_;
  RunningClock::Time deadline_;  // of the current collective
  bool is_late_ = false;         // the deadline has passed
  bool is_over_ = false;
  std::condition_variable over_;

  std::unique_ptr<::gloo::transport::UnboundBuffer> life_;
  std::thread guard_;
  std::thread time_keeper_;

  // The current collective.
  Announcement current_;
  std::vector<Announcement> announced_;  // by rank
  Clock::time_point started_;
};

GlooCommunicator::GlooCommunicator(KeyValueStore& store, int rank, int world_size, const GlooOptions& options)
    : rank_(rank),
      world_size_(world_size),
      name_(options.name),
      timeout_(options.timeout),
      announced_(static_cast<std::size_t>(world_size)) {
  VOCA_CHECK(world_size >= 1 && rank >= 0 && rank < world_size && timeout_.count() > 0);
  started_ = Clock::now();
  std::signal(SIGPIPE, SIG_IGN);
  try {
    ::gloo::transport::tcp::attr attributes(options.address.c_str());
    auto device = ::gloo::transport::tcp::CreateDevice(attributes);
    context_ = std::make_shared<::gloo::rendezvous::Context>(rank, world_size);
    // While connecting, Gloo waits for five times the context's timeout.
    context_->setTimeout(std::max(timeout_ / 5, milliseconds(1)));
    RendezvousStore rendezvous(store, "gloo/" + options.name + "/", started_ + timeout_);
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
        "communicator {}: rank {} of {}, at {}, could not connect to the others in {:.3f} s: {}", name_,
        rank_, world_size_, options.address, std::chrono::duration<double>(Clock::now() - started_).count(),
        error.what());
  }
}

// Closing a connection can lose its last bytes in flight, so no rank leaves before the others are done.
GlooCommunicator::~GlooCommunicator() {
  leaving_ = true;
  if (broken_.empty() && !aborted_ && std::uncaught_exceptions() <= exceptions_at_start_) {
    try {
      timeout_ = std::min(timeout_, kLeaveTimeout);
      begin(Kind::kLeave, "communicator", 0);
    } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch): whoever is not there needs nothing
    }
  }
  end_threads();
}

void GlooCommunicator::end_threads() {
  {
    const std::lock_guard lock(transfer_mutex_);
    is_over_ = true;
  }
  over_.notify_all();
  if (time_keeper_.joinable()) time_keeper_.join();
  if (!guard_.joinable()) return;
  life_->abortWaitRecv();
  guard_.join();
}

void GlooCommunicator::begin(Kind kind, const char* name, std::size_t bytes, std::uint32_t detail) {
  if (!broken_.empty())
    throw CommunicationError("{} of {}: after an error: {}", name_of(kind), name, broken_);
  started_ = Clock::now();
  {
    const std::lock_guard lock(transfer_mutex_);
    deadline_ = clock_.now() + timeout_;
    is_late_ = false;
  }
  current_ = {.kind = kind, .detail = detail, .bytes = bytes};
  std::copy_n(name, std::min(std::strlen(name), current_.name.size() - 1), current_.name.begin());
  std::fill(announced_.begin(), announced_.end(), Announcement{});
  announced_[static_cast<std::size_t>(rank_)] = current_;

  Region out{.data = &current_};
  Region in{.data = announced_.data()};
  for (int r = 0; r < world_size_; ++r) {
    if (r == rank_) continue;
    out.add(r, 0, sizeof(Announcement));
    in.add(r, static_cast<std::size_t>(r) * sizeof(Announcement), sizeof(Announcement));
  }
  exchange(out, in);
  for (int r = 0; r < world_size_; ++r) {
    const Announcement& theirs = announced_[static_cast<std::size_t>(r)];
    if (theirs.kind == Kind::kLeave && kind != Kind::kLeave)
      fail(fmt::format("rank {} has left the job, which ended there", r));
    if (theirs != current_)
      fail(fmt::format("rank {} is in {} instead: the ranks do different things", r, theirs.text()));
  }
}

void GlooCommunicator::exchange(const Region& out, const Region& in) {
  const std::uint64_t slot = next_slot_++;
  std::string reason;
  std::string late;
  {
    Transfer transfer(*this);
    try {
      transfer.start(out, in, slot);
      if (transfer.finish()) return;
    } catch (const std::exception& error) {  // Gloo's exception types share no closer base
      reason = error.what();
    }
    if (was_late()) late = transfer.unfinished();
  }
  if (aborted_) fail("aborted");
  if (!late.empty()) fail(fmt::format("still without rank {} (--comm_timeout)", late));
  const std::string lost = lost_ranks();
  // A rank that gives up closes its connections; the others, which detect the loss at the same time, must not
  // name this rank as lost.
  std::this_thread::sleep_for(kNamingTime);
  fail(lost + (reason.empty() ? "" : ": " + reason));
}

void GlooCommunicator::Transfer::release() {
  const std::lock_guard lock(owner_.transfer_mutex_);
  owner_.transfer_ = nullptr;
}

void GlooCommunicator::Transfer::start(const Region& out, const Region& in, std::uint64_t slot) {
  const auto buffer_of = [&](const Region& region, const Piece& piece) {
    return owner_.context_->createUnboundBuffer(static_cast<std::byte*>(region.data) + piece.offset,
                                                piece.size);
  };
  for (const Piece& piece : in.pieces) receiving_.push_back({piece.rank, buffer_of(in, piece)});
  for (const Piece& piece : out.pieces) sending_.push_back({piece.rank, buffer_of(out, piece)});
  {
    const std::lock_guard lock(owner_.transfer_mutex_);
    owner_.transfer_ = this;
    if (owner_.aborted_ || !owner_.lost_.empty()) interrupt();
  }
  for (const Pending& pending : receiving_) pending.buffer->recv(pending.rank, slot);
  for (const Pending& pending : sending_) pending.buffer->send(pending.rank, slot);
}

bool GlooCommunicator::Transfer::finish() {
  const auto received = [&](Pending& pending) {
    return pending.done = pending.buffer->waitRecv(nullptr, kForever);
  };
  const auto sent = [&](Pending& pending) {
    return pending.done = pending.buffer->waitSend(nullptr, kForever);
  };
  return std::all_of(receiving_.begin(), receiving_.end(), received) &&
         std::all_of(sending_.begin(), sending_.end(), sent);
}

std::string GlooCommunicator::Transfer::unfinished() {
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

void GlooCommunicator::Transfer::interrupt() {
  for (const Pending& pending : receiving_) pending.buffer->abortWaitRecv();
  for (const Pending& pending : sending_) pending.buffer->abortWaitSend();
}

// If a connection breaks, Gloo wakes waiters for messages on it, except for messages that are partly
// transferred. This thread therefore waits all the time for a message from every rank that never comes; when
// that wait ends, a connection is broken.
void GlooCommunicator::guard() {
  try {
    // Interrupted by end_threads().
    static_cast<void>(life_->waitRecv(nullptr, kForever));
  } catch (const std::exception&) {
    if (leaving_) return;
    const std::string lost = find_lost_ranks();
    const std::lock_guard lock(transfer_mutex_);
    lost_ = lost;
    if (transfer_ != nullptr) transfer_->interrupt();
  }
}

// Replaces Gloo's own timeouts, whose clock runs on while the job is stopped, and which close connections.
void GlooCommunicator::keep_time() {
  std::unique_lock lock(transfer_mutex_);
  while (!over_.wait_for(lock, kTick, [this] { return is_over_; })) {
    if (clock_.now() < deadline_ || transfer_ == nullptr) continue;
    is_late_ = true;
    transfer_->interrupt();
  }
}

bool GlooCommunicator::was_late() {
  const std::lock_guard lock(transfer_mutex_);
  return is_late_;
}

std::string GlooCommunicator::lost_ranks() {
  {
    const std::lock_guard lock(transfer_mutex_);
    if (!lost_.empty()) return lost_;
  }
  return find_lost_ranks();
}

std::string GlooCommunicator::find_lost_ranks() {
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

void GlooCommunicator::fail(const std::string& reason) {
  const double waited = std::chrono::duration<double>(Clock::now() - started_).count();
  broken_ = fmt::format("{} of {}: rank {} of {}, after {:.3f} s: {}", name_of(current_.kind),
                        current_.name.data(), rank_, world_size_, waited, reason);
  throw CommunicationError("{}", broken_);
}

Piece GlooCommunicator::slice(const Tensor& data, int rank) const {
  const std::int64_t begin = data.elements() * rank / world_size_;
  const std::int64_t end = data.elements() * (rank + 1) / world_size_;
  const std::size_t element = size_of(data.dtype);
  return {rank, static_cast<std::size_t>(begin) * element, static_cast<std::size_t>(end - begin) * element};
}

void GlooCommunicator::gather_slices(const Tensor& data) {
  Region out{.data = data.data};
  Region in = {.data = data.data};
  const Piece mine = slice(data, rank_);
  for (int r = 0; r < world_size_; ++r) {
    if (r == rank_) continue;
    const Piece theirs = slice(data, r);
    out.add(r, mine.offset, mine.size);
    in.add(r, theirs.offset, theirs.size);
  }
  exchange(out, in);
}

void GlooCommunicator::all_reduce_sum(const char* name, const Tensor& data, void* /*stream*/) {
  VOCA_CHECK(data.device == DeviceKind::kCpu);
  begin(Kind::kAllReduce, name, data.bytes());
  const Piece mine = slice(data, rank_);
  scratch_.resize(std::max(scratch_.size(), mine.size * static_cast<std::size_t>(world_size_)));
  Region out{.data = data.data};
  Region in{.data = scratch_.data()};
  for (int r = 0; r < world_size_; ++r) {
    const std::size_t place = static_cast<std::size_t>(r) * mine.size;
    if (r == rank_) {
      if (mine.size > 0)
        std::memcpy(scratch_.data() + place, static_cast<std::byte*>(data.data) + mine.offset, mine.size);
      continue;
    }
    const Piece theirs = slice(data, r);
    out.add(r, theirs.offset, theirs.size);
    in.add(r, place, mine.size);
  }
  exchange(out, in);
  sum_in_rank_order(data.dtype, scratch_.data(), world_size_,
                    static_cast<std::int64_t>(mine.size / size_of(data.dtype)),
                    static_cast<std::byte*>(data.data) + mine.offset);
  gather_slices(data);
}

void GlooCommunicator::all_gather_rows(const char* name, const Tensor& part,
                                       std::span<const std::int64_t> rows_by_rank, const Tensor& all,
                                       void* /*stream*/) {
  VOCA_CHECK(part.device == DeviceKind::kCpu && all.device == DeviceKind::kCpu && part.dtype == all.dtype);
  VOCA_CHECK(rows_by_rank.size() == static_cast<std::size_t>(world_size_));
  Region out{.data = part.data};
  Region in{.data = all.data};
  std::int64_t first = 0;
  std::uint32_t digest = 0;
  for (int r = 0; r < world_size_; ++r) {
    const std::int64_t rows = rows_by_rank[static_cast<std::size_t>(r)];
    digest = digest * 16777619U + static_cast<std::uint32_t>(rows);
    const Tensor place = all.rows(first, rows);
    first += rows;
    const std::size_t offset = all.bytes() == 0
                                   ? 0
                                   : static_cast<std::size_t>(static_cast<std::byte*>(place.data) -
                                                              static_cast<std::byte*>(all.data));
    if (r != rank_) {
      out.add(r, 0, part.bytes());
      in.add(r, offset, place.bytes());
      continue;
    }
    VOCA_CHECK(place.bytes() == part.bytes());
    if (part.bytes() > 0) std::memmove(place.data, part.data, part.bytes());
  }
  VOCA_CHECK(first == all.shape[0]);
  begin(Kind::kAllGather, name, all.bytes(), digest);
  exchange(out, in);
}

void GlooCommunicator::broadcast(const char* name, const Tensor& data, int root, void* /*stream*/) {
  VOCA_CHECK(data.device == DeviceKind::kCpu && root >= 0 && root < world_size_);
  begin(Kind::kBroadcast, name, data.bytes(), static_cast<std::uint32_t>(root));
  // Root sends each rank its slice, then all ranks all-gather: no link carries more than twice the data.
  Region out{.data = data.data};
  Region in = {.data = data.data};
  if (rank_ == root) {
    for (int r = 0; r < world_size_; ++r) {
      const Piece theirs = slice(data, r);
      if (r != root) out.add(r, theirs.offset, theirs.size);
    }
  } else {
    const Piece mine = slice(data, rank_);
    in.add(root, mine.offset, mine.size);
  }
  exchange(out, in);
  gather_slices(data);
}

std::vector<double> GlooCommunicator::all_gather_values(const char* name, std::span<const double> mine) {
  std::vector<double> own(mine.begin(), mine.end());
  std::vector<double> all(own.size() * static_cast<std::size_t>(world_size_));
  const auto tensor = [](std::vector<double>& values) {
    return Tensor{.data = values.data(),
                  .shape = {static_cast<std::int64_t>(values.size())},
                  .dtype = DType::kF64,
                  .device = DeviceKind::kCpu,
                  .name = "gathered values"};
  };
  all_gather(name, tensor(own), tensor(all), nullptr);
  return all;
}

void GlooCommunicator::abort() noexcept {
  aborted_ = true;
  try {
    {
      const std::lock_guard lock(transfer_mutex_);
      if (transfer_ != nullptr) transfer_->interrupt();
    }
    // A wait that times out closes all connections of its context, which the other ranks detect.
    context_->createUnboundBuffer(nullptr, 0)->waitRecv(nullptr, milliseconds(0));
  } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch): that is what it does
  }
}

}  // namespace

bool with_gloo() {
  return true;
}

std::unique_ptr<Communicator> make_gloo_communicator(KeyValueStore& store, int rank, int world_size,
                                                     const GlooOptions& options) {
  return std::make_unique<GlooCommunicator>(store, rank, world_size, options);
}

}  // namespace voca::engine

#else

namespace voca::engine {

bool with_gloo() {
  return false;
}

std::unique_ptr<Communicator> make_gloo_communicator(KeyValueStore& /*store*/, int /*rank*/, int world_size,
                                                     const GlooOptions& /*options*/) {
  throw UsageError(
      "a job of {} ranks needs Gloo, which this build has not: install libgloo-dev and build again",
      world_size);
}

}  // namespace voca::engine

#endif
