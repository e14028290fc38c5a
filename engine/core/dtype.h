#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "engine/base/error.h"
#include "engine/base/names.h"
#include "kernels/backend.h"

namespace voca::engine {

using kernels::Stream;

/// Element types of tensors, datasets and checkpoints. The engine computes in kF32 and kF64 on the CPU, in
/// kF32, kBF16 and kF16 on a GPU.
enum class DType : std::uint8_t { kF64, kF32, kF16, kBF16, kI64, kI32, kI16, kI8, kU8, kBool };

[[nodiscard]] constexpr std::size_t size_of(DType dtype) {
  constexpr std::size_t kSizes[] = {8, 4, 2, 2, 8, 4, 2, 1, 1, 1};  // in the order of DType
  return kSizes[static_cast<std::size_t>(dtype)];
}

[[nodiscard]] constexpr bool is_floating(DType dtype) {
  return dtype == DType::kF64 || dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

/// Type of statistics, losses and norms (kernels::Stat) where the elements are of type `dtype`.
[[nodiscard]] constexpr DType statistics_type(DType dtype) {
  return dtype == DType::kF64 ? DType::kF64 : DType::kF32;
}

constexpr auto names_of(DType /*tag*/) {
  return std::to_array<Named<DType>>({{"float64", DType::kF64},
                                      {"float32", DType::kF32},
                                      {"float16", DType::kF16},
                                      {"bfloat16", DType::kBF16},
                                      {"int64", DType::kI64},
                                      {"int32", DType::kI32},
                                      {"int16", DType::kI16},
                                      {"int8", DType::kI8},
                                      {"uint8", DType::kU8},
                                      {"bool", DType::kBool}});
}

template <typename T>
inline constexpr DType kDTypeOf = [] {
  static_assert(sizeof(T) == 0, "no DType for this type");
  return DType::kF32;
}();
template <>
inline constexpr DType kDTypeOf<double> = DType::kF64;
template <>
inline constexpr DType kDTypeOf<float> = DType::kF32;
template <>
inline constexpr DType kDTypeOf<std::int64_t> = DType::kI64;
template <>
inline constexpr DType kDTypeOf<std::int32_t> = DType::kI32;
template <>
inline constexpr DType kDTypeOf<std::uint8_t> = DType::kU8;

}  // namespace voca::engine
