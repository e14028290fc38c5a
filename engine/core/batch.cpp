#include "engine/core/batch.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/base/error.h"

namespace voca::engine {
namespace {

std::string text_of(const TensorSpec& spec) {
  return spec.sample.rank() == 0 ? spec.name : fmt::format("{} {}", spec.name, to_string(spec.sample));
}

void check_provides(const std::vector<TensorSpec>& available, const std::vector<TensorSpec>& needed,
                    std::string_view what, std::string_view source) {
  for (const TensorSpec& one : needed) {
    const auto fits = [&](const TensorSpec& other) {
      return other.name == one.name && other.sample == one.sample;
    };
    if (std::any_of(available.begin(), available.end(), fits)) continue;
    std::string have;
    for (const TensorSpec& other : available) have += (have.empty() ? "" : ", ") + text_of(other);
    throw DataError("{}: lacks the {} {} per sample that the network needs; it has {}", source, what,
                    text_of(one), have);
  }
}

}  // namespace

void check_provides(const BatchSpec& available, const BatchSpec& needed, std::string_view source) {
  check_provides(available.inputs, needed.inputs, "input", source);
  check_provides(available.targets, needed.targets, "target", source);
}

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
