#include "engine/core/tensor.h"

#include <fmt/ranges.h>

namespace voca::engine {

std::string to_string(const Shape& shape) {
  return fmt::format("({})", fmt::join(shape.extents(), ", "));
}

Tensor Tensor::view(const Shape& other) const {
  if (other.elements() != elements())
    throw InternalError("tensor {}: {} cannot be seen as {}", name, to_string(shape), to_string(other));
  Tensor result = *this;
  result.shape = other;
  return result;
}

Tensor Tensor::rows(std::int64_t first, std::int64_t count) const {
  if (shape.rank() == 0 || first < 0 || count < 0 || first + count > shape[0])
    throw InternalError("tensor {}: rows [{}, {}) of {}", name, first, first + count, to_string(shape));
  const std::int64_t row = shape[0] == 0 ? 0 : elements() / shape[0];
  Tensor result = *this;
  if (data != nullptr)
    result.data = static_cast<std::byte*>(data) + static_cast<std::size_t>(first * row) * size_of(dtype);
  result.shape = shape.with(0, count);
  return result;
}

}  // namespace voca::engine
