#include "engine/comm/nccl_communicator.h"

#include "engine/comm/communication_error.h"

#if defined(VOCA_WITH_NCCL)

#include <spdlog/spdlog.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <future>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "engine/base/running_clock.h"
#include "engine/base/thread.h"
#include "engine/comm/nccl_api.h"

namespace voca::engine {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kPoll{1};
constexpr milliseconds kWatch{100};
constexpr milliseconds kLockTimeout{1000};

ncclDataType_t summed_type(const Tensor& data) {
  switch (data.dtype) {
    case DType::kF64:
      return ncclFloat64;
    case DType::kF32:
      return ncclFloat32;
    case DType::kF16:
      return ncclFloat16;
    case DType::kBF16:
      return ncclBfloat16;
    case DType::kI64:
      return ncclInt64;
    case DType::kI32:
      return ncclInt32;
    case DType::kI8:
      return ncclInt8;
    case DType::kU8:
      return ncclUint8;
    default:
      throw InternalError("all_reduce_sum: tensor {} is {}, which NCCL does not sum", data.name,
                          name_of(data.dtype));
  }
}

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(const NcclApi& api, KeyValueStore& store, std::unique_ptr<Communicator> host,
                   const NcclOptions& options);
  ~NcclCommunicator() override;
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  [[nodiscard]] int rank() const override { return host_->rank(); }
  [[nodiscard]] int world_size() const override { return host_->world_size(); }
  void all_reduce_sum(const char* name, Tensor data, Stream stream) override;
  void all_gather_rows(const char* name, const Tensor& part, std::span<const std::int64_t> rows_by_rank,
                       Tensor all, Stream stream) override;
  void broadcast(const char* name, Tensor data, int root, Stream stream) override;
  void barrier(const char* name) override;
  [[nodiscard]] std::vector<double> all_gather_values(const char* name,
                                                      std::span<const double> mine) override;
  void abort() noexcept override;

 private:
  void connect_all(KeyValueStore& store);
  /// One attempt: "" if this rank is connected, else the reason.
  [[nodiscard]] std::string connect(KeyValueStore& store, int attempt, Deadline deadline);
  /// Waits while NCCL is in progress: "" on success, else the reason.
  [[nodiscard]] std::string outcome(ncclResult_t result, Clock::duration allowed);
  [[nodiscard]] std::string describe(ncclResult_t result) const;
  /// Queues a collective: `queue(comm)` makes the NCCL call.
  template <typename Queue>
  void run(const char* collective, const char* name, Queue&& queue);
  /// Runs a collective of the host communicator.
  template <typename Meet>
  auto on_host(const char* collective, const char* name, Meet&& meet);
  /// Throws an earlier failure.
  void check(const char* collective, const char* name);
  void fail(const std::string& reason);
  void watch();
  /// Ends the communicator with ncclCommAbort or ncclCommDestroy and returns its result; nullopt if NCCL does
  /// not return in time, ncclSuccess if there is no communicator.
  std::optional<ncclResult_t> end_nccl(ncclResult_t (*end)(ncclComm_t)) noexcept;
  /// Aborts the communicator; false if NCCL does not return in time.
  bool abort_nccl() noexcept { return end_nccl(api_.comm_abort).has_value(); }

  NcclApi api_;
  std::unique_ptr<Communicator> host_;
  NcclOptions options_;
  std::mutex calls_;           // held for one NCCL call, none of which blocks; guards comm_
  ncclComm_t comm_ = nullptr;  // null before connecting and after an abort
  std::mutex state_;           // guards the members below
  std::condition_variable changed_;
  std::string failure_;  // the first one
  bool stopping_ = false;
  std::thread watcher_;
  int exceptions_at_start_ = std::uncaught_exceptions();
};

