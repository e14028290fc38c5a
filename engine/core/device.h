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

/// One allocation of device memory by name, as `plan` prints it.
struct MemoryLine {
  std::string name;
  std::size_t bytes = 0;
};

class MatrixProducts;

/// One device: its memory, its streams, copies to and from the host. All device memory of the program comes
/// from allocate(), before the first step, by name; what is live is in lines(). Work on a device is queued on
/// streams: each in order, two of them side by side unless an event says otherwise. What is not pure virtual
/// does for a device whose memory is the host's: it has one stream, null, on which everything is done at
/// once.
class Device {
 public:
  Device() = default;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  virtual ~Device() = default;

  [[nodiscard]] virtual DeviceKind kind() const = 0;
  /// For people: "cpu (2 threads, AVX-512)".
  [[nodiscard]] virtual std::string description() const = 0;
  /// Bytes that can be allocated now; 0 when unknown.
  [[nodiscard]] virtual std::size_t free_bytes() const = 0;
  /// The same with what limits them.
  [[nodiscard]] virtual FreeMemory free_memory() const { return {.bytes = free_bytes(), .limit = ""}; }
  /// Waits for all work queued on `stream`; the CPU has none.
  virtual void synchronize(void* stream) = 0;

  /// Where steps are queued, and copies that go on beside them.
  [[nodiscard]] virtual void* compute_stream() const { return nullptr; }
  [[nodiscard]] virtual void* copy_stream() const { return nullptr; }
  /// The library of its matrix products; null where products are kernels.
  [[nodiscard]] virtual MatrixProducts* products() { return nullptr; }

  /// Queues a copy of `bytes` into memory of this device. `host` must hold them until the copy is done; only
  /// from pinned memory does the call return before.
  virtual void copy_to_device(void* to, const void* host, std::size_t bytes, void* stream);
  /// The same the other way.
  virtual void copy_to_host(void* host, const void* from, std::size_t bytes, void* stream);

  /// Queues on `stream` all that `work` queues there, together where the device can: one launch instead of
  /// hundreds, and shorter gaps between them. `kind` names work of one shape (the same operations on arrays
  /// of the same shapes, of whatever content and place): the first of a kind is queued piece by piece, which
  /// loads its kernels. `work` waits for nothing on the device, allocates nothing, and may be called again
  /// when it could not be queued together.
  virtual void queue_together(std::uint64_t kind, void* stream, const std::function<void()>& work);

  /// A point in a stream's order of work, to wait for. Move-only; must not outlive its device.
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
    /// Stands from now on for what is queued on `stream` so far.
    void record(void* stream) { device_->record_event(handle_, stream); }
    /// Work queued on `stream` from now on waits for it. An event never recorded holds up no one.
    void wait_on(void* stream) const { device_->stream_wait(stream, handle_); }
    /// The calling thread waits for it.
    void synchronize() const { device_->synchronize_event(handle_); }

   private:
    void swap(Event& other) noexcept {
      std::swap(device_, other.device_);
      std::swap(handle_, other.handle_);
    }
    Device* device_ = nullptr;
    void* handle_ = nullptr;
  };

  /// Memory that frees itself. Move-only; must not outlive its device.
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

  /// `bytes` zeroed bytes, aligned for every operation. Throws Error (exit 74) when there is not so much
  /// memory, naming what was asked for and listing what is held.
  [[nodiscard]] Block allocate(const std::string& name, std::size_t bytes);

  /// Host memory that copies to and from this device overlap with other work from, zeroed, aligned as
  /// allocate()'s; it frees itself. Move-only; must not outlive its device.
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
  /// Throws Error (exit 74) naming what was asked for.
  [[nodiscard]] PinnedBlock allocate_pinned(const std::string& name, std::size_t bytes);

  /// What is allocated now, in the order it was.
  [[nodiscard]] const std::vector<MemoryLine>& lines() const { return lines_; }
  [[nodiscard]] std::size_t allocated_bytes() const;

 protected:
  /// Null when there is no room.
  virtual std::byte* allocate_bytes(std::size_t bytes) = 0;
  virtual void free_bytes_at(std::byte* data) noexcept = 0;
  /// Zeroed; null when there is no room.
  virtual std::byte* allocate_pinned_bytes(std::size_t bytes);
  virtual void free_pinned(std::byte* data) noexcept;

  [[nodiscard]] virtual void* make_event() { return nullptr; }
  virtual void destroy_event(void* /*event*/) noexcept {}
  virtual void record_event(void* /*event*/, void* /*stream*/) {}
  virtual void stream_wait(void* /*stream*/, void* /*event*/) {}
  virtual void synchronize_event(void* /*event*/) {}

 private:
  std::vector<MemoryLine> lines_;
};

/// Numbers of the cores that this process may run on (its affinity mask); empty where the system does not
/// say.
[[nodiscard]] std::vector<int> usable_cores();

/// The CPU: ordinary memory, kernels on `threads` threads (0: thread_budget()). Throws IoError where the
/// process may not have the addresses that these take for matrix products (ulimit -v).
[[nodiscard]] std::unique_ptr<Device> make_cpu_device(int threads);

/// A table of memory for people, largest first, with the sum.
[[nodiscard]] std::string format_memory(std::vector<MemoryLine> lines);

}  // namespace voca::engine
