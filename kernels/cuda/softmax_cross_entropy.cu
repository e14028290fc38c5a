#include "kernels/softmax_cross_entropy.h"

#include "kernels/cuda/elements.h"
#include "kernels/cuda/reduce.h"

namespace voca::kernels {

using namespace cuda;

namespace {

// Single block, one warp per row: a batch has a few dozen rows. Computes in double because p − target may
// cancel.
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

/// Largest logit of a row and the first class that has it (`classes` if all logits are NaN).
struct Largest {
  float value;
  int place;
};

template <typename T>
SIMT_DEVICE Largest largest(const T* x, std::int64_t classes) {
  float value = -INFINITY;
  for (std::int64_t k = lane_index(); k < classes; k += kWarp) value = fmaxf(value, to_float(x[k]));
  value = warp_max(value);
  auto place = static_cast<int>(classes);
  for (std::int64_t k = lane_index(); k < classes; k += kWarp) {
    if (to_float(x[k]) == value && k < place) place = static_cast<int>(k);
  }
  SIMT_UNROLL
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const int other = __shfl_xor_sync(kFullWarp, place, distance);
    place = other < place ? other : place;
  }
  return {value, place};
}

// Returns log Σ e^{x − m} + Σ target · (m − x) and writes dlogits. The sum omits the 1 of the largest logit,
// so that log1p keeps precision for confident rows.
template <typename T>
SIMT_DEVICE double row_loss(const SoftmaxCrossEntropy<T>& args, std::int64_t row) {
  const T* x = args.logits + row * args.classes;
  const Largest most = largest(x, args.classes);
  const std::int32_t label = args.labels[row];
  const bool known = label >= 0 && label < args.classes;
  const double share = args.smoothing / static_cast<double>(args.classes);
  const double own = 1.0 - args.smoothing + share;
  double rest = 0;
  double distance = 0;
  for (std::int64_t k = lane_index(); k < args.classes; k += kWarp) {
    const auto below = static_cast<double>(most.value - to_float(x[k]));
    if (k != most.place) rest += exp(-below);
    distance += (k == label ? own : share) * below;
  }
  rest = warp_sum(rest);
  distance = warp_sum(distance);
  if (!known) rest = static_cast<double>(__uint_as_float(0x7FC00000U));
  if (args.dlogits != nullptr) {
    const double scale = scaled(args.grad, args.loss_scale) / static_cast<double>(args.rows);
    for (std::int64_t k = lane_index(); k < args.classes; k += kWarp) {
      const double p = exp(static_cast<double>(to_float(x[k]) - most.value)) / (1.0 + rest);
      const double gradient = scale * (p - (k == label ? own : share));
      args.dlogits[row * args.classes + k] = from_float<T>(static_cast<float>(gradient));
    }
  }
  return log1p(rest) + distance;
}

template <typename T>
__global__ void __launch_bounds__(kThreads) softmax_cross_entropy_kernel(SoftmaxCrossEntropy<T> args) {
  double sum = 0;
  for (std::int64_t row = warp_index(); row < args.rows; row += kWarps) {
    const double loss = row_loss(args, row);
    if (lane_index() != 0) continue;
    sum += loss;
    if (args.row_losses != nullptr) args.row_losses[row] = static_cast<float>(loss);
  }
  const double total = block_sum<kThreads>(sum);
  if (thread_index() == 0) args.loss[0] = static_cast<float>(total / static_cast<double>(args.rows));
}

}  // namespace

template <typename T>
void softmax_cross_entropy(Cuda backend, const SoftmaxCrossEntropy<T>& args) {
  simt::launch("softmax_cross_entropy", softmax_cross_entropy_kernel<T>,
               {dim3(1), dim3(kThreads), 0, backend.stream}, args);
}

#define VOCA_INSTANTIATE(T) template void softmax_cross_entropy(Cuda, const SoftmaxCrossEntropy<T>&);
VOCA_CUDA_TYPES(VOCA_INSTANTIATE)

}  // namespace voca::kernels
