#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "engine/core/tensor.h"
#include "kernels/cpu/half.h"

namespace voca::engine {

/// The element of type `dtype` at `at`, which need not be aligned, converted to To: exact from the 16-bit
/// types and float32; float64 is rounded to nearest; integers are cast.
template <typename To>
[[nodiscard]] To element_as(DType dtype, const std::byte* at) {
  const auto load = [at]<typename T>(T value) {
    std::memcpy(&value, at, sizeof value);
    return value;
  };
  switch (dtype) {
    case DType::kF64:
      return static_cast<To>(load(double{}));
    case DType::kF32:
      return static_cast<To>(load(float{}));
    case DType::kF16:
      return static_cast<To>(kernels::cpu::half_to_float(load(std::uint16_t{})));
    case DType::kBF16:
      return static_cast<To>(kernels::cpu::bfloat16_to_float(load(std::uint16_t{})));
    case DType::kI64:
      return static_cast<To>(load(std::int64_t{}));
    case DType::kI32:
      return static_cast<To>(load(std::int32_t{}));
    case DType::kI16:
      return static_cast<To>(load(std::int16_t{}));
    case DType::kI8:
      return static_cast<To>(load(std::int8_t{}));
    case DType::kU8:
    case DType::kBool:
      return static_cast<To>(load(std::uint8_t{}));
  }
  return To{};
}

/// Element `i` of a tensor on the CPU. Results are valid after Device::synchronize(); read results of a GPU
/// through HostTensor.
[[nodiscard]] inline double read_back(const Tensor& tensor, std::int64_t i) {
  VOCA_CHECK(tensor.device == DeviceKind::kCpu && i >= 0 && i < tensor.elements());
  return element_as<double>(tensor.dtype, static_cast<const std::byte*>(tensor.data) +
                                              static_cast<std::size_t>(i) * size_of(tensor.dtype));
}

}  // namespace voca::engine
