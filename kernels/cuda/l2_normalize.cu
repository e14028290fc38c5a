#include "kernels/l2_normalize.h"

#include "kernels/cuda/elements.h"
#include "kernels/cuda/reduce.h"

namespace voca::kernels {

using namespace cuda;

namespace {

// A warp takes a row. Computes in double, as on the CPU: squares of floats neither overflow nor underflow,
// and a step has only a few thousand elements.
constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;

SIMT_DEVICE std::int64_t row_of_warp() {
  return block_index() * kWarps + warp_index();
}

template <typename T>
__global__ void __launch_bounds__(kThreads) l2_normalize_forward_kernel(L2NormalizeForward<T> args) {
  const std::int64_t row = row_of_warp();
  if (row >= args.rows) return;
  const T* x = args.x + row * args.columns;
  T* z = args.z + row * args.columns;
  double square = 0;
  for (std::int64_t j = lane_index(); j < args.columns; j += kWarp) {
    const auto value = static_cast<double>(to_float(x[j]));
    square += value * value;
  }
  const double norm = sqrt(warp_sum(square));
  // The comparison is false if norm is NaN, so that the divisor is NaN, not eps.
  const double divisor = norm <= kL2NormalizeEps ? kL2NormalizeEps : norm;
  for (std::int64_t j = lane_index(); j < args.columns; j += kWarp)
    z[j] = from_float<T>(static_cast<float>(static_cast<double>(to_float(x[j])) / divisor));
  if (lane_index() == 0) args.norm[row] = static_cast<float>(norm);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) l2_normalize_backward_kernel(L2NormalizeBackward<T> args) {
  const std::int64_t row = row_of_warp();
  if (row >= args.rows) return;
  const T* dz = args.dz + row * args.columns;
  const T* z = args.z + row * args.columns;
  T* dx = args.dx + row * args.columns;
  const auto norm = static_cast<double>(args.norm[row]);
  const bool below = norm <= kL2NormalizeEps;
  double radial = 0;
  for (std::int64_t j = lane_index(); j < args.columns; j += kWarp)
    radial += static_cast<double>(to_float(dz[j])) * static_cast<double>(to_float(z[j]));
  radial = below ? 0.0 : warp_sum(radial);
  const double divisor = below ? kL2NormalizeEps : norm;
  for (std::int64_t j = lane_index(); j < args.columns; j += kWarp) {
    const double tangential =
        static_cast<double>(to_float(dz[j])) - static_cast<double>(to_float(z[j])) * radial;
    dx[j] = from_float<T>(static_cast<float>(tangential / divisor));
  }
}

}  // namespace

template <typename T>
void l2_normalize_forward(Cuda backend, const L2NormalizeForward<T>& args) {
  if (args.rows == 0) return;
  simt::launch("l2_normalize_forward", l2_normalize_forward_kernel<T>,
               {blocks_for(args.rows, kWarps), dim3(kThreads), 0, backend.stream}, args);
}

template <typename T>
void l2_normalize_backward(Cuda backend, const L2NormalizeBackward<T>& args) {
  if (args.rows == 0) return;
  simt::launch("l2_normalize_backward", l2_normalize_backward_kernel<T>,
               {blocks_for(args.rows, kWarps), dim3(kThreads), 0, backend.stream}, args);
}

#define VOCA_INSTANTIATE(T)                                               \
  template void l2_normalize_forward(Cuda, const L2NormalizeForward<T>&); \
  template void l2_normalize_backward(Cuda, const L2NormalizeBackward<T>&);
VOCA_CUDA_TYPES(VOCA_INSTANTIATE)

}  // namespace voca::kernels
