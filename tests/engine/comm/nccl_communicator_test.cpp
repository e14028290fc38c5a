// What the engine does around NCCL, on functions that stand in for the library: no GPU, no NCCL.

#include "engine/comm/nccl_communicator.h"
#include "engine/rendezvous/memory_store.h"

#if defined(VOCA_WITH_NCCL)

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "engine/comm/communication_error.h"
#include "engine/comm/nccl_api.h"
#include "support/ranks.h"
#include "support/single_communicator.h"

namespace voca::engine {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

/// What stands behind a communicator's handle.
struct FakeComm {
  bool fails = false;
  std::atomic<int> polls_left{0};
};

/// What the stand-ins do, and what was asked of them.
struct Script {
  std::atomic<int> busy_polls{0};        ///< answers "in progress" before an initialisation is through
  std::atomic<int> failing_inits{0};     ///< initialisations that fail
  std::atomic<bool> never_ready{false};  ///< initialisations stay in progress
  std::atomic<bool> abort_hangs{false};
  std::atomic<bool> destroy_hangs{false};
  std::atomic<int> async_error{ncclSuccess};
  std::atomic<int> collective_result{ncclSuccess};

  std::atomic<int> ids{0};
  std::atomic<int> aborts{0};
  std::atomic<int> aborts_ended{0};
  std::atomic<int> destroyed{0};
  std::atomic<int> destroys_ended{0};
  std::atomic<int> blocking{-1};
  std::mutex mutex;
  std::deque<FakeComm> comms;
  std::vector<std::string> log;
  std::set<char> ids_used;
};
Script* script = nullptr;

void note(const std::string& line) {
  const std::lock_guard lock(script->mutex);
  script->log.push_back(line);
}

FakeComm& fake(ncclComm_t comm) {
  return *reinterpret_cast<FakeComm*>(comm);
}

ncclResult_t fake_version(int* version) {
  *version = NCCL_VERSION(2, 20, 0);
  return ncclSuccess;
}
ncclResult_t fake_id(ncclUniqueId* id) {
  id->internal[0] = static_cast<char>(++script->ids);
  return ncclSuccess;
}
ncclResult_t fake_init(ncclComm_t* comm, int /*ranks*/, ncclUniqueId id, int /*rank*/, ncclConfig_t* config) {
  script->blocking = config->blocking;
  const std::lock_guard lock(script->mutex);
  FakeComm& made = script->comms.emplace_back();
  made.fails = script->failing_inits.fetch_sub(1) > 0;
  made.polls_left = script->busy_polls.load();
  script->ids_used.insert(id.internal[0]);
  *comm = reinterpret_cast<ncclComm_t>(&made);
  return ncclInProgress;
}
ncclResult_t fake_async_error(ncclComm_t comm, ncclResult_t* result) {
  *result = static_cast<ncclResult_t>(script->async_error.load());
  if (script->never_ready || fake(comm).polls_left.fetch_sub(1) > 0) *result = ncclInProgress;
  if (fake(comm).fails) *result = ncclSystemError;
  return ncclSuccess;
}
ncclResult_t fake_finalize(ncclComm_t /*comm*/) {
  return ncclSuccess;
}
ncclResult_t fake_destroy(ncclComm_t /*comm*/) {
  ++script->destroyed;
  while (script->destroy_hangs) std::this_thread::sleep_for(milliseconds(1));
  ++script->destroys_ended;
  return ncclSuccess;
}
ncclResult_t fake_abort(ncclComm_t /*comm*/) {
  ++script->aborts;
  while (script->abort_hangs) std::this_thread::sleep_for(milliseconds(1));
  ++script->aborts_ended;
  return ncclSuccess;
}
ncclResult_t fake_all_reduce(const void* from, void* to, size_t count, ncclDataType_t type, ncclRedOp_t op,
                             ncclComm_t /*comm*/, cudaStream_t stream) {
  EXPECT_EQ(from, to);
  EXPECT_EQ(op, ncclSum);
  note(fmt::format("all_reduce {} of type {} on {}", count, static_cast<int>(type), fmt::ptr(stream)));
  return static_cast<ncclResult_t>(script->collective_result.load());
}
ncclResult_t fake_all_gather(const void* /*from*/, void* /*to*/, size_t count, ncclDataType_t /*type*/,
                             ncclComm_t /*comm*/, cudaStream_t /*stream*/) {
  note(fmt::format("all_gather {}", count));
  return ncclSuccess;
}
ncclResult_t fake_broadcast(const void* /*from*/, void* /*to*/, size_t count, ncclDataType_t /*type*/,
                            int root, ncclComm_t /*comm*/, cudaStream_t /*stream*/) {
  note(fmt::format("broadcast {} from {}", count, root));
  return ncclSuccess;
}
ncclResult_t fake_group_start() {
  note("group");
  return ncclSuccess;
}
ncclResult_t fake_group_end() {
  note("end of group");
  return ncclSuccess;
}
const char* fake_error_string(ncclResult_t result) {
  return result == ncclRemoteError ? "remote process exited" : "unhandled system error";
}
const char* fake_last_error(ncclComm_t /*comm*/) {
  return "socket closed";
}

NcclApi fake_nccl() {
  return {.get_version = fake_version,
          .get_unique_id = fake_id,
          .comm_init_rank_config = fake_init,
          .comm_get_async_error = fake_async_error,
          .comm_finalize = fake_finalize,
          .comm_destroy = fake_destroy,
          .comm_abort = fake_abort,
          .all_reduce = fake_all_reduce,
          .all_gather = fake_all_gather,
          .broadcast = fake_broadcast,
          .group_start = fake_group_start,
          .group_end = fake_group_end,
          .get_error_string = fake_error_string,
          .get_last_error = fake_last_error};
}

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const CommunicationError& error) {
    return error.what();
  }
  return "no error";
}

