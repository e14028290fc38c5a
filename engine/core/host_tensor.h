#pragma once

#include <cstddef>
#include <vector>

#include "engine/core/device.h"
#include "engine/core/tensor.h"

namespace voca::engine {

/// Copies the first `bytes` bytes of a device tensor to `out`, after the work queued on the device's compute
/// stream, and waits.
void read_from(Device& device, const Tensor& tensor, void* out, std::size_t bytes);
/// Copies `bytes` bytes to a device tensor at byte `offset`, after the work queued on the compute stream, and
/// waits.
void write_to(Device& device, Tensor tensor, std::size_t offset, const void* from, std::size_t bytes);

/// A tensor in host-accessible memory: the tensor itself if the device's memory is the host's, else a copy.
/// The constructor and write_back() wait for the work queued on the device's compute stream.
class HostTensor {
 public:
  HostTensor(Device& device, const Tensor& tensor);
  HostTensor(const HostTensor&) = delete;
  HostTensor& operator=(const HostTensor&) = delete;

  /// The tensor on the CPU, valid as long as this object.
  [[nodiscard]] const Tensor& tensor() const { return host_; }
  /// Copies the host tensor back to the device.
  void write_back() const;

 private:
  Device& device_;
  Tensor tensor_;
  std::vector<std::byte> copy_;  // empty if tensor_ is in host memory
  Tensor host_;
};

}  // namespace voca::engine
