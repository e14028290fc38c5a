#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "engine/tensor.h"

namespace voca::engine {

/// Element `i` of a result on the CPU, of float32 or float64. Results are read after Device::synchronize().
[[nodiscard]] inline double read_back(const Tensor& tensor, std::int64_t i) {
  VOCA_CHECK(tensor.device == DeviceKind::kCpu && i >= 0 && i < tensor.elements());
  return tensor.dtype == DType::kF64 ? tensor.as<double>()[i] : static_cast<double>(tensor.as<float>()[i]);
}

/// Copies the first `bytes` of a tensor on the CPU to `out`.
inline void read_from(const Tensor& tensor, void* out, std::size_t bytes) {
  VOCA_CHECK(tensor.device == DeviceKind::kCpu && bytes <= tensor.bytes());
  std::memcpy(out, tensor.data, bytes);
}

/// Copies `bytes` into a tensor on the CPU, from its byte `offset` on.
inline void write_to(const Tensor& tensor, std::size_t offset, const void* from, std::size_t bytes) {
  VOCA_CHECK(tensor.device == DeviceKind::kCpu && offset + bytes <= tensor.bytes());
  std::memcpy(static_cast<std::byte*>(tensor.data) + offset, from, bytes);
}

}  // namespace voca::engine
