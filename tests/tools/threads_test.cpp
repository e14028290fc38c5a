#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "engine/base/atomic_file.h"
#include "tests/data/support/scratch.h"
#include "tests/tools/support/program.h"
#include "tests/tools/support/small_data.h"

// What doctor says of threads is what a training takes, whatever limits them.

namespace voca::tools::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class ThreadsOfTheProgram : public ::testing::Test {
 protected:
  void SetUp() override {
    make_small_tree(scratch_ / "tree", 20);
    pack_small_tree(scratch_ / "tree", scratch_ / "packed.h5");
  }
  /// Expects that doctor and a training take so many threads, doctor with this reason.
  void expect_threads(int threads, const std::string& reason,
                      std::map<std::string, std::string> variables) const {
    const Outcome doctor = run({"doctor", "--json"}, scratch_.path(), variables);
    const std::string text = doctor.json()["findings"]["cores"]["text"];
    EXPECT_THAT(text, StartsWith(fmt::format("{} thread{} for kernels: ", threads, threads == 1 ? "" : "s")));
    EXPECT_THAT(text, HasSubstr(reason));
    const Outcome trained =
        run(small_training("packed.h5") + Words{"--epochs=1", "--device=cpu", "--overwrite"}, scratch_.path(),
            variables);
    ASSERT_EQ(trained.exit_code, 0) << trained.err;
    const auto config =
        nlohmann::ordered_json::parse(engine::read_text_file(scratch_ / "voca_run/config.json", 1 << 20));
    EXPECT_THAT(config["device"].get<std::string>(), StartsWith(fmt::format("cpu, {} thread", threads)));
  }
  data::testing::Scratch scratch_;
};

TEST_F(ThreadsOfTheProgram, AreOmpNumThreadsInDoctorAndTrain) {
  expect_threads(1, "OMP_NUM_THREADS is 1", {{"OMP_NUM_THREADS", "1"}});
  expect_threads(3, "OMP_NUM_THREADS is 3", {{"OMP_NUM_THREADS", "3"}});
}

TEST_F(ThreadsOfTheProgram, AreTheCoresOfTheAffinityInDoctorAndTrain) {
  cpu_set_t before;
  ASSERT_EQ(::sched_getaffinity(0, sizeof(before), &before), 0);
  if (CPU_COUNT(&before) < 2) GTEST_SKIP() << "one core";
  cpu_set_t one;
  CPU_ZERO(&one);
  for (std::size_t core = 0; CPU_COUNT(&one) == 0; ++core)
    if (CPU_ISSET(core, &before)) CPU_SET(core, &one);
  ASSERT_EQ(::sched_setaffinity(0, sizeof(one), &one), 0);  // inherited by what is started
  expect_threads(1, "1 core of its affinity", {{"OMP_NUM_THREADS", ""}});
  ::sched_setaffinity(0, sizeof(before), &before);
}

TEST_F(ThreadsOfTheProgram, ThatCannotBeStartedAreOneLine) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer starts a thread of its own";
#endif
  // Nobody limits the threads of root.
  const std::string as_nobody = ::geteuid() == 0 ? "setpriv --reuid=65534 --clear-groups " : "";
  const std::string program = fmt::format("{}'{}'", as_nobody, VOCA_PROGRAM);
  std::filesystem::permissions(scratch_.path(), std::filesystem::perms::all);
  const auto exit_code = [&](const std::string& command) {
    const int status =
        std::system(fmt::format("cd '{}' && {} >out 2>err", scratch_.path().string(), command).c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  };
  if (exit_code(program + " version") != 0) GTEST_SKIP() << "nobody may not start the program from here";
  const std::string limited = "prlimit --nproc=1 " + program;
  EXPECT_EQ(exit_code(limited + " inspect packed.h5"), 74);
  EXPECT_THAT(engine::read_text_file(scratch_ / "err", 1 << 16),
              HasSubstr("cannot start the process that opens it first: "));
  EXPECT_EQ(exit_code(limited + " train --features_root=packed.h5 --device=cpu --threads=2"), 74);
  EXPECT_THAT(engine::read_text_file(scratch_ / "err", 1 << 16),
              StartsWith("voca-engine: a thread for the kernels cannot be started: "));
}

}  // namespace
}  // namespace voca::tools::testing
