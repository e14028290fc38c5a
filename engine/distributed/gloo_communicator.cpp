// Gloo finds the ranks, connects them and moves bytes without blocking; what is moved where is decided here
// (docs/collectives.md says why): every rank talks to every other directly, so that a lost rank is named by
// all others at once, and a sum is taken in rank order, whatever its tensor is a slice of.

#include "engine/distributed/communication_error.h"
#include "engine/distributed/communicator.h"

#if defined(VOCA_WITH_GLOO)

#include <fmt/ranges.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/store.h>
#include <gloo/transport/tcp/device.h>
#include <gloo/transport/unbound_buffer.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>
#include <type_traits>

namespace voca::engine {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kLeaveTimeout{5000};
constexpr milliseconds kNamingTime{200};
// Slots of messages; those of collectives count from 0.
constexpr std::uint64_t kLifeSlot = ~std::uint64_t{0};
constexpr std::uint64_t kProbeSlot = kLifeSlot - 1;

/// Gloo's rendezvous over the job's store. What it asks for, it gets by the deadline of the meeting.
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

/// What a rank is about to do. All ranks exchange theirs before a byte of data moves: Gloo ends the process
/// when a message is longer than the place for it.
struct Announcement {
  Kind kind = Kind::kNone;
  std::uint32_t detail = 0;  ///< the root; a digest of the sizes of the parts
  std::uint64_t bytes = 0;   ///< of the result
  std::array<char, 48> name{};

  [[nodiscard]] bool operator==(const Announcement&) const = default;
  [[nodiscard]] std::string text() const {
    return fmt::format("{} of {} ({} bytes)", name_of(kind), name.data(), bytes);
  }
};
static_assert(std::has_unique_object_representations_v<Announcement>);

/// Bytes [offset, offset + size) of a region, to or from a rank.
struct Piece {
  int rank;
  std::size_t offset;
  std::size_t size;
};
struct Region {
  void* data = nullptr;
  std::size_t size = 0;
  std::vector<Piece> pieces{};

  void add(int rank, std::size_t offset, std::size_t bytes) {
    if (bytes > 0) pieces.push_back({rank, offset, bytes});
  }
};

/// sum (elements) = parts[0] + parts[1] + …, each `elements` long, one behind the other.
template <typename T>
void sum_in_order(const std::byte* parts, int count, std::int64_t elements, void* sum) {
  const T* part = reinterpret_cast<const T*>(parts);
  T* out = static_cast<T*>(sum);
  std::copy_n(part, elements, out);
  for (int r = 1; r < count; ++r) {
    part += elements;
    for (std::int64_t i = 0; i < elements; ++i) out[i] += part[i];
  }
}

void sum_parts(const Tensor& data, const std::byte* parts, int count, std::int64_t elements, void* sum) {
  switch (data.dtype) {
    case DType::kF32:
      return sum_in_order<float>(parts, count, elements, sum);
    case DType::kF64:
      return sum_in_order<double>(parts, count, elements, sum);
    case DType::kI32:
      return sum_in_order<std::int32_t>(parts, count, elements, sum);
    case DType::kI64:
      return sum_in_order<std::int64_t>(parts, count, elements, sum);
    default:
      throw InternalError("all_reduce_sum: tensor {} is {}, which is not summed on the CPU", data.name,
                          name_of(data.dtype));
  }
}

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
  [[nodiscard]] std::vector<double> gather(const char* name, std::span<const double> mine) override;
  void abort() noexcept override;

 private:
  /// Starts a collective: waits until every rank has announced the same one.
  void begin(Kind kind, const char* name, std::size_t bytes, std::uint32_t detail = 0);
  /// Sends and receives pieces, all at once; returns when all are through.
  void exchange(const Region& out, const Region& in);
  /// Each rank owns slice r of `data` (world_size slices, the last ones shorter); all get all of them.
  void gather_slices(const Tensor& data);
  [[nodiscard]] Piece slice(const Tensor& data, int rank) const;
  [[nodiscard]] milliseconds left() const;
  [[noreturn]] void fail(const std::string& reason);
  [[nodiscard]] std::string lost_ranks();
  [[nodiscard]] std::string find_lost_ranks();
  [[nodiscard]] std::string who_is_late() const;
  void guard();
  /// Ends the waits of the transfer under way. Called with transfer_mutex_ held.
  void interrupt();

