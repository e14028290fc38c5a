#include "tools/joined_job.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <random>
#include <sstream>
#include <thread>
#include <vector>

#include "engine/base/activity.h"
#include "engine/base/error.h"
#include "engine/comm/communicator.h"
#include "tests/data/support/scratch.h"

// Ranks are forked processes that meet as the program's do.

namespace voca::tools {
namespace {

using data::testing::Scratch;
using engine::DeviceKind;
using testing::AllOf;
using testing::HasSubstr;
using Clock = std::chrono::steady_clock;

class JoinedJobOfRanks : public testing::Test {
 protected:
  void SetUp() override {
    if (!engine::with_gloo()) GTEST_SKIP() << "built without Gloo";
  }
  struct Ended {
    int code = -1;  ///< −signal where one ended it
    std::string said;
  };
  /// Runs `body` in a job of so many forked ranks.
  std::vector<Ended> run(int world_size, double comm_timeout,
                         const std::function<void(JoinedJob&)>& body) const {
    std::random_device random;
    const std::string port = std::to_string(std::uniform_int_distribution<int>(20000, 30000)(random));
    std::vector<pid_t> ranks;
    for (int rank = 0; rank < world_size; ++rank) {
      ranks.push_back(::fork());
      if (ranks.back() == 0) be_rank(rank, world_size, port, comm_timeout, body);
    }
    std::vector<Ended> ended;
    for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
      int status = 0;
      ::waitpid(ranks[rank], &status, 0);
      std::ifstream file(said_by(static_cast<int>(rank)));
      std::stringstream text;
      text << file.rdbuf();
      ended.push_back({WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status), text.str()});
    }
    return ended;
  }

 private:
  [[nodiscard]] std::string said_by(int rank) const { return here_ / ("said." + std::to_string(rank)); }
  [[noreturn]] void be_rank(int rank, int world_size, const std::string& port, double comm_timeout,
                            const std::function<void(JoinedJob&)>& body) const {
    static_cast<void>(std::freopen(said_by(rank).c_str(), "w", stderr));
    const std::string all = std::to_string(world_size);
    const std::string number = std::to_string(rank);
    for (const auto& [name, value] :
         std::vector<std::pair<const char*, std::string>>{{"RANK", number},
                                                          {"WORLD_SIZE", all},
                                                          {"LOCAL_RANK", number},
                                                          {"LOCAL_WORLD_SIZE", all},
                                                          {"MASTER_PORT", port},
                                                          {"TORCHELASTIC_USE_AGENT_STORE", "False"},
                                                          {"VOCA_JOB_SECRET", std::string(32, 'x')}})
      ::setenv(name, value.c_str(), 1);
    int code = 0;
    try {
      in_job({}, comm_timeout, body);
    } catch (const engine::Error& error) {
      std::fprintf(stderr, "%s", error.what());
      code = static_cast<int>(error.code());
    }
    std::fflush(stderr);
    ::_exit(code);
  }

  Scratch here_;
};

/// Three times as long as a rank may stand still.
void work_for_a_while(double comm_timeout) {
  const auto end = Clock::now() + std::chrono::duration<double>(3 * comm_timeout);
  while (Clock::now() < end) {
    engine::report_activity("a long piece of work");
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

TEST_F(JoinedJobOfRanks, WaitForARankThatGetsOnHoweverLongItTakes) {
  constexpr double kTimeout = 2;
  const std::vector<Ended> ended = run(3, kTimeout, [](JoinedJob& job) {
    if (job.first()) work_for_a_while(kTimeout);
    job.meet("the first step");
    job.meet("the first step");  // once more
  });
  for (const Ended& rank : ended) EXPECT_EQ(rank.code, 0) << rank.said;
}

TEST_F(JoinedJobOfRanks, DoNotWaitForARankThatHangs) {
  const std::vector<Ended> ended = run(2, 2, [](JoinedJob& job) {
    if (job.first()) {
      engine::report_activity("a disk that is dead");
      std::this_thread::sleep_for(std::chrono::hours(1));
    }
    job.meet("the first step");
  });
  for (const Ended& rank : ended) {
    EXPECT_EQ(rank.code, 74) << rank.said;
    EXPECT_THAT(rank.said, AllOf(HasSubstr("rank 0"), HasSubstr("has made no progress"),
                                 HasSubstr("rank 0 at a disk that is dead")));
  }
}

TEST_F(JoinedJobOfRanks, ThatComputeOnOneGpuAreRefusedByName) {
  const std::vector<Ended> ended = run(3, 60, [](JoinedJob& job) {
    const int rank = job.environment().rank;
    job.agree_on_devices(
        {.host = "gpu07", .kind = DeviceKind::kCuda, .uuid = rank == 1 ? "GPU-1" : "GPU-0", .no_gpu = ""});
  });
  for (const Ended& rank : ended) {
    EXPECT_EQ(rank.code, 64) << rank.said;
    EXPECT_THAT(rank.said, HasSubstr("ranks 0, 2 (host gpu07) compute on one GPU, GPU-0"));
  }
}

TEST_F(JoinedJobOfRanks, WithAGpuEachAgree) {
  const std::vector<Ended> ended = run(3, 60, [](JoinedJob& job) {
    job.agree_on_devices({.host = "gpu07",
                          .kind = DeviceKind::kCuda,
                          .uuid = "GPU-" + std::to_string(job.environment().rank),
                          .no_gpu = ""});
  });
  for (const Ended& rank : ended) EXPECT_EQ(rank.code, 0) << rank.said;
}

TEST_F(JoinedJobOfRanks, HearTheAlgorithmsThatRankZeroTells) {
  const std::vector<Ended> ended = run(3, 60, [](JoinedJob& job) {
    const engine::AlgorithmSharing sharing = job.algorithm_sharing();
    for (const char* text : {"of the training", "of the test"}) {
      if (sharing.chooses) {
        sharing.tell(text);
      } else if (sharing.hear() != text) {
        throw engine::InternalError("another text");
      }
    }
    if (sharing.chooses != job.first()) throw engine::InternalError("another rank chooses");
  });
  for (const Ended& rank : ended) EXPECT_EQ(rank.code, 0) << rank.said;
}

}  // namespace
}  // namespace voca::tools
