#include "engine/comm/rank_order_sum.h"

#include <algorithm>

#include "engine/base/error.h"

namespace voca::engine {
namespace {

template <typename T>
void sum_of(const std::byte* parts, int count, std::int64_t elements, void* sum) {
  const T* part = reinterpret_cast<const T*>(parts);
  T* out = static_cast<T*>(sum);
  std::copy_n(part, elements, out);
  for (int r = 1; r < count; ++r) {
    part += elements;
    for (std::int64_t i = 0; i < elements; ++i) out[i] += part[i];
  }
}

}  // namespace

void sum_in_rank_order(DType dtype, const std::byte* parts, int count, std::int64_t elements, void* sum) {
  switch (dtype) {
    case DType::kF32:
      return sum_of<float>(parts, count, elements, sum);
    case DType::kF64:
      return sum_of<double>(parts, count, elements, sum);
    case DType::kI32:
      return sum_of<std::int32_t>(parts, count, elements, sum);
    case DType::kI64:
      return sum_of<std::int64_t>(parts, count, elements, sum);
    default:
      throw InternalError("all_reduce_sum: {} is not summed on the CPU", name_of(dtype));
  }
}

}  // namespace voca::engine