class Nccl : public ::testing::Test {
 protected:
  Nccl() { script = &script_; }
  ~Nccl() override {
    script_.abort_hangs = script_.destroy_hangs = false;
    while (script_.aborts_ended < script_.aborts || script_.destroys_ended < script_.destroyed)
      std::this_thread::sleep_for(milliseconds(1));
  }

  std::unique_ptr<Communicator> make(const NcclOptions& options = {}) {
    return make_nccl_communicator(fake_nccl(), store_, testing::make_single_communicator(), options);
  }
  static Tensor tensor(DType dtype, const Shape& shape) {
    static std::array<std::byte, 4096> memory;
    return {.data = memory.data(), .shape = shape, .dtype = dtype, .device = DeviceKind::kCuda, .name = "x"};
  }

  Script script_;
  MemoryStore store_;
};

TEST_F(Nccl, ConnectsWithoutBlockingAndEndsInPeace) {
  script_.busy_polls = 20;
  make();
  EXPECT_EQ(script_.blocking, 0);
  EXPECT_LT(script_.comms[0].polls_left, 0) << "it was asked until it was through";
  EXPECT_EQ(script_.destroyed, 1);
  EXPECT_EQ(script_.aborts, 0);
}

TEST_F(Nccl, AFailedAttemptIsGivenUpAndTriedAgainWithANewId) {
  script_.failing_inits = 2;
  make({.attempts = 3});
  EXPECT_EQ(script_.ids, 3);
  EXPECT_EQ(script_.ids_used, (std::set<char>{1, 2, 3}));
  EXPECT_EQ(script_.aborts, 2);
}

TEST_F(Nccl, WhatNeverConnectsSaysSo) {
  script_.failing_inits = 100;
  const std::string message = message_of([&] { make({.attempts = 2}); });
  EXPECT_NE(message.find("attempt 2 of 2 could not connect rank 0"), std::string::npos) << message;
  EXPECT_NE(message.find("unhandled system error: socket closed"), std::string::npos) << message;
  EXPECT_EQ(script_.aborts, 2);
}

TEST_F(Nccl, AnInitialisationThatStaysBusyEndsAtTheDeadline) {
  script_.never_ready = true;
  const auto begin = Clock::now();
  const std::string message = message_of([&] { make({.timeout = milliseconds(200), .attempts = 2}); });
  EXPECT_NE(message.find("still busy"), std::string::npos) << message;
  EXPECT_GE(Clock::now() - begin, milliseconds(200));
  EXPECT_EQ(script_.ids, 2);
}

TEST_F(Nccl, AnAbortThatHangsIsLeftBehind) {
  auto ranks = make({.abort_timeout = milliseconds(50)});
  script_.abort_hangs = true;
  ranks->abort();  // returns
  EXPECT_EQ(script_.aborts, 1);
  const std::string message = message_of([&] { ranks->barrier("step"); });
  EXPECT_NE(message.find("barrier of step: rank 0 of 1: aborted"), std::string::npos) << message;
  ranks.reset();
  EXPECT_EQ(script_.aborts, 1) << "once";
  EXPECT_EQ(script_.destroyed, 0);
}

TEST_F(Nccl, ADestructionThatHangsIsLeftBehind) {
  auto ranks = make({.abort_timeout = milliseconds(50)});
  script_.destroy_hangs = true;
  ranks.reset();  // returns
  EXPECT_EQ(script_.destroyed, 1);
  EXPECT_EQ(script_.destroys_ended, 0);
  EXPECT_EQ(script_.aborts, 0);
}

TEST_F(Nccl, AnErrorBehindAReturnedCallIsFoundAndEndsTheQueuedWork) {
  const auto ranks = make();
  ranks->all_reduce_sum("gradients", tensor(DType::kF32, {8}), nullptr);
  script_.async_error = ncclRemoteError;
  const auto give_up = Clock::now() + std::chrono::seconds(30);
  while (script_.aborts == 0 && Clock::now() < give_up) std::this_thread::sleep_for(milliseconds(5));
  EXPECT_EQ(script_.aborts, 1);
  const std::vector<double> none;
  for (const std::string& message :
       {message_of([&] { ranks->all_reduce_sum("gradients", tensor(DType::kF32, {8}), nullptr); }),
        message_of([&] { static_cast<void>(ranks->all_gather_values("decisions", none)); })}) {
    EXPECT_NE(message.find("remote process exited: socket closed"), std::string::npos) << message;
  }
}