  /// The transfer under way, as long as it lives.
  class Transfer {
   public:
    Transfer(GlooCommunicator& owner, ::gloo::transport::UnboundBuffer& from,
             ::gloo::transport::UnboundBuffer& to);
    ~Transfer();
    Transfer(const Transfer&) = delete;
    Transfer& operator=(const Transfer&) = delete;

   private:
    GlooCommunicator& owner_;
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

  std::mutex transfer_mutex_;  // guards what follows
  ::gloo::transport::UnboundBuffer* from_ = nullptr;
  ::gloo::transport::UnboundBuffer* to_ = nullptr;
  std::string lost_;  // what the guard found
  std::unique_ptr<::gloo::transport::UnboundBuffer> life_;
  std::thread guard_;

  // The collective under way.
  Announcement current_;
  std::vector<Announcement> announced_;  // by rank; kNone of those that have not come
  Clock::time_point started_;
  Clock::time_point deadline_;
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
    // While it connects, Gloo waits for five times a context's timeout.
    context_->setTimeout(std::max(timeout_ / 5, milliseconds(1)));
    RendezvousStore rendezvous(store, "gloo/" + options.name + "/", started_ + timeout_);
    context_->connectFullMesh(rendezvous, device);
    life_ = context_->createUnboundBuffer(nullptr, 0);
    for (int r = 0; r < world_size; ++r)
      if (r != rank) life_->recv(r, kLifeSlot, 0, 0);
    guard_ = std::thread([this] { guard(); });
  } catch (const CommunicationError&) {
    throw;
  } catch (const std::exception& error) {
    throw CommunicationError(
        "communicator {}: rank {} of {}, at {}, could not connect to the others in {:.3f} s: {}", name_,
        rank_, world_size_, options.address, std::chrono::duration<double>(Clock::now() - started_).count(),
        error.what());
  }
}

// A connection closed while its last bytes travel can lose them, so no rank goes before the others are
// through.
GlooCommunicator::~GlooCommunicator() {
  leaving_ = true;
  if (broken_.empty() && !aborted_ && std::uncaught_exceptions() <= exceptions_at_start_) {
    try {
      timeout_ = std::min(timeout_, kLeaveTimeout);
      begin(Kind::kLeave, "communicator", 0);
    } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch): whoever is not there needs nothing
    }
  }
  life_->abortWaitRecv();
  guard_.join();
}

milliseconds GlooCommunicator::left() const {
  const auto rest = std::chrono::ceil<milliseconds>(deadline_ - Clock::now());
  return std::max(rest, milliseconds(0));
}

void GlooCommunicator::begin(Kind kind, const char* name, std::size_t bytes, std::uint32_t detail) {
  if (!broken_.empty())
    throw CommunicationError("{} of {}: after an error: {}", name_of(kind), name, broken_);
  started_ = Clock::now();
  deadline_ = started_ + timeout_;
  current_ = {.kind = kind, .detail = detail, .bytes = bytes};
  std::copy_n(name, std::min(std::strlen(name), current_.name.size() - 1), current_.name.begin());
  std::fill(announced_.begin(), announced_.end(), Announcement{});
  announced_[static_cast<std::size_t>(rank_)] = current_;

  Region out{.data = &current_, .size = sizeof(current_)};
  Region in{.data = announced_.data(), .size = announced_.size() * sizeof(Announcement)};
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
  {
    const auto from = context_->createUnboundBuffer(out.data, out.size);
    const auto to = context_->createUnboundBuffer(in.data, in.size);
    const Transfer transfer(*this, *from, *to);
    try {
      for (const Piece& piece : in.pieces) to->recv(piece.rank, slot, piece.offset, piece.size);
      for (const Piece& piece : out.pieces) from->send(piece.rank, slot, piece.offset, piece.size);
      bool whole = true;
      for (std::size_t i = 0; whole && i < in.pieces.size(); ++i) whole = to->waitRecv(nullptr, left());
      for (std::size_t i = 0; whole && i < out.pieces.size(); ++i) whole = from->waitSend(nullptr, left());
      if (whole) return;
    } catch (const std::exception& error) {  // Gloo's own types share no closer base
      reason = error.what();
    }
  }
  if (aborted_) fail("aborted");
  const bool late = left() == milliseconds(0);
  const std::string missing = late ? who_is_late() : lost_ranks();
  // Whoever gives up closes connections: the others, who notice the same loss now, shall not name this rank.
  if (!late) std::this_thread::sleep_for(kNamingTime);
  fail(missing + (late || reason.empty() ? std::string() : ": " + reason));
}

