#include <gtest/gtest.h>

#include "tests/simt/ranks_support.h"

#if defined(VOCA_TEST_CUDA)
#include <dlfcn.h>

#include <cstdlib>
#endif

// Two ranks that both process the whole of each batch give the same bits as one rank: each scales its
// gradients by one half, which is exact, and the sum of two halves is the whole. On a GPU, this is the only
// bitwise test of NCCL; both ranks are threads on the first GPU.

namespace voca::simt::host {
namespace {

using engine::DType;

#if defined(VOCA_TEST_CUDA)
/// Reason why two ranks cannot share a GPU; empty if they can.
std::string objection() {
  constexpr int kFirstVersion = 23000;  // 2.30, which supports NCCL_MULTI_RANK_GPU_ENABLE
  void* const library = ::dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return "NCCL cannot be opened";
  const auto get_version = reinterpret_cast<int (*)(int*)>(::dlsym(library, "ncclGetVersion"));
  int version = 0;
  if (get_version == nullptr || get_version(&version) != 0) return "NCCL tells no version";
  if (version < kFirstVersion)
    return fmt::format("NCCL is {}, two ranks on one GPU need {} (2.30)", version, kFirstVersion);
  return ::setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1", 1) == 0 ? "" : "the environment cannot be changed";
}
#else
std::string objection() {
  return "";
}
#endif

TEST(TwoRanks, OnTheSameSamplesLeaveTheBitsOfOne) {
  if (!engine::with_gloo()) GTEST_SKIP() << "built without Gloo";
  if (const std::string why = objection(); !why.empty()) GTEST_SKIP() << why;
  const data::testing::Scratch scratch;
  const auto dataset = make_dataset(scratch, DType::kF32);
  for (const DType type : {DType::kF32, DType::kBF16}) {
    for (const bool wide_sums : {false, true}) {
      Job job{.config = two_epochs(type), .dataset = dataset, .global_batch = 4};
      job.config.no_val = true;
      job.config.wide_sums = wide_sums;
      job.scope = model::ContrastiveScope::kLocal;
      job.dropout = 0;  // masks depend on the position in the global batch
      job.same_samples = true;
      const auto one = run_job(job);
      ASSERT_EQ(one[0]->error, "");
      job.world_size = 2;
      for (const auto& rank : run_job(job)) {
        EXPECT_EQ(rank->error, "");
        EXPECT_TRUE(rank->bits == one[0]->bits) << engine::name_of(type) << (wide_sums ? ", wide" : "");
      }
    }
  }
}

}  // namespace
}  // namespace voca::simt::host
