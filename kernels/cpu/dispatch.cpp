#include <cstddef>
#include <cstdint>

#include "kernels/adamw.h"
#include "kernels/attention.h"
#include "kernels/bias_gradient.h"
#include "kernels/binary_cross_entropy.h"
#include "kernels/compiled_levels.h"
#include "kernels/cpu/levels.h"
#include "kernels/elementwise.h"
#include "kernels/gather_frames.h"
#include "kernels/gelu.h"
#include "kernels/gemm.h"
#include "kernels/gradient_norm.h"
#include "kernels/infonce.h"
#include "kernels/l2_normalize.h"
#include "kernels/layernorm.h"
#include "kernels/pooling.h"
#include "kernels/positional_encoding.h"
#include "kernels/softmax.h"
#include "kernels/softmax_cross_entropy.h"

// The operations on Cpu: each calls itself as compiled for the instruction set that was chosen at start
// (kernels/cpu/levels.h). One line an operation below; one that has none does not link.

namespace voca::kernels {

#define VOCA_DECLARE(level, name) struct level;
VOCA_CPU_LEVELS(VOCA_DECLARE)
#undef VOCA_DECLARE

namespace {

#define VOCA_INDEX(level, name) k_##level,
enum Index : int { VOCA_CPU_LEVELS(VOCA_INDEX) };
#undef VOCA_INDEX

// f(Cpu of the chosen set).
template <typename F>
auto on_chosen(F f) {
#define VOCA_CALL(level, name) \
  case k_##level:              \
    return f(CpuOf<level>{});
  switch (cpu::level()) { VOCA_CPU_LEVELS(VOCA_CALL) }
#undef VOCA_CALL
  __builtin_unreachable();
}

}  // namespace

#define VOCA_ON_LEVEL(level, name, Result, operation, Args) \
  template <typename T>                                     \
  Result operation(CpuOf<level>, const Args<T>&);
#define VOCA_INSTANTIATE(T, Result, operation, Args) template Result operation(Cpu, const Args<T>&);
#define VOCA_RETURNING(Result, operation, Args)                       \
  VOCA_CPU_LEVELS(VOCA_ON_LEVEL, Result, operation, Args)             \
  template <typename T>                                               \
  Result operation(Cpu, const Args<T>& args) {                        \
    return on_chosen([&](auto cpu) { return operation(cpu, args); }); \
  }                                                                   \
  VOCA_CPU_TYPES(VOCA_INSTANTIATE, Result, operation, Args)
#define VOCA_OPERATION(operation, Args) VOCA_RETURNING(void, operation, Args)
#define VOCA_SCRATCH_BYTES(Args) VOCA_RETURNING(std::size_t, scratch_bytes, Args)

VOCA_OPERATION(adamw, AdamW)
VOCA_OPERATION(attention_forward, AttentionForward)
VOCA_SCRATCH_BYTES(AttentionForward)
VOCA_OPERATION(attention_backward, AttentionBackward)
VOCA_SCRATCH_BYTES(AttentionBackward)
VOCA_OPERATION(bias_gradient, BiasGradient)
VOCA_OPERATION(binary_cross_entropy, BinaryCrossEntropy)
VOCA_OPERATION(gather_frames, GatherFrames)
VOCA_OPERATION(gelu_forward, GeluForward)
VOCA_OPERATION(gelu_backward, GeluBackward)
VOCA_SCRATCH_BYTES(GeluBackward)
VOCA_OPERATION(gemm, Gemm)
VOCA_SCRATCH_BYTES(Gemm)
VOCA_OPERATION(gradient_norm, GradientNorm)
VOCA_SCRATCH_BYTES(GradientNorm)
VOCA_OPERATION(infonce, InfoNce)
VOCA_SCRATCH_BYTES(InfoNce)
VOCA_OPERATION(l2_normalize_forward, L2NormalizeForward)
VOCA_OPERATION(l2_normalize_backward, L2NormalizeBackward)
VOCA_OPERATION(layernorm_forward, LayernormForward)
VOCA_OPERATION(layernorm_backward, LayernormBackward)
VOCA_SCRATCH_BYTES(LayernormBackward)
VOCA_OPERATION(pooling_forward, PoolingForward)
VOCA_OPERATION(pooling_backward, PoolingBackward)
VOCA_OPERATION(positional_encoding_forward, PositionalEncodingForward)
VOCA_OPERATION(positional_encoding_backward, PositionalEncodingBackward)
VOCA_OPERATION(softmax_forward, SoftmaxForward)
VOCA_OPERATION(softmax_backward, SoftmaxBackward)
VOCA_OPERATION(softmax_cross_entropy, SoftmaxCrossEntropy)
VOCA_OPERATION(weighted_sum, WeightedSum)
VOCA_OPERATION(wide_sum, WideSum)

#undef VOCA_INSTANTIATE

// Those that take their arguments one by one.
// NOLINTBEGIN(bugprone-macro-parentheses): T is a type
#define VOCA_OTHERS_ON_LEVEL(level, name)                  \
  template <typename T>                                    \
  void fill(CpuOf<level>, std::int64_t, T, T*);            \
  template <typename From, typename To>                    \
  void cast(CpuOf<level>, std::int64_t, const From*, To*); \
  template <typename T>                                    \
  void sinusoidal_encoding(CpuOf<level>, std::int64_t, std::int64_t, T*);
VOCA_CPU_LEVELS(VOCA_OTHERS_ON_LEVEL)

template <typename T>
void fill(Cpu, std::int64_t elements, T value, T* out) {
  on_chosen([=](auto cpu) { fill(cpu, elements, value, out); });
}

template <typename From, typename To>
void cast(Cpu, std::int64_t elements, const From* from, To* to) {
  on_chosen([=](auto cpu) { cast(cpu, elements, from, to); });
}

template <typename T>
void sinusoidal_encoding(Cpu, std::int64_t length, std::int64_t columns, T* encoding) {
  on_chosen([=](auto cpu) { sinusoidal_encoding(cpu, length, columns, encoding); });
}

#define VOCA_INSTANTIATE(T)                                \
  template void fill(Cpu, std::int64_t, T, T*);            \
  template void cast(Cpu, std::int64_t, const float*, T*); \
  template void sinusoidal_encoding(Cpu, std::int64_t, std::int64_t, T*);
// NOLINTEND(bugprone-macro-parentheses)
VOCA_CPU_TYPES(VOCA_INSTANTIATE)
template void cast(Cpu, std::int64_t, const double*, float*);

}  // namespace voca::kernels
