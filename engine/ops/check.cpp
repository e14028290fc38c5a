#include "engine/ops/check.h"

#include <algorithm>
#include <cstdint>

namespace voca::engine::ops {

void expect(const Context& context, const char* operation, const Tensor& tensor, const Shape& shape,
            DType dtype) {
  if (tensor.shape == shape && tensor.dtype == dtype &&
      (tensor.device == context.device() || context.device() == DeviceKind::kMeta) &&
      (tensor.data != nullptr || context.device() == DeviceKind::kMeta || shape.elements() == 0))
    return;
  throw InternalError("{}: tensor {} is {} {} on {}, expected {} {} on {}", operation,
                      *tensor.name == '\0' ? "(left out)" : tensor.name, name_of(tensor.dtype),
                      to_string(tensor.shape), name_of(tensor.device), name_of(dtype), to_string(shape),
                      name_of(context.device()));
}

void expect_optional(const Context& context, const char* operation, const Tensor& tensor, const Shape& shape,
                     DType dtype) {
  if (tensor) expect(context, operation, tensor, shape, dtype);
}

int alignment_of(std::int64_t elements, DType dtype) {
  const std::int64_t bytes = elements * static_cast<std::int64_t>(size_of(dtype));
  return static_cast<int>(std::min<std::int64_t>(bytes & -bytes, 16));
}

void multiply(const Context& context, const MatrixProduct& product) {
  if (context.device() != DeviceKind::kMeta) {
    VOCA_CHECK(context.products != nullptr);
    for (const void* operand : {product.a, product.b, static_cast<const void*>(product.c), product.bias}) {
      VOCA_CHECK(reinterpret_cast<std::uintptr_t>(operand) % static_cast<std::uintptr_t>(product.alignment) ==
                 0);
    }
    context.products->multiply(product, context.stream);
  } else if (context.products != nullptr) {
    context.products->prepare(product);
  }
}

void unsupported_type(const char* operation, DType dtype) {
  throw InternalError("{}: no kernel computes in {}", operation, name_of(dtype));
}

void unsupported_device(const char* operation, DeviceKind device, DType dtype) {
  throw InternalError("{}: this build has no kernel for {} on {}", operation, name_of(dtype),
                      name_of(device));
}

}  // namespace voca::engine::ops
