#include "kernels/l2_normalize.h"

#include <cmath>

#include "kernels/cpu/sum.h"

namespace voca::kernels::cpu {

template <typename T>
void l2_normalize_forward(const L2NormalizeForward<T>& args) {
  const std::int64_t columns = args.columns;
  for (std::int64_t row = 0; row < args.rows; ++row) {
    const T* x = args.x + row * columns;
    T* z = args.z + row * columns;
    const double norm = std::sqrt(ordered_sum(columns, [x](std::int64_t j) {
      const auto value = static_cast<double>(x[j]);
      return value * value;
    }));
    args.norm[row] = static_cast<Stat<T>>(norm);
    // Written so that a NaN norm is the divisor, not eps.
    const double divisor = norm <= kL2NormalizeEps ? kL2NormalizeEps : norm;
    for (std::int64_t j = 0; j < columns; ++j) z[j] = static_cast<T>(static_cast<double>(x[j]) / divisor);
  }
}

template <typename T>
void l2_normalize_backward(const L2NormalizeBackward<T>& args) {
  const std::int64_t columns = args.columns;
  for (std::int64_t row = 0; row < args.rows; ++row) {
    const T* dz = args.dz + row * columns;
    const T* z = args.z + row * columns;
    T* dx = args.dx + row * columns;
    const auto norm = static_cast<double>(args.norm[row]);
    const bool constant_divisor = norm <= kL2NormalizeEps;
    const double divisor = constant_divisor ? kL2NormalizeEps : norm;
    const double radial = constant_divisor ? 0.0 : ordered_sum(columns, [dz, z](std::int64_t j) {
      return static_cast<double>(dz[j]) * static_cast<double>(z[j]);
    });
    // simd: dx may be dz itself, element for element.
#pragma omp simd
    for (std::int64_t j = 0; j < columns; ++j) {
      const double tangential = static_cast<double>(dz[j]) - static_cast<double>(z[j]) * radial;
      dx[j] = static_cast<T>(tangential / divisor);
    }
  }
}

template void l2_normalize_forward(const L2NormalizeForward<float>& args);
template void l2_normalize_forward(const L2NormalizeForward<double>& args);
template void l2_normalize_backward(const L2NormalizeBackward<float>& args);
template void l2_normalize_backward(const L2NormalizeBackward<double>& args);

}  // namespace voca::kernels::cpu
