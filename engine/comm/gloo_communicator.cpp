// Gloo does the rendezvous, the connections and non-blocking transfers; the algorithms of the collectives are
// here (docs/collectives.md explains why). Every rank talks to every other directly, so that all others
// detect and name a lost rank at once. Sums are taken in rank order, whatever buffer a tensor is a slice of.

#include "engine/comm/communication_error.h"
#include "engine/comm/communicator.h"

#if defined(VOCA_WITH_GLOO)

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <exception>
#include <type_traits>

#include "engine/base/names.h"
#include "engine/comm/gloo_mesh.h"

namespace voca::engine {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kLeaveTimeout{5000};

enum class Kind : std::uint32_t { kNone, kAllReduce, kAllGather, kBroadcast, kBarrier, kLeave };

constexpr auto names_of(Kind /*tag*/) {
  return std::to_array<Named<Kind>>({{"nothing", Kind::kNone},
                                     {"all_reduce_sum", Kind::kAllReduce},
                                     {"all_gather", Kind::kAllGather},
                                     {"broadcast", Kind::kBroadcast},
                                     {"barrier", Kind::kBarrier},
                                     {"the end", Kind::kLeave}});
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

template <typename T>
void sum_of(const std::byte* parts, int count, std::int64_t elements, void* sum) {
  const T* part = reinterpret_cast<const T*>(parts);
  T* out = static_cast<T*>(sum);
  std::copy_n(part, elements, out);
  for (int r = 1; r < count; ++r) {
    part += elements;
    for (std::int64_t i = 0; i < elements; ++i) out[i] += part[i];
  }
}

/// Overwrites `sum` (elements) with parts[0] + parts[1] + …, in this order; `parts` (count, elements) must
/// not overlap it. float32, float64, int32 or int64.
void sum_in_rank_order(DType dtype, const std::byte* parts, int count, std::int64_t elements, void* sum) {
  switch (dtype) {
    case DType::kF32:
      return sum_of<float>(parts, count, elements, sum);
    case DType::kF64:
      return sum_of<double>(parts, count, elements, sum);
    case DType::kI32:
      return sum_of<std::int32_t>(parts, count, elements, sum);
    case DType::kI64:
      return sum_of<std::int64_t>(parts, count, elements, sum);
    default:
      throw InternalError("all_reduce_sum: {} is not summed on the CPU", name_of(dtype));
  }
}

class GlooCommunicator final : public Communicator {
 public:
  GlooCommunicator(KeyValueStore& store, int rank, int world_size, const GlooOptions& options)
      : rank_(rank),
        world_size_(world_size),
        timeout_(options.timeout),
        announced_(static_cast<std::size_t>(world_size)),
        mesh_(store, rank, world_size, options) {}
  ~GlooCommunicator() override;
  GlooCommunicator(const GlooCommunicator&) = delete;
  GlooCommunicator& operator=(const GlooCommunicator&) = delete;

  [[nodiscard]] int rank() const override { return rank_; }
  [[nodiscard]] int world_size() const override { return world_size_; }
  void all_reduce_sum(const char* name, Tensor data, Stream stream) override;
  void all_gather_rows(const char* name, const Tensor& part, std::span<const std::int64_t> rows_by_rank,
                       Tensor all, Stream stream) override;
  void broadcast(const char* name, Tensor data, int root, Stream stream) override;
  void barrier(const char* name) override { begin(Kind::kBarrier, name, 0); }
  [[nodiscard]] std::vector<double> all_gather_values(const char* name,
                                                      std::span<const double> mine) override;
  void abort() noexcept override { mesh_.abort(); }

 private:
  /// Starts a collective: waits until every rank has announced it. Throws if any announces another.
  void begin(Kind kind, const char* name, std::size_t bytes, std::uint32_t detail = 0);
  /// Sends and receives all pieces concurrently; returns when all are done.
  void exchange(const Region& out, const Region& in);
  /// In-place all-gather: rank r contributes slice r of `data`. Slice sizes differ by at most one element.
  void gather_slices(const Tensor& data);
  [[nodiscard]] Piece slice(const Tensor& data, int rank) const;
  [[noreturn]] void fail(const std::string& reason);

  int rank_;
  int world_size_;
  milliseconds timeout_;
  std::vector<std::byte> scratch_;
  std::string broken_;  // the first error
  int exceptions_at_start_ = std::uncaught_exceptions();

  // The current collective.
  Announcement current_;
  std::vector<Announcement> announced_;  // by rank
  Clock::time_point started_;

  GlooMesh mesh_;
};

// Closing a connection can lose its last bytes in flight, so no rank leaves before the others are done.
GlooCommunicator::~GlooCommunicator() {
  mesh_.expect_end();
  if (!broken_.empty() || mesh_.is_aborted() || std::uncaught_exceptions() > exceptions_at_start_) return;
  try {
    timeout_ = std::min(timeout_, kLeaveTimeout);
    begin(Kind::kLeave, "communicator", 0);
  } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch): whoever is not there needs nothing
  }
}

void GlooCommunicator::begin(Kind kind, const char* name, std::size_t bytes, std::uint32_t detail) {
  if (!broken_.empty())
    throw CommunicationError("{} of {}: after an error: {}", name_of(kind), name, broken_);
  started_ = Clock::now();
  mesh_.set_timeout(timeout_);
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
  const std::string reason = mesh_.exchange(out, in);
  if (!reason.empty()) fail(reason);
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

void GlooCommunicator::all_reduce_sum(const char* name, Tensor data, Stream /*stream*/) {
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
                                       std::span<const std::int64_t> rows_by_rank, Tensor all,
                                       Stream /*stream*/) {
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

void GlooCommunicator::broadcast(const char* name, Tensor data, int root, Stream /*stream*/) {
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
