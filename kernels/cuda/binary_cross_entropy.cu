#include "kernels/binary_cross_entropy.h"

#include "kernels/cuda/elements.h"
#include "kernels/cuda/reduce.h"

namespace voca::kernels {

using namespace cuda;

namespace {

// Single block: a batch has a few dozen rows.
constexpr int kThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kThreads) binary_cross_entropy_kernel(BinaryCrossEntropy<T> args) {
  const auto rows = static_cast<double>(args.rows);
  double sum = 0;
  for (std::int64_t row = thread_index(); row < args.rows; row += kThreads) {
    const std::int32_t label = args.labels[row];
    const float x = to_float(args.logits[row]);
    const double target = label == 0 || label == 1 ? label * (1.0 - args.smoothing) + 0.5 * args.smoothing
                                                   : static_cast<double>(__uint_as_float(0x7FC00000U));
    const auto positive = static_cast<float>(args.pos_weight * target);
    const auto negative = static_cast<float>(1.0 - target);
    const float small = expf(-fabsf(x));
    const float tail = log1pf(small);
    // These comparisons propagate a NaN logit to both terms.
    const float loss = negative * ((x < 0.0F ? 0.0F : x) + tail) + positive * ((x > 0.0F ? 0.0F : -x) + tail);
    sum += static_cast<double>(loss);
    if (args.row_losses != nullptr) args.row_losses[row] = loss;
    if (args.dlogits == nullptr) continue;
    const float high = 1.0F / (1.0F + small);
    const float low = small / (1.0F + small);
    const float gradient = negative * (x < 0.0F ? low : high) - positive * (x < 0.0F ? high : low);
    args.dlogits[row] =
        from_float<T>(static_cast<float>(scaled(args.grad, args.loss_scale) / rows) * gradient);
  }
  const double total = block_sum<kThreads>(sum);
  if (thread_index() == 0) args.loss[0] = static_cast<float>(total / rows);
}

}  // namespace

template <typename T>
void binary_cross_entropy(Cuda backend, const BinaryCrossEntropy<T>& args) {
  simt::launch("binary_cross_entropy", binary_cross_entropy_kernel<T>,
               {dim3(1), dim3(kThreads), 0, backend.stream}, args);
}

#define VOCA_INSTANTIATE(T) template void binary_cross_entropy(Cuda, const BinaryCrossEntropy<T>&);
VOCA_CUDA_TYPES(VOCA_INSTANTIATE)

}  // namespace voca::kernels
