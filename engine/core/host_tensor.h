#pragma once

#include <cstddef>
#include <vector>

#include "engine/core/device.h"
#include "engine/core/tensor.h"

namespace voca::engine {

/// Copies the first `bytes` of a device's tensor to `out`, after the work queued on its compute stream, and
/// waits.
void read_from(Device& device, const Tensor& tensor, void* out, std::size_t bytes);
/// Copies `bytes` into a device's tensor, from its byte `offset` on, likewise.
void write_to(Device& device, const Tensor& tensor, std::size_t offset, const void* from, std::size_t bytes);

/// A tensor where the host can read and write it: the tensor itself where the device's memory is the host's,
/// else a copy. Making one and write_back() wait for the work queued on the device's compute stream.
class HostTensor {
 public:
  HostTensor(Device& device, const Tensor& tensor);
  HostTensor(const HostTensor&) = delete;
  HostTensor& operator=(const HostTensor&) = delete;

  /// On the CPU; as long-lived as this object.
  [[nodiscard]] const Tensor& tensor() const { return host_; }
  /// Makes the device's tensor the same again.
  void write_back() const;

 private:
  Device& device_;
  Tensor tensor_;
  std::vector<std::byte> copy_;  // empty where tensor_ is the host's
  Tensor host_;
};

}  // namespace voca::engine