NcclCommunicator::NcclCommunicator(const NcclApi& api, KeyValueStore& store,
                                   std::unique_ptr<Communicator> host, const NcclOptions& options)
    : api_(api), host_(std::move(host)), options_(options) {
  VOCA_CHECK(options.attempts >= 1 && options.timeout.count() > 0);
  try {
    connect_all(store);
    watcher_ = start_thread<std::thread>("a communicator", [this] { watch(); });
  } catch (...) {
    abort_nccl();
    throw;
  }
}

// Either all ranks are connected or none: they exchange results after every attempt.
void NcclCommunicator::connect_all(KeyValueStore& store) {
  for (int attempt = 1;; ++attempt) {
    const std::string reason = connect(store, attempt, Clock::now() + options_.timeout / options_.attempts);
    const std::vector<double> connected =
        host_->all_gather_values("NCCL connections", std::vector<double>{reason.empty() ? 1.0 : 0.0});
    std::string failed;
    for (std::size_t r = 0; r < connected.size(); ++r)
      if (connected[r] == 0) failed += fmt::format("{}{}", failed.empty() ? "" : ", ", r);
    if (failed.empty()) return;
    const std::string report =
        fmt::format("NCCL: attempt {} of {} could not connect rank {}; on rank {} of {}: {}", attempt,
                    options_.attempts, failed, rank(), world_size(), reason.empty() ? "connected" : reason);
    if (attempt == options_.attempts) throw CommunicationError("{}; NCCL_DEBUG=INFO tells more", report);
    spdlog::warn("{}", report);
    if (!abort_nccl()) throw CommunicationError("{}; and ncclCommAbort does not return", report);
  }
}

