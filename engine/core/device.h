#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/memory_limits.h"
#include "engine/core/tensor.h"

namespace voca::engine {

/// A named allocation of device memory, as printed by `plan`.
struct MemoryLine {
  std::string name;
  std::size_t bytes = 0;
  [[nodiscard]] bool operator==(const MemoryLine&) const = default;
};
[[nodiscard]] std::size_t total_bytes(std::span<const MemoryLine> lines);

class GemmLibrary;

/// One device: its memory, its streams, and copies to and from the host. All device memory of the program
/// comes from allocate(), by name and before the first step; lines() lists the live allocations. Work is
/// queued on streams: in order within a stream, concurrent across streams unless an event orders them. The
/// default implementations serve a device whose memory is the host's: it has one stream, null, and all calls
/// are synchronous.
class Device {
 public:
  Device() = default;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  virtual ~Device() = default;

  [[nodiscard]] virtual DeviceKind kind() const = 0;
  /// Description for people: "cpu, 2 threads, -march=native (AVX2)".
  [[nodiscard]] virtual std::string description() const = 0;
  /// Memory that can be allocated now.
  [[nodiscard]] virtual FreeMemory free_memory() const = 0;
  /// Waits for all work queued on `stream`; a no-op on the CPU.
  virtual void synchronize(Stream stream) = 0;

  /// Streams for steps and for copies that overlap with them.
  [[nodiscard]] virtual Stream compute_stream() const { return nullptr; }
  [[nodiscard]] virtual Stream copy_stream() const { return nullptr; }
  /// GEMM library of the device; null if GEMMs are kernels.
  [[nodiscard]] virtual GemmLibrary* gemm_library() { return nullptr; }

  /// Queues a copy of `bytes` bytes from `host` to this device. `host` must stay unchanged until the copy is
  /// done; the call is asynchronous only if `host` is pinned.
  virtual void copy_to_device(void* to, const void* host, std::size_t bytes, Stream stream);
  /// Queues a copy from this device to `host`, with the same rules.
  virtual void copy_to_host(void* host, const void* from, std::size_t bytes, Stream stream);

  /// Queues on `stream` everything that `work` queues there, as one launch if the device supports it: less
  /// launch overhead and shorter gaps. `kind` identifies work of one shape (the same operations on arrays of
  /// the same shapes; contents and addresses may differ): the first of a kind is queued call by call, which
  /// loads its kernels. `work` must not wait for the device or allocate; it may be called again if it could
  /// not be captured.
  virtual void queue_together(std::uint64_t kind, Stream stream, const std::function<void()>& work);

  /// A point in a stream's order of work. Move-only; must not outlive its device.
  class Event {
   public:
    Event() = default;
    explicit Event(Device& device) : device_(&device), handle_(device.make_event(), {&device}) {}
    /// Marks the work queued on `stream` so far.
    void record(Stream stream) { device_->record_event(handle_.get(), stream); }
    /// Work queued on `stream` from now on waits for the event. An event never recorded is complete.
    void wait_on(Stream stream) const { device_->stream_wait(stream, handle_.get()); }
    /// Blocks the calling thread until the event completes.
    void synchronize() const { device_->synchronize_event(handle_.get()); }

   private:
    struct Destroy {
      Device* device;
      void operator()(void* handle) const noexcept { device->destroy_event(handle); }
    };
    Device* device_ = nullptr;
    std::unique_ptr<void, Destroy> handle_;
  };

  /// Owned device memory. Move-only; must not outlive its device.
  class Block {
   public:
    Block() = default;
    Block(Device& device, std::string name, std::byte* data, std::size_t bytes)
        : data_(data, {&device, {std::move(name), bytes}}) {}
    [[nodiscard]] std::byte* data() const { return data_.get(); }
    [[nodiscard]] std::size_t bytes() const { return data_.get_deleter().line.bytes; }

   private:
    struct Free {
      Device* device;
      MemoryLine line;
      void operator()(std::byte* data) const noexcept;
    };
    std::unique_ptr<std::byte, Free> data_;
  };

  /// Allocates `bytes` zeroed bytes, aligned for every operation. Throws Error (exit 74) if memory is
  /// insufficient, with the requested size and name and all current allocations.
  [[nodiscard]] Block allocate(const std::string& name, std::size_t bytes);

  /// Owned host memory, zeroed and aligned as by allocate(), from and to which copies overlap with other
  /// work. Move-only; must not outlive its device.
  class PinnedBlock {
   public:
    PinnedBlock() = default;
    PinnedBlock(Device& device, std::byte* data, std::size_t bytes) : data_(data, {&device}), bytes_(bytes) {}
    [[nodiscard]] std::byte* data() const { return data_.get(); }
    [[nodiscard]] std::size_t bytes() const { return bytes_; }

   private:
    struct Free {
      Device* device;
      void operator()(std::byte* data) const noexcept { device->free_pinned(data); }
    };
    std::unique_ptr<std::byte, Free> data_;
    std::size_t bytes_ = 0;
  };
  /// Throws Error (exit 74) with the requested size and name if memory is insufficient.
  [[nodiscard]] PinnedBlock allocate_pinned(const std::string& name, std::size_t bytes);

  /// Current allocations, in order of allocation.
  [[nodiscard]] const std::vector<MemoryLine>& lines() const { return lines_; }
  [[nodiscard]] std::size_t allocated_bytes() const { return total_bytes(lines_); }

 protected:
  /// Null if memory is insufficient.
  virtual std::byte* allocate_bytes(std::size_t bytes) = 0;
  virtual void free_bytes_at(std::byte* data) noexcept = 0;
  /// Zeroed; null if memory is insufficient.
  virtual std::byte* allocate_pinned_bytes(std::size_t bytes);
  virtual void free_pinned(std::byte* data) noexcept;

  [[nodiscard]] virtual void* make_event() { return nullptr; }
  virtual void destroy_event(void* /*event*/) noexcept {}
  virtual void record_event(void* /*event*/, Stream /*stream*/) {}
  virtual void stream_wait(Stream /*stream*/, void* /*event*/) {}
  virtual void synchronize_event(void* /*event*/) {}

 private:
  std::vector<MemoryLine> lines_;
};

/// Numbers of the cores that this process may run on (its affinity mask); empty if the system call fails.
[[nodiscard]] std::vector<int> usable_cores();

/// The CPU with kernels on `threads` threads (0: thread_budget()). Throws IoError if the process may not
/// reserve the address space that GEMM on these threads needs (ulimit -v).
[[nodiscard]] std::unique_ptr<Device> make_cpu_device(int threads);

/// Table of memory for people, largest first, with the total.
[[nodiscard]] std::string format_memory(std::vector<MemoryLine> lines);

}  // namespace voca::engine
