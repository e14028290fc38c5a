#include "engine/ops/check.h"

namespace voca::engine::ops {

void expect(const Context& context, const char* operation, const Shape& shape, DType dtype,
            std::initializer_list<const Tensor*> tensors) {
  const bool dry = context.device() == DeviceKind::kMeta;
  for (const Tensor* tensor : tensors) {
    if (tensor->shape == shape && tensor->dtype == dtype &&
        (dry || (tensor->device == context.device() && (tensor->data != nullptr || shape.elements() == 0))))
      continue;
    throw InternalError("{}: tensor {} is {} {} on {}, expected {} {} on {}", operation,
                        *tensor->name == '\0' ? "(left out)" : tensor->name, name_of(tensor->dtype),
                        to_string(tensor->shape), name_of(tensor->device), name_of(dtype), to_string(shape),
                        name_of(context.device()));
  }
}

void expect_optional(const Context& context, const char* operation, const Shape& shape, DType dtype,
                     std::initializer_list<const Tensor*> tensors) {
  for (const Tensor* tensor : tensors)
    if (*tensor) expect(context, operation, shape, dtype, {tensor});
}

void unsupported(const char* operation, DeviceKind device, DType dtype) {
  throw InternalError("{}: this build has no kernel for {} on {}", operation, name_of(dtype),
                      name_of(device));
}

}  // namespace voca::engine::ops