NcclCommunicator::~NcclCommunicator() {
  {
    const std::lock_guard lock(state_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (watcher_.joinable()) watcher_.join();
  const bool unwinding = std::uncaught_exceptions() > exceptions_at_start_;
  if (comm_ == nullptr || unwinding || !failure_.empty()) {
    if (!abort_nccl()) spdlog::error("NCCL: rank {}: ncclCommAbort does not return", rank());
    return;
  }
  const std::string reason = outcome(api_.comm_finalize(comm_), options_.abort_timeout);
  if (reason.empty()) {
    const std::optional<ncclResult_t> destroyed = end_nccl(api_.comm_destroy);
    if (!destroyed) spdlog::error("NCCL: rank {}: ncclCommDestroy does not return", rank());
    if (destroyed.value_or(ncclSuccess) != ncclSuccess)
      spdlog::error("NCCL: rank {}: {}", rank(), describe(*destroyed));
    return;
  }
  spdlog::error("NCCL: rank {}: cannot end in peace: {}", rank(), reason);
  if (!abort_nccl()) spdlog::error("NCCL: rank {}: ncclCommAbort does not return", rank());
}

std::string NcclCommunicator::describe(ncclResult_t result) const {
  const char* const last = api_.get_last_error(nullptr);  // of the process, not the communicator
  return fmt::format("{}{}{}", api_.get_error_string(result), last == nullptr || *last == '\0' ? "" : ": ",
                     last == nullptr ? "" : last);
}

std::string NcclCommunicator::outcome(ncclResult_t result, Clock::duration allowed) {
  RunningClock clock;
  const auto begin = clock.now();
  while (true) {
    if (result == ncclSuccess) return {};
    if (result != ncclInProgress) return describe(result);
    const auto waited = clock.now() - begin;
    if (waited > allowed) return "NCCL is still busy when the time is up (--comm_timeout)";
    // Queueing takes microseconds, connecting takes seconds.
    if (waited < kPoll) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(kPoll);
    }
    const std::lock_guard lock(calls_);
    if (comm_ == nullptr) return "aborted";
    const ncclResult_t asked = api_.comm_get_async_error(comm_, &result);
    if (asked != ncclSuccess) return describe(asked);
  }
}

std::string NcclCommunicator::connect(KeyValueStore& store, int attempt, Deadline deadline) {
  const std::string key = fmt::format("nccl/{}/{}", options_.name, attempt);
  ncclUniqueId id{};
  if (rank() == 0) {
    const ncclResult_t result = api_.get_unique_id(&id);
    const bool made = result == ncclSuccess;
    store.set(key, made ? std::string(id.internal, sizeof(id.internal)) : std::string());
    if (!made) return describe(result);
  } else {
    const std::string value = store.get(key, deadline);
    if (value.size() != sizeof(id.internal)) return "rank 0 has no id for this attempt";
    std::memcpy(id.internal, value.data(), value.size());
  }
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  ncclResult_t result = ncclSuccess;
  {
    const std::lock_guard lock(calls_);
    result = api_.comm_init_rank_config(&comm_, world_size(), id, rank(), &config);
  }
  return outcome(result, deadline - Clock::now());
}

void NcclCommunicator::check(const char* collective, const char* name) {
  const std::lock_guard lock(state_);
  if (!failure_.empty())
    throw CommunicationError("{} of {}: rank {} of {}: {}", collective, name, rank(), world_size(), failure_);
}

void NcclCommunicator::fail(const std::string& reason) {
  {
    const std::lock_guard lock(state_);
    if (failure_.empty()) failure_ = reason;
  }
  abort();
}

template <typename Queue>
void NcclCommunicator::run(const char* collective, const char* name, Queue&& queue) {
  check(collective, name);
  const auto started = Clock::now();
  ncclResult_t result = ncclSuccess;
  {
    const std::lock_guard lock(calls_);
    if (comm_ != nullptr) result = queue(comm_);
  }
  const std::string reason = outcome(result, options_.timeout);
  if (!reason.empty()) fail(fmt::format("after {:.3f} s: {}", seconds_since(started), reason));
  check(collective, name);
}

void NcclCommunicator::all_reduce_sum(const char* name, Tensor data, Stream stream) {
  const ncclDataType_t type = summed_type(data);
  const auto count = static_cast<std::size_t>(data.elements());
  if (count == 0) return;
  run("all_reduce_sum", name, [&](ncclComm_t comm) {
    return api_.all_reduce(data.data, data.data, count, type, ncclSum, comm, stream);
  });
}

void NcclCommunicator::all_gather_rows(const char* name, const Tensor& part,
                                       std::span<const std::int64_t> rows_by_rank, Tensor all,
                                       Stream stream) {
  VOCA_CHECK(rows_by_rank.size() == static_cast<std::size_t>(world_size()) && part.dtype == all.dtype);
  auto* const queue = stream;
  const auto differs = [&](std::int64_t rows) { return rows != rows_by_rank[0]; };
  if (std::none_of(rows_by_rank.begin(), rows_by_rank.end(), differs)) {
    VOCA_CHECK(part.bytes() * rows_by_rank.size() == all.bytes());
    if (part.bytes() == 0) return;
    run("all_gather", name, [&](ncclComm_t comm) {
      return api_.all_gather(part.data, all.data, part.bytes(), ncclUint8, comm, queue);
    });
    return;
  }
  run("all_gather", name, [&](ncclComm_t comm) {
    ncclResult_t result = api_.group_start();
    std::int64_t first = 0;
    for (int r = 0; r < world_size() && result == ncclSuccess; ++r) {
      const std::int64_t rows = rows_by_rank[static_cast<std::size_t>(r)];
      const Tensor place = all.rows(first, rows);
      first += rows;
      if (place.bytes() == 0) continue;
      const void* const from = r == rank() ? part.data : place.data;
      result = api_.broadcast(from, place.data, place.bytes(), ncclUint8, r, comm, queue);
      if (result == ncclInProgress) result = ncclSuccess;  // inside a group; group_end reports it
    }
    const ncclResult_t ended = api_.group_end();
    return result == ncclSuccess ? ended : result;
  });
}

void NcclCommunicator::broadcast(const char* name, Tensor data, int root, Stream stream) {
  VOCA_CHECK(root >= 0 && root < world_size());
  if (data.bytes() == 0) return;
  run("broadcast", name, [&](ncclComm_t comm) {
    return api_.broadcast(data.data, data.data, data.bytes(), ncclUint8, root, comm, stream);
  });
}

template <typename Meet>
auto NcclCommunicator::on_host(const char* collective, const char* name, Meet&& meet) {
  check(collective, name);
  try {
    return meet();
  } catch (const CommunicationError&) {
    check(collective, name);  // an abort after an NCCL failure also ends host collectives: report the cause
    throw;
  }
}

void NcclCommunicator::barrier(const char* name) {
  on_host("barrier", name, [&] { host_->barrier(name); });
  check("barrier", name);
}

std::vector<double> NcclCommunicator::all_gather_values(const char* name, std::span<const double> mine) {
  std::vector<double> all = on_host("all_gather", name, [&] { return host_->all_gather_values(name, mine); });
  check("gather", name);
  return all;
}

// Asynchronous failures are detected only here.
void NcclCommunicator::watch() {
  std::unique_lock lock(state_);
  while (!changed_.wait_for(lock, kWatch, [&] { return stopping_; })) {
    lock.unlock();
    std::string reason;
    {
      const std::lock_guard call(calls_);
      ncclResult_t result = ncclSuccess;
      if (comm_ != nullptr && api_.comm_get_async_error(comm_, &result) == ncclSuccess &&
          result != ncclSuccess && result != ncclInProgress)
        reason = describe(result);
    }
    if (!reason.empty()) fail("a collective that was under way failed: " + reason);
    lock.lock();
  }
}

std::optional<ncclResult_t> NcclCommunicator::end_nccl(ncclResult_t (*end)(ncclComm_t)) noexcept {
  // Stop waiting for the lock after a while: an NCCL call that never returns must not prevent the abort.
  const Deadline deadline = Clock::now() + kLockTimeout;
  bool locked = calls_.try_lock();
  while (!locked && Clock::now() < deadline) {
    std::this_thread::sleep_for(kPoll);
    locked = calls_.try_lock();
  }
  auto* const comm = std::exchange(comm_, nullptr);
  if (locked) calls_.unlock();
  if (comm == nullptr) return ncclSuccess;

  try {
    std::packaged_task<ncclResult_t()> task([comm, end] { return end(comm); });
    std::future<ncclResult_t> result = task.get_future();
    std::thread(std::move(task)).detach();
    if (result.wait_for(options_.abort_timeout) == std::future_status::ready) return result.get();
    return std::nullopt;
  } catch (const std::exception&) {  // no thread could be started
    return std::nullopt;
  }
}

void NcclCommunicator::abort() noexcept {
  {
    const std::lock_guard lock(state_);
    if (failure_.empty()) failure_ = "aborted";
  }
  if (!abort_nccl()) spdlog::error("NCCL: rank {}: ncclCommAbort does not return", rank());
  host_->abort();
}

}  // namespace

bool with_nccl() {
  return true;
}

std::unique_ptr<Communicator> make_nccl_communicator(const NcclApi& api, KeyValueStore& store,
                                                     std::unique_ptr<Communicator> host,
                                                     const NcclOptions& options) {
  return std::make_unique<NcclCommunicator>(api, store, std::move(host), options);
}

std::unique_ptr<Communicator> make_nccl_communicator(KeyValueStore& store, std::unique_ptr<Communicator> host,
                                                     const NcclOptions& options) {
  return make_nccl_communicator(load_nccl(), store, std::move(host), options);
}

}  // namespace voca::engine

#else

namespace voca::engine {

bool with_nccl() {
  return false;
}

std::unique_ptr<Communicator> make_nccl_communicator(KeyValueStore& /*store*/,
                                                     std::unique_ptr<Communicator> host,
                                                     const NcclOptions& /*options*/) {
  throw UsageError(
      "a job of {} GPUs needs NCCL, whose nccl.h this build has not: install libnccl-dev and build again",
      host->world_size());
}

}  // namespace voca::engine

#endif
