#include "engine/ops/check.h"

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

void unsupported(const char* operation, DeviceKind device, DType dtype) {
  throw InternalError("{}: this build has no kernel for {} on {}", operation, name_of(dtype),
                      name_of(device));
}

}  // namespace voca::engine::ops
