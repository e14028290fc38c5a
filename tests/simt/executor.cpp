#include "tests/simt/executor.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <numeric>
#include <string_view>
#include <utility>

#include "tests/simt/block.h"
#include "tests/simt/race.h"
#include "tests/simt/stream.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace voca::simt::host {

namespace {

void forbid([[maybe_unused]] const void* memory, [[maybe_unused]] std::size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  ASAN_POISON_MEMORY_REGION(memory, bytes);
#endif
}

void permit([[maybe_unused]] const void* memory, [[maybe_unused]] std::size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(memory, bytes);
#endif
}

Schedule schedule_of_the_environment() {
  const char* name = std::getenv("VOCA_SIMT_SCHEDULE");
  const std::string_view which = name != nullptr ? name : "forward";
  if (which == "forward") return forward_schedule();
  if (which == "reverse") return reverse_schedule();
  if (which == "random") return random_schedule(1);
  throw std::invalid_argument("VOCA_SIMT_SCHEDULE is forward, reverse or random");
}

Schedule& current_schedule() {
  static Schedule schedule = schedule_of_the_environment();
  return schedule;
}

/// Mutex of the process-wide executor and race detector.
std::mutex& executor() {
  static std::mutex mutex;
  return mutex;
}

void check(const char* name, const LaunchShape& shape) {
  const std::uint64_t threads = std::uint64_t{shape.block.x} * shape.block.y * shape.block.z;
  const bool right = threads > 0 && threads <= 1024 && shape.block.z <= 64 && shape.grid.x > 0 &&
                     shape.grid.x <= 0x7FFFFFFFU && shape.grid.y > 0 && shape.grid.y <= 65535 &&
                     shape.grid.z > 0 && shape.grid.z <= 65535;
  if (!right) throw Defect(std::string("kernel ") + name + ": invalid grid or block");
  if (shape.shared_bytes > kSharedLimit) {
    throw Defect(std::string("kernel ") + name + ": " + std::to_string(shape.shared_bytes) +
                 " bytes of dynamic shared memory are more than a block may have");
  }
}

}  // namespace

const Schedule& schedule() {
  return current_schedule();
}
void set_schedule(const Schedule& schedule) {
  current_schedule() = schedule;
}
Schedule forward_schedule() {
  return {Order::kForward, Landing::kLate, 1};
}
Schedule reverse_schedule() {
  return {Order::kReverse, Landing::kEager, 1};
}
Schedule random_schedule(std::uint64_t seed) {
  return {Order::kRandom, Landing::kRandom, seed};
}

void* allocate(std::size_t bytes) {
  void* memory = std::aligned_alloc(256, (std::max<std::size_t>(bytes, 1) + 255) / 256 * 256);
  if (memory == nullptr) throw std::bad_alloc();
  std::memset(memory, 0xFF, bytes);
  const std::lock_guard lock(executor());
  race_detector().watch(memory, bytes);
  return memory;
}

void free(void* memory) {
  {
    const std::lock_guard lock(executor());
    race_detector().unwatch(memory);
  }
  std::free(memory);
}

SharedMemory::SharedMemory() {
  void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  memory_ = static_cast<std::byte*>(memory);
}

SharedMemory::~SharedMemory() {
  permit(memory_, kBytes);
  munmap(memory_, kBytes);
}

void SharedMemory::reset(std::size_t dynamic_bytes) {
  permit(memory_, kBytes);
  std::memset(memory_, 0xFF, used_);
  forbid(memory_, kBytes);
  permit(dynamic(), dynamic_bytes);
  used_ = kDynamicOffset + dynamic_bytes + kRedZone;
  dynamic_bytes_ = dynamic_bytes;
  array_bytes_ = 0;
  arrays_.clear();
}

std::byte* SharedMemory::static_array(const void* key, std::size_t bytes) {
  for (const Array& array : arrays_)
    if (array.key == key) return array.memory;
  // Aligned to exactly 16 bytes, the minimum that SIMT_SHARED guarantees.
  const std::size_t offset = (used_ + 31) / 32 * 32 + 16;
  if (array_bytes_ + bytes > std::size_t{48} * 1024 || dynamic_bytes_ + array_bytes_ + bytes > kSharedLimit ||
      offset + bytes + kRedZone > kBytes)
    return nullptr;
  permit(memory_ + offset, bytes);
  used_ = offset + bytes + kRedZone;
  array_bytes_ += bytes;
  arrays_.push_back({key, memory_ + offset});
  return memory_ + offset;
}

bool SharedMemory::contains(const void* address) const {
  const auto* p = static_cast<const std::byte*>(address);
  return p >= memory_ && p < memory_ + kBytes;
}

void* dynamic_shared() {
  return block().shared().dynamic();
}

void* static_shared(const void* key, const char* name, std::size_t bytes) {
  std::byte* array = block().shared().static_array(key, bytes);
  if (array == nullptr) block().fail(std::string("no room for the shared array ") + name);
  return array;
}

void expect_aligned(const void* pointer, std::size_t bytes, Site site) {
  if (reinterpret_cast<std::uintptr_t>(pointer) % bytes != 0) {
    block().fail(std::to_string(bytes) + "-byte access at " + text(site) +
                 ": the address is not a multiple of it");
  }
}

namespace {

thread_local bool grid_runs_here = false;

void call_thread(void* thread) {
  (*static_cast<const std::function<void()>*>(thread))();
}

void run_grid(const char* name, const LaunchShape& shape, std::function<void()>& thread) {
  const std::lock_guard lock(executor());
  grid_runs_here = true;
  const std::shared_ptr<void> at_end(nullptr, [](void*) { grid_runs_here = false; });
  const dim3 grid = shape.grid;
  const std::uint64_t count = std::uint64_t{grid.x} * grid.y * grid.z;
  std::vector<std::uint64_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  std::mt19937_64 random(schedule().seed);
  if (schedule().order == Order::kReverse) std::reverse(order.begin(), order.end());
  if (schedule().order == Order::kRandom) std::shuffle(order.begin(), order.end(), random);
  race_detector().new_launch();
  for (const std::uint64_t i : order) {
    const uint3 index{static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y),
                      static_cast<unsigned>(i / grid.x / grid.y)};
    block().run(name, shape, index, call_thread, &thread, random());
  }
  const std::string races = race_detector().report();
  if (!races.empty()) throw Defect(std::string("kernel ") + name + ":" + races);
}

}  // namespace

bool runs_a_grid() {
  return grid_runs_here;
}

void launch(const char* name, const LaunchShape& shape, std::function<void()> thread) {
  check(name, shape);
  if (shape.stream == nullptr) return run_grid(name, shape, thread);
  Stream::of(shape.stream)->queue([name, shape, thread = std::move(thread)]() mutable {
    run_grid(name, shape, thread);
  });
}

}  // namespace voca::simt::host
