#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "engine/tensor.h"

namespace voca::engine {

/// One allocation of device memory by name, as `plan` prints it.
struct MemoryLine {
  std::string name;
  std::size_t bytes = 0;
};

/// Memory on one device. All device memory of the program comes from allocate(), before the first step, by
/// name; what is live is in lines(). The CUDA backend is a second implementation of this class.
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
  /// Waits for all work queued on `stream`; the CPU has none.
  virtual void synchronize(void* stream) = 0;

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
  /// What is allocated now, in the order it was.
  [[nodiscard]] const std::vector<MemoryLine>& lines() const { return lines_; }
  [[nodiscard]] std::size_t allocated_bytes() const;

 protected:
  /// Null when there is no room.
  virtual std::byte* allocate_bytes(std::size_t bytes) = 0;
  virtual void free_bytes_at(std::byte* data) noexcept = 0;

 private:
  std::vector<MemoryLine> lines_;
};

/// Cores that this process may run on (its affinity mask).
[[nodiscard]] int usable_cores();

/// The CPU: ordinary memory, kernels on `threads` threads (0: one for each core this process may use).
[[nodiscard]] std::unique_ptr<Device> make_cpu_device(int threads);

/// A table of memory for people, largest first, with the sum.
[[nodiscard]] std::string format_memory(std::vector<MemoryLine> lines);

}  // namespace voca::engine
