#include "engine/core/device.h"

#include <malloc.h>
#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "engine/base/thread.h"
#include "engine/core/thread_budget.h"
#include "kernels/cpu/levels.h"
#include "kernels/cpu/parallel.h"

namespace voca::engine {
namespace {

constexpr std::size_t kAlignment = 4096;

std::byte* allocate_zeroed(std::size_t bytes) {
  void* data = std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
  if (data != nullptr) std::memset(data, 0, bytes);
  return static_cast<std::byte*>(data);
}

class CpuDevice final : public Device {
 public:
  explicit CpuDevice(int threads) {
    kernels::cpu::set_threads(threads > 0 ? threads : thread_budget().threads);
    // Otherwise glibc gives each thread a heap that reserves 64 MiB of addresses.
    if (free_addresses().known()) ::mallopt(M_ARENA_MAX, 1);
    const int team = kernels::cpu::threads();
    start_team("the kernels", team, [&] { kernels::cpu::parallel_for(team, [](std::int64_t) {}); });
  }

  [[nodiscard]] DeviceKind kind() const override { return DeviceKind::kCpu; }
  [[nodiscard]] std::string description() const override {
    return fmt::format("cpu, {} thread{}, {}", kernels::cpu::threads(),
                       kernels::cpu::threads() == 1 ? "" : "s", kernels::cpu::instruction_set());
  }
  [[nodiscard]] FreeMemory free_memory() const override { return free_host_memory(); }
  void synchronize(Stream /*stream*/) override {}

 protected:
  std::byte* allocate_bytes(std::size_t bytes) override { return allocate_zeroed(bytes); }
  void free_bytes_at(std::byte* data) noexcept override { std::free(data); }
};

}  // namespace

std::vector<int> usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cores;
  if (::sched_getaffinity(0, sizeof(set), &set) != 0) return cores;
  for (int core = 0; core < CPU_SETSIZE; ++core)
    if (CPU_ISSET(static_cast<std::size_t>(core), &set)) cores.push_back(core);
  return cores;
}

void Device::Block::Free::operator()(std::byte* data) const noexcept {
  auto& lines = device->lines_;
  if (const auto found = std::find(lines.begin(), lines.end(), line); found != lines.end())
    lines.erase(found);
  device->free_bytes_at(data);
}

Device::Block Device::allocate(const std::string& name, std::size_t bytes) {
  std::byte* data = allocate_bytes(std::max<std::size_t>(bytes, 1));
  if (data == nullptr) {
    throw Error(ExitCode::kIo,
                fmt::format("{}: out of memory: failed to allocate {} bytes for {}; current allocations:\n{}",
                            name_of(kind()), bytes, name, format_memory(lines_)));
  }
  lines_.push_back({name, bytes});
  return {*this, name, data, bytes};
}

Device::PinnedBlock Device::allocate_pinned(const std::string& name, std::size_t bytes) {
  std::byte* data = allocate_pinned_bytes(std::max<std::size_t>(bytes, 1));
  if (data == nullptr) {
    throw Error(ExitCode::kIo,
                fmt::format("{}: out of page-locked host memory: failed to allocate {} bytes for {}; lower "
                            "--batch_size or raise the limit (ulimit -l)",
                            name_of(kind()), bytes, name));
  }
  return {*this, data, bytes};
}

std::byte* Device::allocate_pinned_bytes(std::size_t bytes) {
  return allocate_zeroed(bytes);
}

void Device::free_pinned(std::byte* data) noexcept {
  std::free(data);
}

void Device::copy_to_device(void* to, const void* host, std::size_t bytes, Stream /*stream*/) {
  std::memcpy(to, host, bytes);
}

void Device::copy_to_host(void* host, const void* from, std::size_t bytes, Stream /*stream*/) {
  std::memcpy(host, from, bytes);
}

void Device::queue_together(std::uint64_t /*kind*/, Stream /*stream*/, const std::function<void()>& work) {
  work();
}

std::size_t total_bytes(std::span<const MemoryLine> lines) {
  std::size_t sum = 0;
  for (const MemoryLine& line : lines) sum += line.bytes;
  return sum;
}

std::unique_ptr<Device> make_cpu_device(int threads) {
  return std::make_unique<CpuDevice>(threads);
}

std::string format_memory(std::vector<MemoryLine> lines) {
  std::stable_sort(lines.begin(), lines.end(),
                   [](const MemoryLine& a, const MemoryLine& b) { return a.bytes > b.bytes; });
  lines.push_back({"in all", total_bytes(lines)});
  std::string text;
  for (const MemoryLine& line : lines) {
    text += fmt::format("  {:>16} bytes  {:>9.1f} MiB  {}\n", line.bytes,
                        static_cast<double>(line.bytes) / 1048576.0, line.name);
  }
  return text;
}

}  // namespace voca::engine
