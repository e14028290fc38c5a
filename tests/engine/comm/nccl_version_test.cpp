#include "engine/comm/nccl_version.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace voca::engine {
namespace {

using testing::HasSubstr;

TEST(NcclVersion, IsReadInBothWaysOfCounting) {
  EXPECT_EQ(nccl_version(2804).text, "2.8.4");
  EXPECT_EQ(nccl_version(21403).text, "2.14.3");
  EXPECT_EQ(nccl_version(22105).text, "2.21.5");
  EXPECT_EQ(nccl_version(30000).text, "3.0.0");
}

TEST(NcclVersion, TooOldIsRefusedOldIsAdvisedAgainst) {
  for (const int number : {2804, 21304}) {
    EXPECT_FALSE(nccl_version(number).usable);
    EXPECT_THAT(nccl_version(number).advice, HasSubstr("2.14 or newer is needed"));
  }
  for (const int number : {21400, 22005, 22104}) {
    EXPECT_TRUE(nccl_version(number).usable);
    EXPECT_THAT(nccl_version(number).advice, HasSubstr("2.21.5 or newer is advised"));
  }
  for (const int number : {22105, 22809, 30000}) {
    EXPECT_TRUE(nccl_version(number).usable);
    EXPECT_EQ(nccl_version(number).advice, "");
  }
}

}  // namespace
}  // namespace voca::engine
