#include "engine/core/thread_budget.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "engine/base/atomic_file.h"
#include "tests/engine/support/files.h"

namespace voca::engine {
namespace {

namespace fs = std::filesystem;

/// A machine of 8 cores, all of them ours.
ThreadLimits eight_cores() {
  return {.online = 8, .affinity = 8, .cpu_quota = {}, .omp_num_threads = "", .omp_thread_limit = ""};
}

class CgroupQuota : public ::testing::Test {
 protected:
  void write(const std::string& file, const std::string& text) const {
    const fs::path path = root_.path() / file;
    fs::create_directories(path.parent_path());
    write_file_atomically(path, text);
  }
  void mount_v2() const {
    write("proc/self/mountinfo", "32 31 0:29 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n");
  }
  [[nodiscard]] std::optional<double> quota() const { return cgroup_cpu_quota(root_.path()); }

 private:
  test::TemporaryFolder root_;
};

TEST_F(CgroupQuota, IsNoneWithoutCgroupsOrLimits) {
  EXPECT_EQ(quota(), std::nullopt);
  write("proc/self/cgroup", "0::/user.slice\n");
  mount_v2();
  EXPECT_EQ(quota(), std::nullopt);
  write("sys/fs/cgroup/user.slice/cpu.max", "max 100000\n");
  EXPECT_EQ(quota(), std::nullopt);
}

TEST_F(CgroupQuota, OfVersion2IsTheLeastOfTheGroupAndThoseAboveIt) {
  write("proc/self/cgroup", "0::/jobs/17\n");
  mount_v2();
  write("sys/fs/cgroup/jobs/17/cpu.max", "300000 100000\n");
  EXPECT_EQ(quota(), 3);
  write("sys/fs/cgroup/jobs/cpu.max", "150000 100000\n");
  EXPECT_EQ(quota(), 1.5);
  write("sys/fs/cgroup/jobs/17/cpu.max", "50000 100000\n");
  EXPECT_EQ(quota(), 0.5);
}

TEST_F(CgroupQuota, OfAContainerIsFoundAtItsRoot) {
  write("proc/self/cgroup", "0::/\n");
  mount_v2();
  write("sys/fs/cgroup/cpu.max", "200000 100000\n");
  EXPECT_EQ(quota(), 2);
}

TEST_F(CgroupQuota, OfVersion1IsReadWhereItsControllerIsMounted) {
  // The path is the host's; below the container's mount only its root is to be seen.
  write("proc/self/cgroup", "5:memory:/m\n4:cpu,cpuacct:/docker/4f2a\n1:name=systemd:/\n0::/\n");
  write("proc/self/mountinfo",
        "32 31 0:29 /docker/4f2a /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n");
  write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
  write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(quota(), std::nullopt);
  write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "400000\n");
  EXPECT_EQ(quota(), 4);
}

TEST(ThreadBudget, IsEveryCoreWhereNothingLimitsIt) {
  const ThreadBudget budget = thread_budget(1, eight_cores());
  EXPECT_EQ(budget.threads, 8);
  EXPECT_EQ(budget.reason, "8 cores online");
}

TEST(ThreadBudget, NamesWhatLimitsIt) {
  ThreadLimits limits = eight_cores();
  limits.affinity = 3;
  EXPECT_EQ(thread_budget(1, limits).threads, 3);
  EXPECT_EQ(thread_budget(1, limits).reason, "3 cores of its affinity");
  limits.cpu_quota = 1.5;
  EXPECT_EQ(thread_budget(1, limits).threads, 2);
  EXPECT_EQ(thread_budget(1, limits).reason, "the cgroup's quota is 1.5 CPUs");
  limits.omp_num_threads = "5";
  EXPECT_EQ(thread_budget(1, limits).threads, 5);
  EXPECT_EQ(thread_budget(1, limits).reason, "OMP_NUM_THREADS is 5");
  limits.omp_thread_limit = "4";
  EXPECT_EQ(thread_budget(1, limits).threads, 4);
  EXPECT_EQ(thread_budget(1, limits).reason, "OMP_THREAD_LIMIT is 4");
}

TEST(ThreadBudget, ReadsOmpNumThreadsAsOpenMpDoes) {
  ThreadLimits limits = eight_cores();
  for (const auto& [text, threads] :
       {std::pair{" 2 ", 2}, {"3,2", 3}, {"0", 8}, {"-1", 8}, {"many", 8}, {"2x", 8}}) {
    limits.omp_num_threads = text;
    EXPECT_EQ(thread_budget(1, limits).threads, threads) << text;
  }
}

TEST(ThreadBudget, OfOneRankAmongSeveralIsItsShare) {
  ThreadLimits limits = eight_cores();
  EXPECT_EQ(thread_budget(4, limits).threads, 2);
  EXPECT_EQ(thread_budget(16, limits).threads, 1);
  limits.cpu_quota = 4;
  EXPECT_EQ(thread_budget(4, limits).threads, 1);
  EXPECT_EQ(thread_budget(4, limits).reason, "the cgroup's quota is 4 CPUs, shared by 4 ranks");
  // The launcher has bound this rank to two of the eight; the quota is still everyone's.
  limits.affinity = 2;
  EXPECT_EQ(thread_budget(4, limits).threads, 1);
  limits.cpu_quota = {};
  EXPECT_EQ(thread_budget(4, limits).threads, 2);
}

}  // namespace
}  // namespace voca::engine