// When a connection breaks, Gloo wakes whoever waits for a message on it, but not for one of which a part has
// come or gone. A message from every rank that never comes is therefore waited for here, all the time; when
// that wait ends, a connection is broken.
void GlooCommunicator::guard() {
  try {
    // Interrupted when the communicator ends.
    static_cast<void>(life_->waitRecv(nullptr, std::chrono::hours(24 * 365)));
  } catch (const std::exception&) {
    if (leaving_) return;
    const std::string lost = find_lost_ranks();
    const std::lock_guard lock(transfer_mutex_);
    lost_ = lost;
    interrupt();
  }
}

void GlooCommunicator::interrupt() {
  if (to_ != nullptr) to_->abortWaitRecv();
  if (from_ != nullptr) from_->abortWaitSend();
}

GlooCommunicator::Transfer::Transfer(GlooCommunicator& owner, ::gloo::transport::UnboundBuffer& from,
                                     ::gloo::transport::UnboundBuffer& to)
    : owner_(owner) {
  const std::lock_guard lock(owner_.transfer_mutex_);
  owner_.from_ = &from;
  owner_.to_ = &to;
  if (owner_.aborted_ || !owner_.lost_.empty()) owner_.interrupt();
}

GlooCommunicator::Transfer::~Transfer() {
  const std::lock_guard lock(owner_.transfer_mutex_);
  owner_.from_ = nullptr;
  owner_.to_ = nullptr;
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
    try {  // a connection that broke says so to whoever uses it
      context_->createUnboundBuffer(nullptr, 0)->send(r, kProbeSlot, 0, 0);
    } catch (const std::exception&) {
      lost.push_back(r);
    }
  }
  return fmt::format("lost the connection to rank {}", fmt::join(lost, ", "));
}

std::string GlooCommunicator::who_is_late() const {
  std::vector<int> late;
  for (int r = 0; r < world_size_; ++r)
    if (announced_[static_cast<std::size_t>(r)].kind == Kind::kNone) late.push_back(r);
  if (late.empty()) return "all ranks came, their data did not (--comm_timeout)";
  return fmt::format("still without rank {} (--comm_timeout)", fmt::join(late, ", "));
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
  Region out{.data = data.data, .size = data.bytes()};
  Region in = {.data = data.data, .size = data.bytes()};
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
  Region out{.data = data.data, .size = data.bytes()};
  Region in{.data = scratch_.data(), .size = scratch_.size()};
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
  sum_parts(data, scratch_.data(), world_size_, static_cast<std::int64_t>(mine.size / size_of(data.dtype)),
            static_cast<std::byte*>(data.data) + mine.offset);
  gather_slices(data);
}

void GlooCommunicator::all_gather_rows(const char* name, const Tensor& part,
                                       std::span<const std::int64_t> rows_by_rank, const Tensor& all,
                                       void* /*stream*/) {
  VOCA_CHECK(part.device == DeviceKind::kCpu && all.device == DeviceKind::kCpu && part.dtype == all.dtype);
  VOCA_CHECK(rows_by_rank.size() == static_cast<std::size_t>(world_size_));
  Region out{.data = part.data, .size = part.bytes()};
  Region in{.data = all.data, .size = all.bytes()};
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
  // Root hands each rank its slice, then all ranks share theirs: no link carries more than twice the data.
  Region out{.data = data.data, .size = data.bytes()};
  Region in = {.data = data.data, .size = data.bytes()};
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

std::vector<double> GlooCommunicator::gather(const char* name, std::span<const double> mine) {
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
      interrupt();
    }
    // A wait that times out closes all connections of its context: the other ranks notice.
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
