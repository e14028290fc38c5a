#include "engine/base/unique_handle.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <utility>
#include <vector>

#include "engine/base/unique_fd.h"

namespace voca::engine {
namespace {

using testing::ElementsAre;

std::vector<int>& closed() {
  static std::vector<int> handles;
  return handles;
}

struct NumberTraits {
  static constexpr int kNone = 0;
  static void close(int number) { closed().push_back(number); }
};
using Number = UniqueHandle<NumberTraits>;

class UniqueHandleTest : public testing::Test {
 protected:
  void SetUp() override { closed().clear(); }
};

TEST_F(UniqueHandleTest, ClosesWhatItOwnsOnce) {
  {
    const Number none;
    const Number one(1);
    EXPECT_FALSE(none);
    EXPECT_TRUE(one);
    EXPECT_EQ(one.get(), 1);
  }
  EXPECT_THAT(closed(), ElementsAre(1));
}

TEST_F(UniqueHandleTest, MovesOwnershipAndClosesWhatItOwnedBefore) {
  Number one(1);
  Number moved(std::move(one));
  EXPECT_FALSE(one);  // NOLINT(bugprone-use-after-move): says what a moved-from handle is
  Number two(2);
  two = std::move(moved);
  EXPECT_THAT(closed(), ElementsAre(2));
  EXPECT_EQ(two.get(), 1);
  Number& same = two;
  two = std::move(same);
  EXPECT_EQ(two.get(), 1);
  two = Number();
  EXPECT_THAT(closed(), ElementsAre(2, 1));
}

TEST_F(UniqueHandleTest, ResetClosesAndReleaseDoesNot) {
  Number number(1);
  number.reset(2);
  EXPECT_THAT(closed(), ElementsAre(1));
  EXPECT_EQ(number.release(), 2);
  EXPECT_FALSE(number);
  number.reset();
  EXPECT_THAT(closed(), ElementsAre(1));
}

TEST(UniqueFd, ClosesADescriptorAndTakesMinusOneForNone) {
  EXPECT_FALSE(UniqueFd(::open("/nonexistent", O_RDONLY | O_CLOEXEC)));
  int number = -1;
  {
    const UniqueFd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    ASSERT_TRUE(null);
    number = null.get();
    EXPECT_GE(::fcntl(number, F_GETFD), 0);
  }
  EXPECT_EQ(::fcntl(number, F_GETFD), -1);
  EXPECT_EQ(errno, EBADF);
}

}  // namespace
}  // namespace voca::engine
