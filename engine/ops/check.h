#pragma once

#include <initializer_list>

#include "engine/core/context.h"
#include "engine/core/tensor.h"
#include "kernels/backend.h"

#if defined(VOCA_WITH_CUDA)
#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace voca::engine {
template <>
inline constexpr DType kDTypeOf<__nv_bfloat16> = DType::kBF16;
template <>
inline constexpr DType kDTypeOf<__half> = DType::kF16;
}  // namespace voca::engine
#endif

// Shared by the files of this folder: argument checks, and dispatch from a tensor's type and device to a
// kernel.

namespace voca::engine::ops {

/// Throws InternalError naming operation and tensor unless the tensors have this shape and type and are on
/// the context's device.
void expect(const Context& context, const char* operation, const Shape& shape, DType dtype,
            std::initializer_list<const Tensor*> tensors);
/// expect() for optional arguments: accepts empty tensors.
void expect_optional(const Context& context, const char* operation, const Shape& shape, DType dtype,
                     std::initializer_list<const Tensor*> tensors);

/// Throws InternalError: this build has no kernel for the type on the device.
[[noreturn]] void unsupported(const char* operation, DeviceKind device, DType dtype);

/// The last extent, and the product of the extents before it.
[[nodiscard]] inline std::int64_t columns_of(const Tensor& tensor) {
  return tensor.shape.rank() == 0 ? 1 : tensor.shape[tensor.shape.rank() - 1];
}
[[nodiscard]] inline std::int64_t rows_of(const Tensor& tensor) {
  const std::int64_t columns = columns_of(tensor);
  return columns == 0 ? 0 : tensor.elements() / columns;
}

/// Data of an optional argument; null if empty.
template <typename T>
[[nodiscard]] const T* pointer(const Tensor& tensor) {
  return tensor ? tensor.as<T>() : nullptr;
}
template <typename T>
[[nodiscard]] T* pointer(Tensor& tensor) {
  return tensor ? tensor.as<T>() : nullptr;
}

/// Calls f.template operator()<T>(backend) with the element type T that `dtype` names and the backend on
/// which the context runs: kernels::Cpu, or kernels::Cuda with the context's stream. In a dry run too, so
/// that f announces its scratch; f computes nothing then. Throws InternalError if the backend does not
/// compute in T.
template <typename F>
void dispatch(const Context& context, const char* operation, DType dtype, F f) {
#define VOCA_CASE(T) \
  case kDTypeOf<T>:  \
    return f.template operator()<T>(backend);
  if (context.backend() == DeviceKind::kCpu) {
    const kernels::Cpu backend{};
    switch (dtype) {
      VOCA_CPU_TYPES(VOCA_CASE)
      default:
        break;
    }
  }
#if defined(VOCA_WITH_CUDA)
  if (context.backend() == DeviceKind::kCuda) {
    const kernels::Cuda backend{context.stream};
    switch (dtype) {
      VOCA_CUDA_TYPES(VOCA_CASE)
      default:
        break;
    }
  }
#endif
#undef VOCA_CASE
  unsupported(operation, context.backend(), dtype);
}

}  // namespace voca::engine::ops
