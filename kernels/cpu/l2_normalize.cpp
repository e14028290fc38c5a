#include "kernels/l2_normalize.h"

#include <cmath>

#include "kernels/cpu/chunks.h"
#include "kernels/cpu/rows.h"

namespace voca::kernels {

using namespace cpu;

namespace {

template <typename T>
void forward_row(const T* x, std::int64_t columns, T* z, Stat<T>* saved_norm) {
  const double norm = std::sqrt(lane_sum<double>(columns, [x](std::int64_t j) {
    const auto value = static_cast<double>(x[j]);
    return value * value;
  }));
  *saved_norm = static_cast<Stat<T>>(norm);
  // The comparison is false if norm is NaN, so that the divisor is NaN, not eps.
  const double divisor = norm <= kL2NormalizeEps ? kL2NormalizeEps : norm;
  for (std::int64_t j = 0; j < columns; ++j) z[j] = static_cast<T>(static_cast<double>(x[j]) / divisor);
}

template <typename T>
void backward_row(const T* dz, const T* z, double norm, std::int64_t columns, T* dx) {
  double radial = 0;
  double divisor = kL2NormalizeEps;
  if (!(norm <= kL2NormalizeEps)) {
    radial = lane_sum<double>(
        columns, [dz, z](std::int64_t j) { return static_cast<double>(dz[j]) * static_cast<double>(z[j]); });
    divisor = norm;
  }
  // simd is safe: dx may equal dz, but never partially overlaps it.
#pragma omp simd
  for (std::int64_t j = 0; j < columns; ++j) {
    const double tangential = static_cast<double>(dz[j]) - static_cast<double>(z[j]) * radial;
    dx[j] = static_cast<T>(tangential / divisor);
  }
}

}  // namespace

template <typename T>
void l2_normalize_forward(Cpu, const L2NormalizeForward<T>& args) {
  const std::int64_t columns = args.columns;
  for_row_chunks(args.rows, columns, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      forward_row(args.x + row * columns, columns, args.z + row * columns, args.norm + row);
    }
  });
}

template <typename T>
void l2_normalize_backward(Cpu, const L2NormalizeBackward<T>& args) {
  const std::int64_t columns = args.columns;
  for_row_chunks(args.rows, columns, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      backward_row(args.dz + row * columns, args.z + row * columns, static_cast<double>(args.norm[row]),
                   columns, args.dx + row * columns);
    }
  });
}

#define VOCA_INSTANTIATE(T)                                              \
  template void l2_normalize_forward(Cpu, const L2NormalizeForward<T>&); \
  template void l2_normalize_backward(Cpu, const L2NormalizeBackward<T>&);
VOCA_CPU_TYPES(VOCA_INSTANTIATE)

}  // namespace voca::kernels
