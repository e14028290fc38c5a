#pragma once

#include "engine/context.h"
#include "engine/tensor.h"

// What the files of this folder share: argument checks, and the way from a tensor's type and device to a
// kernel.

namespace voca::engine::ops {

/// Throws InternalError naming operation and tensor unless it has this shape and type and lies on the
/// context's device.
void expect(const Context& context, const char* operation, const Tensor& tensor, const Shape& shape,
            DType dtype);
/// The same for an argument that may be left out.
void expect_optional(const Context& context, const char* operation, const Tensor& tensor, const Shape& shape,
                     DType dtype);

[[noreturn]] void unsupported_type(const char* operation, DType dtype);
[[noreturn]] void unsupported_device(const char* operation, DeviceKind device);

/// The last extent, and the product of those before it.
[[nodiscard]] inline std::int64_t columns_of(const Tensor& tensor) {
  return tensor.shape.rank() == 0 ? 1 : tensor.shape[tensor.shape.rank() - 1];
}
[[nodiscard]] inline std::int64_t rows_of(const Tensor& tensor) {
  const std::int64_t columns = columns_of(tensor);
  return columns == 0 ? 0 : tensor.elements() / columns;
}

[[nodiscard]] inline DType statistics_type(DType compute_type) {
  return compute_type == DType::kF64 ? DType::kF64 : DType::kF32;
}

/// Null where the argument was left out.
template <typename T>
[[nodiscard]] T* pointer(const Tensor& tensor) {
  return tensor ? tensor.as<T>() : nullptr;
}

/// Calls f.template operator()<T>() with the compute type.
template <typename F>
void by_type(const char* operation, DType dtype, F&& f) {
  switch (dtype) {
    case DType::kF32:
      return f.template operator()<float>();
    case DType::kF64:
      return f.template operator()<double>();
    default:
      unsupported_type(operation, dtype);
  }
}

}  // namespace voca::engine::ops

/// Sends a kernel's arguments to the backend of the context's device. The dry run ends here.
#define VOCA_DISPATCH(context, kernel, args)           \
  switch ((context).device()) {                        \
    case DeviceKind::kMeta:                            \
      break;                                           \
    case DeviceKind::kCpu:                             \
      ::voca::kernels::cpu::kernel(args);              \
      break;                                           \
    default:                                           \
      unsupported_device(#kernel, (context).device()); \
  }
