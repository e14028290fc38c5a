#include "tests/simt/nccl_double.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tests/simt/stream.h"

namespace voca::simt::host {
namespace {

enum class Kind : std::uint8_t { kAllReduce, kAllGather, kBroadcast };

/// Arguments of a collective on one rank.
struct Request {
  Kind kind = Kind::kAllReduce;
  const void* from = nullptr;
  void* to = nullptr;
  std::size_t count = 0;
  ncclDataType_t type = ncclUint8;
  int root = 0;

  [[nodiscard]] bool matches(const Request& other) const {
    return kind == other.kind && count == other.count && type == other.type && root == other.root;
  }
  [[nodiscard]] std::string text() const {
    return fmt::format(
        "{} of {} elements of type {}",
        std::vector{"all_reduce", "all_gather", "broadcast"}.at(static_cast<std::size_t>(kind)), count,
        static_cast<int>(type));
  }
};

std::size_t bytes_of(ncclDataType_t type) {
  switch (type) {
    case ncclUint8:
    case ncclInt8:
      return 1;
    case ncclFloat16:
    case ncclBfloat16:
      return 2;
    case ncclFloat64:
    case ncclInt64:
      return 8;
    default:
      return 4;
  }
}

/// Writes the outputs after reading all inputs, because they may be the same memory.
template <typename T>
void add(const std::vector<Request>& ranks) {
  const std::size_t count = ranks[0].count;
  std::vector<T> sum(static_cast<const T*>(ranks[0].from), static_cast<const T*>(ranks[0].from) + count);
  for (std::size_t rank = 1; rank < ranks.size(); ++rank) {
    const T* const part = static_cast<const T*>(ranks[rank].from);
    for (std::size_t i = 0; i < count; ++i) {
      if constexpr (sizeof(T) == 2) {  // the operators of 16-bit types are device code
        sum[i] = static_cast<T>(static_cast<float>(sum[i]) + static_cast<float>(part[i]));
      } else {
        sum[i] += part[i];
      }
    }
  }
  for (const Request& rank : ranks) std::memcpy(rank.to, sum.data(), count * sizeof(T));
}

void all_reduce(const std::vector<Request>& ranks) {
  switch (ranks[0].type) {
    case ncclFloat32:
      return add<float>(ranks);
    case ncclFloat64:
      return add<double>(ranks);
    case ncclBfloat16:
      return add<__nv_bfloat16>(ranks);
    case ncclFloat16:
      return add<__half>(ranks);
    case ncclInt32:
      return add<std::int32_t>(ranks);
    case ncclInt64:
      return add<std::int64_t>(ranks);
    default:
      throw std::runtime_error("NCCL's double adds no such type");
  }
}

void perform(const std::vector<Request>& ranks) {
  if (ranks[0].kind == Kind::kAllReduce) return all_reduce(ranks);
  const std::size_t bytes = ranks[0].count * bytes_of(ranks[0].type);
  std::vector<std::byte> all;
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    if (ranks[0].kind == Kind::kBroadcast && static_cast<int>(rank) != ranks[0].root) continue;
    const auto* const from = static_cast<const std::byte*>(ranks[rank].from);
    all.insert(all.end(), from, from + bytes);
  }
  for (const Request& rank : ranks) std::memcpy(rank.to, all.data(), all.size());
}

/// Collective in flight: requests of the ranks that have reached it.
struct Collective {
  std::map<int, Request> ranks;
  bool done = false;
};

/// State shared by the communicators of one unique id.
struct Clique {
  std::mutex mutex;  // guards all members
  std::condition_variable changed;
  int world_size = 0;
  int connected = 0;
  int aborted = 0;
  std::string failure;
  std::map<std::int64_t, Collective> collectives;  // by position in the call order
};

/// Communicator of one rank.
struct Comm {
  std::shared_ptr<Clique> clique;
  int rank = 0;
  bool aborted = false;       // guarded by the clique's mutex
  std::int64_t queued = 0;    // collectives; this and `executed` are used only by the rank's thread
  std::int64_t executed = 0;  // collectives executed by its streams
};

[[noreturn]] void fail(Clique& clique, const std::string& what) {
  if (clique.failure.empty()) clique.failure = "NCCL's double: " + what;
  clique.changed.notify_all();
  throw std::runtime_error(clique.failure);
}

/// Executes collective number `place` of a rank; called when its stream reaches it.
void execute(Comm& comm, std::int64_t place, const Request& request) {
  Clique& clique = *comm.clique;
  std::unique_lock lock(clique.mutex);
  if (comm.aborted) return;
  if (!clique.failure.empty()) throw std::runtime_error(clique.failure);
  if (place != comm.executed++) {
    fail(clique, fmt::format("rank {} comes to its collective {}, {}, before collective {}", comm.rank, place,
                             request.text(), comm.executed - 1));
  }
  Collective& mine = clique.collectives[place];
  if (!mine.ranks.empty() && !mine.ranks.begin()->second.matches(request)) {
    fail(clique, fmt::format("collective {} is {} on rank {} and {} on rank {}", place, request.text(),
                             comm.rank, mine.ranks.begin()->second.text(), mine.ranks.begin()->first));
  }
  mine.ranks.emplace(comm.rank, request);
  if (static_cast<int>(mine.ranks.size()) == clique.world_size) {
    std::vector<Request> ranks;
    for (const auto& [rank, asked] : mine.ranks) ranks.push_back(asked);
    perform(ranks);
    mine.done = true;
    clique.changed.notify_all();
    return;
  }
  const bool came = clique.changed.wait_for(lock, std::chrono::seconds(kMaxWaitOfACollective), [&] {
    return mine.done || comm.aborted || !clique.failure.empty();
  });
  if (!came) {
    fail(clique, fmt::format("rank {} waited {} s in collective {}, {}", comm.rank, kMaxWaitOfACollective,
                             place, request.text()));
  }
  if (!clique.failure.empty()) throw std::runtime_error(clique.failure);
}

/// All communicators by handle; never removed, because queued work may still refer to them.
struct Registry {
  std::mutex mutex;
  std::map<std::int64_t, std::shared_ptr<Clique>> cliques;  // by unique id
  std::map<ncclComm_t, std::shared_ptr<Comm>> comms;
  std::int64_t ids = 0;

