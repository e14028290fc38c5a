#include "tools/gpu_findings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/engine/support/fake_nvml.h"

namespace voca::tools {
namespace {

namespace nvml = engine::nvml;
using engine::testing::fake_machine;
using engine::testing::FakeMachine;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class GpuFindings : public ::testing::Test {
 protected:
  void SetUp() override { fake_machine() = FakeMachine{}; }

  /// What doctor says of the fake machine.
  std::vector<Finding> judge() {
    facts_.nvml = engine::query_nvml(&functions_);
    return judge_gpus(facts_);
  }
  Finding judge(const std::string& what) { return find(judge(), what); }
  static Finding find(const std::vector<Finding>& findings, const std::string& what) {
    for (const Finding& finding : findings)
      if (finding.what == what) return finding;
    ADD_FAILURE() << "nothing is said of " << what;
    return {};
  }

  GpuFacts facts_{.nvml = {}, .kernel_driver = true, .toolkit = "13.0.88", .nccl_version = 22809};
  nvml::Functions functions_ = engine::testing::fake::functions();
};

TEST_F(GpuFindings, OfAHealthyNodeAreAllOk) {
  const std::vector<Finding> findings = judge();
  EXPECT_EQ(findings.size(), 1U + 4 * 3 + 2);
  for (const Finding& finding : findings)
    EXPECT_EQ(finding.verdict, Verdict::kOk) << finding.what << ": " << finding.text;
  EXPECT_THAT(find(findings, "driver").text, AllOf(HasSubstr("580.65.06"), HasSubstr("CUDA up to 13.0")));
  EXPECT_THAT(find(findings, "gpu 3").text,
              AllOf(HasSubstr("A800"), HasSubstr("8.0"), HasSubstr("79.0 of 80.0 GiB")));
  EXPECT_THAT(find(findings, "gpu 0 clocks").text,
              AllOf(HasSubstr("SM 1410 of 1410 MHz"), HasSubstr("memory 1593 of 1593 MHz")));
  EXPECT_EQ(find(findings, "links").text, "all pairs over NVLink");
  EXPECT_EQ(find(findings, "nccl").text, "NCCL 2.28.9");
}

TEST_F(GpuFindings, NameTheDriverThatTheToolkitNeeds) {
  fake_machine().driver = "570.124.06";
  fake_machine().cuda = 12080;
  Finding driver = judge("driver");
  EXPECT_EQ(driver.verdict, Verdict::kWarning);
  EXPECT_THAT(driver.text,
              AllOf(HasSubstr("570.124.06, runs CUDA up to 12.8"), HasSubstr("needs 580 or newer"),
                    HasSubstr("or build with CUDA 12, which needs 525")));
  facts_.toolkit = "12.2.140";
  EXPECT_EQ(judge("driver").verdict, Verdict::kOk);
  fake_machine().driver = "515.65.01";
  driver = judge("driver");
  EXPECT_EQ(driver.verdict, Verdict::kWarning);
  EXPECT_THAT(driver.text, AllOf(HasSubstr("needs 525 or newer"), Not(HasSubstr("or build with"))));
  facts_.toolkit = "";
  EXPECT_EQ(judge("driver").verdict, Verdict::kOk);
  facts_.toolkit = "14.0.1";
  EXPECT_EQ(judge("driver").verdict, Verdict::kWarning);
}

TEST_F(GpuFindings, TellADriverFromItsLibraryAndFromNone) {
  facts_.nvml = engine::query_nvml(nullptr);
  EXPECT_EQ(find(judge_gpus(facts_), "driver").verdict, Verdict::kWarning);
  EXPECT_THAT(find(judge_gpus(facts_), "driver").text, HasSubstr("NVIDIA_DRIVER_CAPABILITIES"));
  facts_.kernel_driver = false;
  facts_.nccl_version.reset();
  for (const Finding& finding : judge_gpus(facts_))
    EXPECT_EQ(finding.verdict, Verdict::kOk) << finding.what << ": " << finding.text;
  EXPECT_THAT(find(judge_gpus(facts_), "driver").text,
              HasSubstr("no NVIDIA driver here; the CPU engine needs none"));

  fake_machine().init = nvml::kDriverNotLoaded;
  EXPECT_THAT(judge("driver").text, HasSubstr("modprobe nvidia"));
  fake_machine().init = nvml::kVersionMismatch;
  EXPECT_EQ(judge("driver").verdict, Verdict::kWarning);
  EXPECT_THAT(judge("driver").text, HasSubstr("reboot"));
  fake_machine().init = nvml::kSuccess;
  fake_machine().gpus.clear();
  EXPECT_THAT(judge("gpus").text, HasSubstr("lspci"));
}

TEST_F(GpuFindings, SayThatADeviceIsTooOldFullOrLost) {
  fake_machine().gpus[0].major = 7;
  fake_machine().gpus[0].minor = 5;
  fake_machine().gpus[1].memory.free = 10ULL << 30;
  fake_machine().gpus[2].status = nvml::kGpuIsLost;
  const std::vector<Finding> findings = judge();
  EXPECT_EQ(find(findings, "gpu 0").verdict, Verdict::kWarning);
  EXPECT_THAT(find(findings, "gpu 0").text, AllOf(HasSubstr("7.5"), HasSubstr("need 8.0 or newer")));
  EXPECT_EQ(find(findings, "gpu 1").verdict, Verdict::kWarning);
  EXPECT_THAT(find(findings, "gpu 1").text, HasSubstr("nvidia-smi names them"));
  EXPECT_EQ(find(findings, "gpu 2").verdict, Verdict::kProblem);
  EXPECT_THAT(find(findings, "gpu 2").text, AllOf(HasSubstr("GPU is lost"), HasSubstr("nvidia-smi -r -i 2")));
  EXPECT_EQ(find(findings, "gpu 3").verdict, Verdict::kOk);
}

TEST_F(GpuFindings, CountMemoryErrorsAsAProblem) {
  fake_machine().gpus[1].uncorrected = 3;
  fake_machine().gpus[2].ecc = 0;
  fake_machine().gpus[3].has_ecc = false;
  const std::vector<Finding> findings = judge();
  EXPECT_EQ(find(findings, "gpu 0 ecc").verdict, Verdict::kOk);
  EXPECT_EQ(find(findings, "gpu 1 ecc").verdict, Verdict::kProblem);
  EXPECT_THAT(find(findings, "gpu 1 ecc").text, HasSubstr("3 uncorrected memory errors"));
  EXPECT_EQ(find(findings, "gpu 2 ecc").verdict, Verdict::kWarning);
  EXPECT_EQ(find(findings, "gpu 3 ecc").verdict, Verdict::kOk);
}

TEST_F(GpuFindings, SayWhyAGpuIsThrottled) {
  auto& gpus = fake_machine().gpus;
  gpus[0].throttle = nvml::kSoftwareThermal;
  gpus[0].sm_mhz = 900;
  gpus[1].throttle = nvml::kHardwareSlowdown | nvml::kPowerBrake;
  gpus[2].throttle = nvml::kPowerCap;
  gpus[3].throttle = 1;  // idle
  const std::vector<Finding> findings = judge();
  EXPECT_EQ(find(findings, "gpu 0 clocks").verdict, Verdict::kWarning);
  EXPECT_THAT(find(findings, "gpu 0 clocks").text,
              AllOf(HasSubstr("SM 900 of 1410 MHz"), HasSubstr("too hot")));
  EXPECT_EQ(find(findings, "gpu 1 clocks").verdict, Verdict::kWarning);
  EXPECT_THAT(find(findings, "gpu 1 clocks").text, HasSubstr("power brake"));
  EXPECT_EQ(find(findings, "gpu 2 clocks").verdict, Verdict::kOk);
  EXPECT_THAT(find(findings, "gpu 2 clocks").text, HasSubstr("power limit"));
  EXPECT_EQ(find(findings, "gpu 3 clocks").verdict, Verdict::kOk);
}

TEST_F(GpuFindings, NamePairsWithoutNvlinkOrPeerAccess) {
  fake_machine().broken_pair = 1;
  Finding links = judge("links");
  EXPECT_EQ(links.verdict, Verdict::kWarning);
  EXPECT_THAT(links.text,
              AllOf(HasSubstr("over PCIe, peer to peer: 1-2;"), HasSubstr("nvidia-smi nvlink -s")));
  fake_machine().nvlink = 5;
  links = judge("links");
  EXPECT_EQ(links.verdict, Verdict::kOk);
  EXPECT_THAT(links.text, HasSubstr("no NVLink: gradients travel over PCIe"));
  fake_machine().peer = 1;
  links = judge("links");
  EXPECT_EQ(links.verdict, Verdict::kWarning);
  EXPECT_THAT(links.text, AllOf(HasSubstr("through the host's memory: 0-1, 0-2"), HasSubstr("IOMMU")));
}

TEST_F(GpuFindings, OfAnOldLibrarySayWhatItDoesNotReport) {
  functions_.throttle_reasons = nullptr;
  functions_.max_clock = nullptr;
  functions_.peer_status = nullptr;
  const std::vector<Finding> findings = judge();
  EXPECT_EQ(find(findings, "gpu 0 clocks").verdict, Verdict::kOk);
  EXPECT_THAT(find(findings, "gpu 0 clocks").text,
              AllOf(HasSubstr("SM clock not reported"), HasSubstr("throttling not reported")));
  EXPECT_EQ(find(findings, "links").verdict, Verdict::kWarning);
  functions_.device_count = nullptr;
  EXPECT_THAT(judge("gpus").text, HasSubstr("old driver"));
  functions_.init = nullptr;
  EXPECT_EQ(judge("driver").verdict, Verdict::kWarning);
}

TEST_F(GpuFindings, AskForNcclWhereSeveralGpusAre) {
  facts_.nccl_version.reset();
  EXPECT_EQ(judge("nccl").verdict, Verdict::kWarning);
  EXPECT_THAT(judge("nccl").text, HasSubstr("libnccl2"));
  facts_.nccl_version = 2804;  // as before 2.9
  EXPECT_EQ(judge("nccl").verdict, Verdict::kWarning);
  EXPECT_THAT(judge("nccl").text, AllOf(HasSubstr("NCCL 2.8.4"), HasSubstr("2.14 or newer")));
  for (const int old : {21400, 21403, 22004, 22104}) {
    facts_.nccl_version = old;
    EXPECT_EQ(judge("nccl").verdict, Verdict::kWarning);
    EXPECT_THAT(judge("nccl").text, HasSubstr("2.21.5 or newer is advised; update libnccl2"));
  }
  facts_.nccl_version = 22105;
  EXPECT_EQ(judge("nccl").verdict, Verdict::kOk);
  fake_machine().gpus.resize(1);
  facts_.nccl_version.reset();
  EXPECT_EQ(judge("nccl").verdict, Verdict::kOk);
}

}  // namespace
}  // namespace voca::tools
