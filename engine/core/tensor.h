#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <utility>

#include "engine/base/error.h"
#include "engine/core/dtype.h"

namespace voca::engine {

/// Where memory is and which backend computes on it. kMeta has no memory: in a dry run, operations check
/// their arguments and return.
enum class DeviceKind : std::uint8_t { kMeta, kCpu, kCuda };

constexpr auto names_of(DeviceKind /*tag*/) {
  return std::to_array<Named<DeviceKind>>(
      {{"meta", DeviceKind::kMeta}, {"cpu", DeviceKind::kCpu}, {"cuda", DeviceKind::kCuda}});
}

inline constexpr int kMaxRank = 4;

/// Up to four extents, outermost first, stored in place: constructing one allocates nothing.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> extents) {
    VOCA_CHECK(extents.size() <= kMaxRank);
    for (const std::int64_t extent : extents) extents_[static_cast<std::size_t>(rank_++)] = extent;
  }

  /// Adds an innermost extent.
  void append(std::int64_t extent) {
    VOCA_CHECK(rank_ < kMaxRank);
    extents_[static_cast<std::size_t>(rank_++)] = extent;
  }
  [[nodiscard]] int rank() const { return rank_; }
  [[nodiscard]] std::int64_t operator[](int i) const { return extents_[static_cast<std::size_t>(i)]; }
  [[nodiscard]] std::int64_t elements() const {
    std::int64_t product = 1;
    for (int i = 0; i < rank_; ++i) product *= (*this)[i];
    return product;
  }
  [[nodiscard]] std::span<const std::int64_t> extents() const {
    return {extents_.data(), static_cast<std::size_t>(rank_)};
  }
  /// The shape with another extent at `i`.
  [[nodiscard]] Shape with(int i, std::int64_t extent) const {
    VOCA_CHECK(i >= 0 && i < rank_);
    Shape shape = *this;
    shape.extents_[static_cast<std::size_t>(i)] = extent;
    return shape;
  }
  [[nodiscard]] bool operator==(const Shape&) const = default;

 private:
  std::array<std::int64_t, kMaxRank> extents_{};
  int rank_ = 0;
};

/// "(16, 128, 256)"; a scalar is "()".
[[nodiscard]] std::string to_string(const Shape& shape);

/// Non-owning view of a contiguous, row-major array (in an arena, a flat parameter buffer, a batch slot).
/// Copies share the data. `name` must outlive the view and appears in every message about it.
struct Tensor {
  void* data = nullptr;
  Shape shape;
  DType dtype = DType::kF32;
  DeviceKind device = DeviceKind::kMeta;
  const char* name = "";

  [[nodiscard]] std::int64_t elements() const { return shape.elements(); }
  [[nodiscard]] std::size_t bytes() const { return static_cast<std::size_t>(elements()) * size_of(dtype); }
  /// Whether the tensor is set; an empty tensor stands for an omitted optional argument.
  [[nodiscard]] explicit operator bool() const { return shape.rank() > 0; }

  /// The elements as T, read-only through a const view; throws InternalError naming the tensor if its type
  /// differs.
  template <typename T>
  [[nodiscard]] const T* as() const {
    if (dtype != kDTypeOf<T>)
      throw InternalError("tensor {}: is {}, used as {}", name, name_of(dtype), name_of(kDTypeOf<T>));
    return static_cast<const T*>(data);
  }
  template <typename T>
  [[nodiscard]] T* as() {
    return const_cast<T*>(std::as_const(*this).as<T>());
  }

  /// View of the elements with another shape; throws InternalError if the number of elements differs.
  [[nodiscard]] Tensor view(const Shape& other) const;
  /// View of rows [first, first + count) of the outermost extent; throws InternalError if out of range.
  [[nodiscard]] Tensor rows(std::int64_t first, std::int64_t count) const;
};

}  // namespace voca::engine