TEST_F(Nccl, ARefusedCollectiveSaysWhichAndWhy) {
  const auto ranks = make();
  script_.collective_result = ncclSystemError;
  const std::string message =
      message_of([&] { ranks->all_reduce_sum("gradients", tensor(DType::kF32, {8}), nullptr); });
  EXPECT_NE(message.find("all_reduce_sum of gradients: rank 0 of 1: after "), std::string::npos) << message;
  EXPECT_NE(message.find("unhandled system error"), std::string::npos) << message;
  EXPECT_EQ(script_.aborts, 1);
}

TEST_F(Nccl, ACollectiveStillBusyIsWaitedFor) {
  const auto ranks = make();
  script_.collective_result = ncclInProgress;
  script_.comms[0].polls_left = 10;
  ranks->all_reduce_sum("gradients", tensor(DType::kF32, {8}), nullptr);
  EXPECT_LT(script_.comms[0].polls_left, 0);
}

TEST_F(Nccl, IsAskedInItsOwnTypesOnTheStreamGiven) {
  const auto ranks = make();
  int place = 0;
  const auto stream = reinterpret_cast<Stream>(&place);
  ranks->all_reduce_sum("a", tensor(DType::kF32, {8}), stream);
  ranks->all_reduce_sum("b", tensor(DType::kBF16, {2, 3}), stream);
  ranks->all_reduce_sum("c", tensor(DType::kF16, {5}), stream);
  ranks->all_reduce_sum("nothing", tensor(DType::kF16, {0}), stream);
  ranks->broadcast("d", tensor(DType::kF32, {3}), 0, stream);
  const std::vector<std::int64_t> rows{4};
  ranks->all_gather_rows("e", tensor(DType::kF16, {4, 3}), rows, tensor(DType::kF16, {4, 3}), stream);
  const auto sum = [&](int count, ncclDataType_t type) {
    return fmt::format("all_reduce {} of type {} on {}", count, static_cast<int>(type), fmt::ptr(stream));
  };
  EXPECT_EQ(script_.log,
            (std::vector<std::string>{sum(8, ncclFloat32), sum(6, ncclBfloat16), sum(5, ncclFloat16),
                                      "broadcast 12 from 0", "all_gather 24"}));
  EXPECT_THROW(ranks->all_reduce_sum("f", tensor(DType::kI16, {1}), nullptr), InternalError);
}

TEST_F(Nccl, PartsOfUnequalSizesAreBroadcastInOneGroup) {
  if (!with_gloo()) GTEST_SKIP() << "built without Gloo";
  constexpr int kRanks = 3;
  const std::vector<std::int64_t> rows{2, 0, 1};
  std::vector<std::thread> threads;
  threads.reserve(kRanks);
  for (int rank = 0; rank < kRanks; ++rank) {
    threads.emplace_back([&, rank] {
      const auto ranks = make_nccl_communicator(
          fake_nccl(), store_, make_gloo_communicator(store_, rank, kRanks, {.name = "host"}), {});
      if (rank != 1) return;
      ranks->all_gather_rows("rows", tensor(DType::kF32, {0, 4}), rows, tensor(DType::kF32, {3, 4}), nullptr);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(script_.log, (std::vector<std::string>{"group", "broadcast 32 from 0", "broadcast 16 from 2",
                                                   "end of group"}));
}

TEST_F(Nccl, AllRanksTryAgainWhenOneOfThemFailed) {
  if (!with_gloo()) GTEST_SKIP() << "built without Gloo";
  constexpr int kRanks = 2;
  script_.failing_inits = 1;
  std::vector<std::thread> threads;
  threads.reserve(kRanks);
  for (int rank = 0; rank < kRanks; ++rank) {
    threads.emplace_back([&, rank] {
      const auto ranks = make_nccl_communicator(
          fake_nccl(), store_, make_gloo_communicator(store_, rank, kRanks, {.name = "host"}), {});
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(script_.ids_used, (std::set<char>{1, 2}));
  EXPECT_EQ(script_.aborts, kRanks) << "the one that was connected gives up as well";
  EXPECT_EQ(script_.destroyed, kRanks);
}

TEST(NcclLibrary, ThatIsNotThereIsNamed) {
  try {
    static_cast<void>(load_nccl("libnccl-of-no-one.so.2"));
    FAIL() << "it was found";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    EXPECT_NE(std::string(error.what()).find("libnccl-of-no-one.so.2"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("install libnccl2"), std::string::npos) << error.what();
  }
}

TEST(NcclLibrary, GivesIdsWithoutAGpu) {
  NcclApi api;
  try {
    api = load_nccl();
  } catch (const Error& error) {
    GTEST_SKIP() << error.what();
  }
  ncclUniqueId first{};
  ncclUniqueId second{};
  ASSERT_EQ(api.get_unique_id(&first), ncclSuccess);
  ASSERT_EQ(api.get_unique_id(&second), ncclSuccess);
  EXPECT_NE(std::string(first.internal, sizeof(first)), std::string(second.internal, sizeof(second)));
}

}  // namespace
}  // namespace voca::engine

#endif
