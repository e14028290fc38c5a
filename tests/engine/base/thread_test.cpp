#include "engine/base/thread.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <system_error>

#include "engine/base/error.h"
#include "tests/engine/support/files.h"

namespace voca::engine {
namespace {

using testing::AllOf;
using testing::HasSubstr;

/// What std::thread is on a system that has none left.
struct NoThread {
  template <typename F>
  explicit NoThread(F&& /*f*/) {
    throw std::system_error(EAGAIN, std::generic_category());
  }
};

TEST(Thread, ThatCannotBeStartedIsAnErrorThatSaysWhatToDo) {
  EXPECT_THAT(test::message_of<IoError>([] { static_cast<void>(start_thread<NoThread>("the test", [] {})); }),
              AllOf(HasSubstr("a thread for the test"), HasSubstr("ulimit -u"), HasSubstr("--num_workers")));
}

TEST(Thread, RunsWhatItIsGiven) {
  std::atomic<bool> ran = false;
  start_thread("the test", [&] { ran = true; }).join();
  EXPECT_TRUE(ran);
}

TEST(Team, ThatALibraryCannotStartEndsTheProcessWithOurWords) {
  EXPECT_EXIT(start_team("the test", 2, [] { std::exit(1); }), testing::ExitedWithCode(74),
              "a thread for the test cannot be started.*ulimit -u");
  bool started = false;
  start_team("the test", 2, [&] { started = true; });
  EXPECT_TRUE(started);
  EXPECT_EXIT(std::exit(3), testing::ExitedWithCode(3), "") << "later ends are their own";
}

}  // namespace
}  // namespace voca::engine
