#pragma once

#include <bit>
#include <cstdint>

#include "engine/core/tensor.h"
#include "kernels/cpu/half.h"

namespace voca::engine {

/// Element `i` of a result on the CPU, for any compute type. Results are valid after Device::synchronize();
/// read results of a GPU through HostTensor.
[[nodiscard]] inline double read_back(const Tensor& tensor, std::int64_t i) {
  VOCA_CHECK(tensor.device == DeviceKind::kCpu && i >= 0 && i < tensor.elements());
  const auto bits = [&] { return static_cast<const std::uint16_t*>(tensor.data)[i]; };
  switch (tensor.dtype) {
    case DType::kF64:
      return tensor.as<double>()[i];
    case DType::kBF16:
      return static_cast<double>(kernels::cpu::bfloat16_to_float(bits()));
    case DType::kF16:
      return static_cast<double>(kernels::cpu::half_to_float(bits()));
    default:
      return static_cast<double>(tensor.as<float>()[i]);
  }
}

}  // namespace voca::engine
