#include "tools/rank_devices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace voca::tools {
namespace {

using engine::DeviceKind;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

RankDevice gpu(const std::string& host, const std::string& uuid) {
  return {.host = host, .kind = DeviceKind::kCuda, .uuid = uuid, .no_gpu = "", .kernels = ""};
}
RankDevice cpu(const std::string& host, const std::string& why) {
  return {.host = host, .kind = DeviceKind::kCpu, .uuid = "", .no_gpu = why, .kernels = "x86-64-v4"};
}

TEST(GpuOfRank, IsItsOwnOfThoseThatAllSee) {
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(gpu_of_rank(rank, 4, 4), rank);
    EXPECT_EQ(gpu_of_rank(rank, 4, 8), rank);
  }
}

TEST(GpuOfRank, IsTheOnlyOneThatItIsShown) {
  for (int rank = 0; rank < 4; ++rank) EXPECT_EQ(gpu_of_rank(rank, 4, 1), 0);
}

TEST(GpuOfRank, IsNoneWhereThereAreTooFew) {
  EXPECT_EQ(gpu_of_rank(1, 4, 2), 1);
  EXPECT_EQ(gpu_of_rank(2, 4, 2), std::nullopt);
  EXPECT_EQ(gpu_of_rank(3, 4, 3), std::nullopt);
}

TEST(RankDevice, ComesBackAsItWasTold) {
  const RankDevice told{.host = "a \"b\"",
                        .kind = DeviceKind::kCuda,
                        .uuid = "GPU-1",
                        .no_gpu = "why",
                        .kernels = "k",
                        .multiply_adds = false};
  const RankDevice heard = rank_device_of(text_of(told));
  EXPECT_EQ(heard.host, told.host);
  EXPECT_EQ(heard.kind, told.kind);
  EXPECT_EQ(heard.uuid, told.uuid);
  EXPECT_EQ(heard.no_gpu, told.no_gpu);
  EXPECT_EQ(heard.kernels, told.kernels);
  EXPECT_EQ(heard.multiply_adds, told.multiply_adds);
}

TEST(DeviceConflict, IsNoneWhereEveryRankHasItsOwn) {
  EXPECT_EQ(device_conflict({gpu("a", "GPU-1"), gpu("a", "GPU-2"), gpu("b", "GPU-3")}), "");
  EXPECT_EQ(device_conflict({cpu("a", "there is no driver"), cpu("b", "")}), "");
  // Virtual machines that were copied may show the same.
  EXPECT_EQ(device_conflict({gpu("a", "GPU-1"), gpu("b", "GPU-1")}), "");
}

TEST(DeviceConflict, NamesRanksThatComputeOnOneGpu) {
  EXPECT_THAT(device_conflict({gpu("a", "GPU-1"), gpu("b", "GPU-1"), gpu("b", "GPU-2"), gpu("b", "GPU-1")}),
              AllOf(HasSubstr("ranks 1, 3 (host b) compute on one GPU, GPU-1"),
                    HasSubstr("srun --gpus-per-task=1"), Not(HasSubstr("\n"))));
}

TEST(DeviceConflict, NamesRanksWithoutAGpuAndWhy) {
  EXPECT_THAT(device_conflict({gpu("a", "GPU-1"), cpu("b", "there is no NVIDIA driver"), gpu("a", "GPU-2")}),
              AllOf(HasSubstr("rank 1 (host b) computes on the CPU, for there is no NVIDIA driver"),
                    HasSubstr("ranks 0, 2 on GPUs"), HasSubstr("--device cpu")));
  EXPECT_THAT(device_conflict({cpu("a", ""), gpu("a", "GPU-2")}),
              HasSubstr("rank 0 (host a) computes on the CPU, rank 1 on GPUs"));
}

TEST(DeviceConflict, NamesRanksWhoseCpuRoundsOtherwise) {
  RankDevice old = cpu("b", "");
  old.kernels = "x86-64-v2";
  old.multiply_adds = false;
  EXPECT_THAT(device_conflict({cpu("a", ""), old, cpu("a", "")}),
              AllOf(HasSubstr("rank 1 (host b) has no multiply-add instructions (x86-64-v2)"),
                    HasSubstr("ranks 0, 2"), HasSubstr("VOCA_CPU_ARCH=x86-64-v2"), Not(HasSubstr("\n"))));
  EXPECT_EQ(device_conflict({old, old}), "");
}

}  // namespace
}  // namespace voca::tools
