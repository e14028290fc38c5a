#include "kernels/adamw.h"

#include "kernels/cuda/elements.h"

namespace voca::kernels {

using namespace cuda;

namespace {

constexpr int kThreads = 256;

/// What one thread computes for all elements.
struct Factors : AdamWFactors<float> {
  bool skip;  ///< a loss or the norm was not finite: no element is updated
};

SIMT_DEVICE bool is_finite(float x) {
  return x - x == 0.0F;
}

template <typename T, typename G>
__global__ void __launch_bounds__(1) adamw_factors_kernel(AdamW<T, G> args) {
  OptimizerState& state = *args.state;
  bool finite_losses = true;
  for (std::int64_t i = 0; i < args.loss_count; ++i) finite_losses &= is_finite(args.losses[i]);
  const double loss_scale = static_cast<double>(state.loss_scale);  // advance() may change it
  const StepOutcome outcome = advance(state, args.growth_interval, is_finite(args.norm[0]), finite_losses);
  state.norm = static_cast<double>(args.norm[0]) / loss_scale;
  *static_cast<Factors*>(args.scratch) = {
      {adamw_factors<float>(args.options, args.max_norm, state, loss_scale)},
      outcome != StepOutcome::kUpdated};
}

template <typename T, typename G>
__global__ void __launch_bounds__(kThreads) adamw_kernel(AdamW<T, G> args, bool wide) {
  const Factors f = *static_cast<const Factors*>(args.scratch);
  const std::int64_t first = global_thread() * kVec8;
  const std::int64_t count = args.elements - first;
  if (count <= 0 || f.skip) return;
  float gradient[kVec8];
  float master[kVec8];
  float exp_avg[kVec8];
  float exp_avg_sq[kVec8];
  load_vec8(args.gradient + first, count, wide, gradient);
  load_vec8(args.master + first, count, wide, master);
  load_vec8(args.exp_avg + first, count, wide, exp_avg);
  load_vec8(args.exp_avg_sq + first, count, wide, exp_avg_sq);
  SIMT_UNROLL
  for (int i = 0; i < kVec8; ++i) {
    const float g = gradient[i] * f.gradient;
    exp_avg[i] += f.one_minus_beta1 * (g - exp_avg[i]);
    exp_avg_sq[i] = f.beta2 * exp_avg_sq[i] + f.one_minus_beta2 * g * g;
    const float denominator = sqrtf(exp_avg_sq[i]) / f.sqrt_bias_correction2 + f.eps;
    master[i] = master[i] * f.decay - f.step_size * (exp_avg[i] / denominator);
  }
  store_vec8(args.exp_avg + first, count, wide, exp_avg);
  store_vec8(args.exp_avg_sq + first, count, wide, exp_avg_sq);
  store_vec8(args.master + first, count, wide, master);
  if (args.weights != nullptr) store_vec8(args.weights + first, count, wide, master);
}

}  // namespace

template <typename T, typename G>
std::size_t scratch_bytes(Cuda, const AdamW<T, G>& /*args*/) {
  return sizeof(Factors);
}

template <typename T, typename G>
void adamw(Cuda backend, const AdamW<T, G>& args) {
  simt::launch("adamw_factors", adamw_factors_kernel<T, G>, {dim3(1), dim3(1), 0, backend.stream}, args);
  if (args.elements == 0) return;
  simt::launch("adamw", adamw_kernel<T, G>,
               {blocks_for(divide_up(args.elements, kVec8), kThreads), dim3(kThreads), 0, backend.stream},
               args, on_16_bytes(args.gradient, args.master, args.exp_avg, args.exp_avg_sq, args.weights));
}

#define VOCA_INSTANTIATE(T)                   \
  template void adamw(Cuda, const AdamW<T>&); \
  template std::size_t scratch_bytes(Cuda, const AdamW<T>&);
VOCA_CUDA_TYPES(VOCA_INSTANTIATE)
#define VOCA_INSTANTIATE_WIDE_GRADIENT(T)            \
  template void adamw(Cuda, const AdamW<T, float>&); \
  template std::size_t scratch_bytes(Cuda, const AdamW<T, float>&);
VOCA_TENSOR_CORE_TYPES(VOCA_INSTANTIATE_WIDE_GRADIENT)

}  // namespace voca::kernels
