#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
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
};

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
  /// Bytes that can be allocated now; 0 if unknown.
  [[nodiscard]] virtual std::size_t free_bytes() const = 0;
  /// free_bytes() with the limit that binds.
  [[nodiscard]] virtual FreeMemory free_memory() const { return {.bytes = free_bytes(), .limit = ""}; }
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
    explicit Event(Device& device) : device_(&device), handle_(device.make_event()) {}
    Event(Event&& other) noexcept { swap(other); }
    Event& operator=(Event&& other) noexcept {
      swap(other);
      return *this;
    }
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;
    ~Event() {
      if (device_ != nullptr) device_->destroy_event(handle_);
    }
    /// Marks the work queued on `stream` so far.
    void record(Stream stream) { device_->record_event(handle_, stream); }
    /// Work queued on `stream` from now on waits for the event. An event never recorded is complete.
    void wait_on(Stream stream) const { device_->stream_wait(stream, handle_); }
    /// Blocks the calling thread until the event completes.
    void synchronize() const { device_->synchronize_event(handle_); }

   private:
    void swap(Event& other) noexcept {
      std::swap(device_, other.device_);
      std::swap(handle_, other.handle_);
    }
    Device* device_ = nullptr;
    void* handle_ = nullptr;
  };

  /// Owned device memory. Move-only; must not outlive its device.
  class Block {
   public:
    Block() = default;
    Block(Device& device, std::string name, std::byte* data, std::size_t bytes)
        : device_(&device), name_(std::move(name)), data_(data), bytes_(bytes) {}
    Block(Block&& other) noexcept { swap(other); }
    Block& operator=(Block&& other) noexcept {
      swap(other);
      return *this;
    }
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;
    ~Block();
    [[nodiscard]] std::byte* data() const { return data_; }
    [[nodiscard]] std::size_t bytes() const { return bytes_; }

   private:
    void swap(Block& other) noexcept {
      std::swap(device_, other.device_);
      std::swap(name_, other.name_);
      std::swap(data_, other.data_);
      std::swap(bytes_, other.bytes_);
    }
    Device* device_ = nullptr;
    std::string name_;
    std::byte* data_ = nullptr;
    std::size_t bytes_ = 0;
  };

  /// Allocates `bytes` zeroed bytes, aligned for every operation. Throws Error (exit 74) if memory is
  /// insufficient, with the requested size and name and all current allocations.
  [[nodiscard]] Block allocate(const std::string& name, std::size_t bytes);

  /// Owned host memory, zeroed and aligned as by allocate(), from and to which copies overlap with other
  /// work. Move-only; must not outlive its device.
  class PinnedBlock {
   public:
    PinnedBlock() = default;
    PinnedBlock(Device& device, std::byte* data, std::size_t bytes)
        : device_(&device), data_(data), bytes_(bytes) {}
    PinnedBlock(PinnedBlock&& other) noexcept { swap(other); }
    PinnedBlock& operator=(PinnedBlock&& other) noexcept {
      swap(other);
      return *this;
    }
    PinnedBlock(const PinnedBlock&) = delete;
    PinnedBlock& operator=(const PinnedBlock&) = delete;
    ~PinnedBlock() {
      if (device_ != nullptr) device_->free_pinned(data_);
    }
    [[nodiscard]] std::byte* data() const { return data_; }
    [[nodiscard]] std::size_t bytes() const { return bytes_; }

   private:
    void swap(PinnedBlock& other) noexcept {
      std::swap(device_, other.device_);
      std::swap(data_, other.data_);
      std::swap(bytes_, other.bytes_);
    }
    Device* device_ = nullptr;
    std::byte* data_ = nullptr;
    std::size_t bytes_ = 0;
  };
  /// Throws Error (exit 74) with the requested size and name if memory is insufficient.
  [[nodiscard]] PinnedBlock allocate_pinned(const std::string& name, std::size_t bytes);

  /// Current allocations, in order of allocation.
  [[nodiscard]] const std::vector<MemoryLine>& lines() const { return lines_; }
  [[nodiscard]] std::size_t allocated_bytes() const;

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