  std::shared_ptr<Comm> find(ncclComm_t comm) {
    const std::lock_guard lock(mutex);
    return comms.at(comm);
  }
};
Registry& registry() {
  static Registry registry;
  return registry;
}

/// Calls between group_start and group_end, queued together.
struct Group {
  int depth = 0;
  std::vector<std::function<void()>> calls;
};
thread_local Group group;

ncclResult_t queue(ncclComm_t handle, cudaStream_t stream, const Request& request) {
  const std::shared_ptr<Comm> comm = registry().find(handle);
  const std::int64_t place = comm->queued++;
  auto push = [stream, comm, place, request] {
    Stream::of(stream)->queue([comm, place, request] { execute(*comm, place, request); });
  };
  if (group.depth > 0) {
    group.calls.emplace_back(std::move(push));
    return ncclInProgress;
  }
  push();
  return ncclSuccess;
}

ncclResult_t version(int* version) {
  *version = NCCL_VERSION_CODE;
  return ncclSuccess;
}

ncclResult_t unique_id(ncclUniqueId* id) {
  const std::lock_guard lock(registry().mutex);
  const std::int64_t number = ++registry().ids;
  std::memset(id->internal, 0, sizeof id->internal);
  std::memcpy(id->internal, &number, sizeof number);
  return ncclSuccess;
}

ncclResult_t init(ncclComm_t* handle, int world_size, ncclUniqueId id, int rank, ncclConfig_t* /*config*/) {
  std::int64_t number = 0;
  std::memcpy(&number, id.internal, sizeof number);
  auto comm = std::make_shared<Comm>();
  *handle = reinterpret_cast<ncclComm_t>(comm.get());
  comm->rank = rank;
  {
    const std::lock_guard lock(registry().mutex);
    std::shared_ptr<Clique>& clique = registry().cliques[number];
    if (clique == nullptr) clique = std::make_shared<Clique>();
    comm->clique = clique;
    registry().comms[*handle] = comm;
  }
  const std::lock_guard lock(comm->clique->mutex);
  comm->clique->world_size = world_size;
  ++comm->clique->connected;
  return ncclInProgress;
}

ncclResult_t async_error(ncclComm_t handle, ncclResult_t* result) {
  const std::shared_ptr<Comm> comm = registry().find(handle);
  const std::lock_guard lock(comm->clique->mutex);
  *result = ncclSuccess;
  if (comm->clique->connected < comm->clique->world_size) *result = ncclInProgress;
  if (comm->clique->aborted > 0) *result = ncclRemoteError;
  return ncclSuccess;
}

ncclResult_t finalize(ncclComm_t /*comm*/) {
  return ncclSuccess;
}

ncclResult_t abort(ncclComm_t handle) {
  const std::shared_ptr<Comm> comm = registry().find(handle);
  const std::lock_guard lock(comm->clique->mutex);
  comm->aborted = true;
  ++comm->clique->aborted;
  comm->clique->changed.notify_all();
  return ncclSuccess;
}

ncclResult_t all_reduce_call(const void* from, void* to, std::size_t count, ncclDataType_t type,
                             ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
  if (op != ncclSum) return ncclInvalidArgument;
  return queue(comm, stream, {Kind::kAllReduce, from, to, count, type, 0});
}

ncclResult_t all_gather_call(const void* from, void* to, std::size_t count, ncclDataType_t type,
                             ncclComm_t comm, cudaStream_t stream) {
  return queue(comm, stream, {Kind::kAllGather, from, to, count, type, 0});
}

ncclResult_t broadcast_call(const void* from, void* to, std::size_t count, ncclDataType_t type, int root,
                            ncclComm_t comm, cudaStream_t stream) {
  return queue(comm, stream, {Kind::kBroadcast, from, to, count, type, root});
}

ncclResult_t group_start() {
  ++group.depth;
  return ncclSuccess;
}

ncclResult_t group_end() {
  if (--group.depth > 0) return ncclSuccess;
  for (const auto& call : std::exchange(group.calls, {})) call();
  return ncclSuccess;
}

const char* error_string(ncclResult_t result) {
  return result == ncclRemoteError ? "remote process exited or there was a network error" : "an error";
}

const char* last_error(ncclComm_t /*comm*/) {
  return "";
}

}  // namespace

engine::NcclApi nccl_double() {
  return {.get_version = version,
          .get_unique_id = unique_id,
          .comm_init_rank_config = init,
          .comm_get_async_error = async_error,
          .comm_finalize = finalize,
          .comm_destroy = finalize,
          .comm_abort = abort,
          .all_reduce = all_reduce_call,
          .all_gather = all_gather_call,
          .broadcast = broadcast_call,
          .group_start = group_start,
          .group_end = group_end,
          .get_error_string = error_string,
          .get_last_error = last_error};
}

}  // namespace voca::simt::host
