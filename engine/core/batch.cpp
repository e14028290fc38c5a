#include "engine/core/batch.h"

#include <fmt/format.h>

namespace voca::engine {

Shape TensorSpec::of(std::int64_t size) const {
  Shape shape{size};
  for (const std::int64_t extent : sample.extents()) shape.append(extent);
  return shape;
}

Tensor TensorSpec::meta(std::int64_t size, DType compute_type) const {
  return {.shape = of(size), .dtype = dtype.value_or(compute_type), .name = name.c_str()};
}

std::size_t TensorSpec::bytes(std::int64_t size, DType compute_type) const {
  return meta(size, compute_type).bytes();
}

void TensorList::push_back(const Tensor& tensor) {
  VOCA_CHECK(size_ < kCapacity);
  tensors_[size_++] = tensor;
}

const Tensor& TensorList::at(std::string_view name) const {
  for (const Tensor& tensor : *this)
    if (tensor.name == name) return tensor;
  std::string names;
  for (const Tensor& tensor : *this) names += fmt::format("{}{}", names.empty() ? "" : ", ", tensor.name);
  throw InternalError("tensors: there is no \"{}\" among {}", name, names.empty() ? "none" : names);
}

}  // namespace voca::engine
