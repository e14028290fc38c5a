#pragma once

#include <cstdint>

#include "engine/tensor.h"

namespace voca::engine {

/// Element `i` of a result on the CPU, of float32 or float64. Results are read after Device::synchronize().
[[nodiscard]] inline double read_back(const Tensor& tensor, std::int64_t i) {
  VOCA_CHECK(tensor.device == DeviceKind::kCpu && i >= 0 && i < tensor.elements());
  return tensor.dtype == DType::kF64 ? tensor.as<double>()[i] : static_cast<double>(tensor.as<float>()[i]);
}

}  // namespace voca::engine
