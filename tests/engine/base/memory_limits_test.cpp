#include "engine/base/memory_limits.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "engine/base/atomic_file.h"
#include "tests/engine/support/files.h"

namespace voca::engine {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMib = std::size_t{1} << 20;

/// A machine with 8 GiB available, of which 100 MiB are free pages, and what the tests put on top.
class FreeHostMemory : public ::testing::Test {
 protected:
  FreeHostMemory() {
    write("proc/meminfo",
          "MemTotal:       16777216 kB\nMemFree:          102400 kB\nMemAvailable:    8388608 kB\n"
          "Cached:          8000000 kB\nCommitLimit:     4194304 kB\nCommitted_AS:    1048576 kB\n");
    write("proc/self/status", "Name:\tvoca-engine\nVmSize:\t  524288 kB\nVmData:\t  262144 kB\n");
  }
  void write(const std::string& file, const std::string& text) const {
    const fs::path path = root_.path() / file;
    fs::create_directories(path.parent_path());
    write_file_atomically(path, text);
  }
  void mount_v2(const std::string& root = "/") const {
    write("proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n32 31 0:29 " + root +
                                     " /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n");
  }
  void mount_v1(const std::string& root = "/") const {
    write("proc/self/mountinfo", "34 31 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n35 31 0:32 " +
                                     root + " /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
  }
  void group_v2(const std::string& folder, const std::string& limit, std::size_t used,
                std::size_t cached = 0) const {
    write(folder + "/memory.max", limit + "\n");
    write(folder + "/memory.current", std::to_string(used) + "\n");
    write(folder + "/memory.stat", "anon 5\nfile 7\ninactive_file " + std::to_string(cached / 2) +
                                       "\nactive_file " + std::to_string(cached - cached / 2) + "\n");
  }
  void group_v1(const std::string& folder, std::size_t limit, std::size_t used, std::size_t cached) const {
    write(folder + "/memory.limit_in_bytes", std::to_string(limit) + "\n");
    write(folder + "/memory.usage_in_bytes", std::to_string(used) + "\n");
    write(folder + "/memory.stat",
          "inactive_file 1\ntotal_inactive_file " + std::to_string(cached) + "\ntotal_active_file 0\n");
  }
  void limits(const std::string& address_space, const std::string& data) const {
    write("proc/self/limits",
          "Limit                     Soft Limit           Hard Limit           Units     \n"
          "Max data size             " +
              data + "            unlimited            bytes     \nMax address space         " +
              address_space + "            unlimited            bytes     \n");
  }
  void expect(std::size_t bytes, const std::string& limit) const {
    const FreeMemory free = free_host_memory(root_.path());
    EXPECT_EQ(free.bytes, bytes);
    EXPECT_EQ(free.limit, limit);
  }
  const test::TemporaryFolder root_;
};

TEST_F(FreeHostMemory, CountsThePageCacheThatCanBeHad) {
  expect(8192 * kMib, "MemAvailable");
  EXPECT_EQ(free_host_memory(root_.path()).text(), "8.0 GiB can be taken (MemAvailable)");
}

TEST_F(FreeHostMemory, IsNotKnownWhereNothingSaysIt) {
  const test::TemporaryFolder nothing;
  EXPECT_FALSE(free_host_memory(nothing.path()).known());
  EXPECT_TRUE(free_host_memory(root_.path()).known());
}

TEST_F(FreeHostMemory, OfAKernelWithoutAnEstimateIsItsFreePagesAndItsCache) {
  write("proc/meminfo", "MemFree: 100 kB\nBuffers: 20 kB\nCached: 50 kB\nShmem: 30 kB\n");
  expect(140 * 1024, "MemAvailable");
}

TEST_F(FreeHostMemory, IsWhatTheNearestGroupLeavesInVersion2) {
  mount_v2();
  write("proc/self/cgroup", "0::/slurm/job_12\n");
  group_v2("sys/fs/cgroup/slurm", "max", 4000 * kMib);
  group_v2("sys/fs/cgroup/slurm/job_12", std::to_string(300 * kMib), 200 * kMib);
  expect(100 * kMib, "cgroup limit 300.0 MiB of /slurm/job_12");
  // Pages of files are given up for those of programs.
  group_v2("sys/fs/cgroup/slurm/job_12", std::to_string(300 * kMib), 290 * kMib, 250 * kMib);
  expect(260 * kMib, "cgroup limit 300.0 MiB of /slurm/job_12");
}

TEST_F(FreeHostMemory, IsWhatTheGroupsAboveLeave) {
  mount_v2();
  write("proc/self/cgroup", "0::/slurm/job_12/step_0\n");
  group_v2("sys/fs/cgroup/slurm/job_12/step_0", "max", 50 * kMib);
  group_v2("sys/fs/cgroup/slurm/job_12", std::to_string(1000 * kMib), 200 * kMib);
  group_v2("sys/fs/cgroup/slurm", std::to_string(5000 * kMib), 4500 * kMib);
  expect(500 * kMib, "cgroup limit 4.9 GiB of /slurm");
}

TEST_F(FreeHostMemory, HeedsMemoryHigh) {
  mount_v2();
  write("proc/self/cgroup", "0::/user.slice\n");
  group_v2("sys/fs/cgroup/user.slice", std::to_string(2048 * kMib), 1000 * kMib);
  write("sys/fs/cgroup/user.slice/memory.high", std::to_string(1024 * kMib) + "\n");
  expect(24 * kMib, "cgroup memory.high 1.0 GiB of /user.slice");
}

TEST_F(FreeHostMemory, OfAGroupThatIsOverItsLimitIsNothingAndKnown) {
  mount_v2();
  write("proc/self/cgroup", "0::/a\n");
  group_v2("sys/fs/cgroup/a", std::to_string(100 * kMib), 120 * kMib);
  expect(0, "cgroup limit 100.0 MiB of /a");
  EXPECT_TRUE(free_host_memory(root_.path()).known());
}

TEST_F(FreeHostMemory, OfAContainerWithItsOwnNamespaceIsFoundAtItsRoot) {
  mount_v2();
  write("proc/self/cgroup", "0::/\n");
  group_v2("sys/fs/cgroup", std::to_string(512 * kMib), 12 * kMib);
  expect(500 * kMib, "cgroup limit 512.0 MiB of /");
  // Mounted from outside of the namespace.
  mount_v2("/../../pod");
  expect(500 * kMib, "cgroup limit 512.0 MiB of /");
}

TEST_F(FreeHostMemory, OfVersion1IsReadWhereItsControllerIsMounted) {
  mount_v1();
  write("proc/self/cgroup", "5:memory:/slurm/job_12\n4:cpu,cpuacct:/other\n0::/\n");
  group_v1("sys/fs/cgroup/memory", 9223372036854771712U, 4000 * kMib, 0);
  expect(8192 * kMib, "MemAvailable");
  group_v1("sys/fs/cgroup/memory/slurm/job_12", 300 * kMib, 290 * kMib, 200 * kMib);
  expect(210 * kMib, "cgroup limit 300.0 MiB of /slurm/job_12");
}

TEST_F(FreeHostMemory, OfAContainerInVersion1HasTheHostsPath) {
  mount_v1("/docker/4f2a");
  write("proc/self/cgroup", "5:memory:/docker/4f2a/inner\n");
  group_v1("sys/fs/cgroup/memory", 300 * kMib, 100 * kMib, 0);
  expect(200 * kMib, "cgroup limit 300.0 MiB of /docker/4f2a");
  group_v1("sys/fs/cgroup/memory/inner", 200 * kMib, 100 * kMib, 0);
  expect(100 * kMib, "cgroup limit 200.0 MiB of /docker/4f2a/inner");
  // A mount that shows another part of the tree: only its root is to be seen.
  write("proc/self/cgroup", "5:memory:/kubepods/x\n");
  expect(200 * kMib, "cgroup limit 300.0 MiB of /docker/4f2a");
}

TEST_F(FreeHostMemory, ReadsMountPointsWithSpaces) {
  write("proc/self/mountinfo", "32 31 0:29 / /mnt/my\\040groups rw - cgroup2 cgroup2 rw\n");
  write("proc/self/cgroup", "0::/a\n");
  group_v2("mnt/my groups/a", std::to_string(300 * kMib), 100 * kMib);
  expect(200 * kMib, "cgroup limit 300.0 MiB of /a");
}

TEST_F(FreeHostMemory, HeedsTheLimitsOfTheProcess) {
  limits("unlimited", "unlimited");
  expect(8192 * kMib, "MemAvailable");
  limits(std::to_string(2048 * kMib), "unlimited");
  expect(1536 * kMib, "ulimit -v 2.0 GiB");
  limits(std::to_string(2048 * kMib), std::to_string(1024 * kMib));
  expect(768 * kMib, "ulimit -d 1.0 GiB");
}

TEST_F(FreeHostMemory, HeedsAMachineThatDoesNotOvercommit) {
  write("proc/sys/vm/overcommit_memory", "0\n");
  expect(8192 * kMib, "MemAvailable");
  write("proc/sys/vm/overcommit_memory", "2\n");
  expect(3072 * kMib, "commit limit 4.0 GiB, vm.overcommit_memory 2");
}

TEST_F(FreeHostMemory, AddressesAreKnownOnlyIfLimited) {
  EXPECT_FALSE(free_addresses(root_.path()).known());
  limits(std::to_string(2048 * kMib), "unlimited");
  EXPECT_EQ(free_addresses(root_.path()).bytes, 1536 * kMib);
}

TEST(MemoryText, PicksAUnit) {
  EXPECT_EQ(memory_text(0), "0.0 MiB");
  EXPECT_EQ(memory_text(300 * kMib), "300.0 MiB");
  EXPECT_EQ(memory_text(1536 * kMib), "1.5 GiB");
  EXPECT_EQ(memory_text(std::size_t{3} << 40), "3.0 TiB");
  EXPECT_EQ(memory_text(SIZE_MAX), "16777216.0 TiB");
}

}  // namespace
}  // namespace voca::engine
