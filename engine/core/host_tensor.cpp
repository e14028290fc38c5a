#include "engine/core/host_tensor.h"

namespace voca::engine {

void read_from(Device& device, const Tensor& tensor, void* out, std::size_t bytes) {
  VOCA_CHECK(tensor.device == device.kind() && bytes <= tensor.bytes());
  device.copy_to_host(out, tensor.data, bytes, device.compute_stream());
  device.synchronize(device.compute_stream());
}

void write_to(Device& device, Tensor tensor, std::size_t offset, const void* from, std::size_t bytes) {
  VOCA_CHECK(tensor.device == device.kind() && offset + bytes <= tensor.bytes());
  device.copy_to_device(static_cast<std::byte*>(tensor.data) + offset, from, bytes, device.compute_stream());
  device.synchronize(device.compute_stream());
}

HostTensor::HostTensor(Device& device, const Tensor& tensor)
    : device_(device), tensor_(tensor), host_(tensor) {
  if (tensor.device == DeviceKind::kCpu) return;
  copy_.resize(tensor.bytes());
  read_from(device, tensor, copy_.data(), copy_.size());
  host_.data = copy_.data();
  host_.device = DeviceKind::kCpu;
}

void HostTensor::write_back() const {
  if (host_.data != tensor_.data) write_to(device_, tensor_, 0, host_.data, host_.bytes());
}

}  // namespace voca::engine
