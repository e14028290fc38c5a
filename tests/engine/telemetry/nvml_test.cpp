#include "engine/telemetry/nvml.h"

#include <gtest/gtest.h>

#include "engine/base/shared_library.h"
#include "tests/engine/support/fake_nvml.h"

namespace voca::engine {
namespace {

using testing::fake_machine;
using testing::FakeMachine;

class Nvml : public ::testing::Test {
 protected:
  void SetUp() override { fake_machine() = FakeMachine{}; }
  nvml::Functions functions_ = testing::fake::functions();
};

TEST_F(Nvml, ReportsEveryGpuAndEveryPairOnce) {
  fake_machine().gpus[2].throttle = nvml::kPowerCap;
  const NvmlReport report = query_nvml(&functions_);
  EXPECT_TRUE(report.library);
  EXPECT_EQ(report.problem, "");
  EXPECT_EQ(report.driver_version, "580.65.06");
  EXPECT_EQ(report.cuda_version, 13000);
  ASSERT_EQ(report.gpus.size(), 4U);
  const GpuState& gpu = report.gpus[2];
  EXPECT_EQ(gpu.index, 2U);
  EXPECT_EQ(gpu.name, "NVIDIA A800-SXM4-80GB");
  EXPECT_EQ(gpu.problem, "");
  EXPECT_EQ(gpu.capability_major, 8);
  EXPECT_EQ(gpu.total_bytes, 80ULL << 30);
  EXPECT_EQ(gpu.free_bytes, 79ULL << 30);
  EXPECT_EQ(gpu.ecc, true);
  EXPECT_EQ(gpu.uncorrected_errors, 0U);
  EXPECT_EQ(gpu.sm_mhz, 1410U);
  EXPECT_EQ(gpu.max_memory_mhz, 1593U);
  EXPECT_EQ(gpu.throttle, nvml::kPowerCap);
  ASSERT_EQ(report.links.size(), 6U);
  EXPECT_EQ(report.links.back().first, 2U);
  EXPECT_EQ(report.links.back().second, 3U);
  EXPECT_EQ(report.links.back().nvlink, true);
  EXPECT_EQ(report.links.back().peer, true);
  EXPECT_EQ(fake_machine().shutdowns, 1);
}

TEST_F(Nvml, WithoutALibraryOrADriverSaysWhich) {
  EXPECT_FALSE(query_nvml(nullptr).library);
  fake_machine().init = nvml::kDriverNotLoaded;
  const NvmlReport report = query_nvml(&functions_);
  EXPECT_TRUE(report.library);
  EXPECT_FALSE(report.driver_loaded);
  EXPECT_TRUE(report.gpus.empty());
  fake_machine().init = nvml::kVersionMismatch;
  const NvmlReport mismatch = query_nvml(&functions_);
  EXPECT_TRUE(mismatch.driver_loaded);
  EXPECT_NE(mismatch.problem.find("reboot"), std::string::npos) << mismatch.problem;
}

TEST_F(Nvml, OfAnOldDriverLeavesEmptyWhatItCannotSay) {
  functions_.cuda_version = nullptr;
  functions_.throttle_reasons = nullptr;
  functions_.ecc_errors = nullptr;
  functions_.peer_status = nullptr;
  functions_.shutdown = nullptr;
  functions_.error_string = nullptr;
  const NvmlReport report = query_nvml(&functions_);
  EXPECT_EQ(report.problem, "");
  EXPECT_FALSE(report.cuda_version.has_value());
  ASSERT_EQ(report.gpus.size(), 4U);
  EXPECT_FALSE(report.gpus[0].throttle.has_value());
  EXPECT_FALSE(report.gpus[0].uncorrected_errors.has_value());
  EXPECT_TRUE(report.gpus[0].ecc.has_value());
  EXPECT_FALSE(report.links[0].nvlink.has_value());
  EXPECT_FALSE(report.links[0].peer.has_value());
}

TEST_F(Nvml, WithoutTheFunctionsItNeedsSaysThatTheLibraryIsOld) {
  for (auto spoil : {+[](nvml::Functions& f) { f.init = nullptr; },
                     +[](nvml::Functions& f) { f.device_count = nullptr; }}) {
    nvml::Functions functions = testing::fake::functions();
    spoil(functions);
    const NvmlReport report = query_nvml(&functions);
    EXPECT_NE(report.problem.find("old driver"), std::string::npos) << report.problem;
    EXPECT_TRUE(report.gpus.empty());
  }
}

TEST_F(Nvml, AGpuThatIsLostDoesNotHideTheOthers) {
  fake_machine().gpus[1].status = nvml::kGpuIsLost;
  const NvmlReport report = query_nvml(&functions_);
  ASSERT_EQ(report.gpus.size(), 4U);
  EXPECT_EQ(report.gpus[1].problem, "GPU is lost");
  EXPECT_EQ(report.gpus[1].index, 1U);
  EXPECT_EQ(report.gpus[3].problem, "");
  ASSERT_EQ(report.links.size(), 3U);
  EXPECT_EQ(report.links[0].first, 0U);
  EXPECT_EQ(report.links[0].second, 2U);
}

TEST(SharedLibrary, FindsWhatIsThereAndSaysWhatIsNot) {
  EXPECT_FALSE(SharedLibrary::open("libthere-is-none-of-this-name.so.1"));
  const auto math = SharedLibrary::open("libm.so.6");
  ASSERT_TRUE(math);
  const auto floor_of = math->function<double (*)(double)>("floor");
  ASSERT_NE(floor_of, nullptr);
  EXPECT_EQ(floor_of(2.5), 2);
  EXPECT_EQ(math->function<int (*)()>("there_is_no_such_function"), nullptr);
}

}  // namespace
}  // namespace voca::engine
