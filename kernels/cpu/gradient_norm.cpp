#include "kernels/gradient_norm.h"

#include <cmath>

#include "kernels/cpu/chunks.h"
#include "kernels/cpu/rows.h"

namespace voca::kernels {

using namespace cpu;

template <typename T>
std::size_t scratch_bytes(Cpu, const GradientNorm<T>& args) {
  return align_up(static_cast<std::size_t>(divide_up(args.elements, kGradientNormChunk)) * sizeof(double));
}

template <typename T>
void gradient_norm(Cpu, const GradientNorm<T>& args) {
  auto* partial = static_cast<double*>(args.scratch);
  for_chunks(args.elements, kGradientNormChunk, [&](std::int64_t begin, std::int64_t end) {
    const T* gradient = args.gradient + begin;
    partial[begin / kGradientNormChunk] = lane_sum<double>(end - begin, [gradient](std::int64_t i) {
      const auto value = static_cast<double>(gradient[i]);
      return value * value;
    });
  });
  double total = 0;
  for (std::int64_t c = 0; c < divide_up(args.elements, kGradientNormChunk); ++c) total += partial[c];
  args.norm[0] = static_cast<Stat<T>>(std::sqrt(total));
}

#define VOCA_INSTANTIATE(T)                                 \
  template void gradient_norm(Cpu, const GradientNorm<T>&); \
  template std::size_t scratch_bytes(Cpu, const GradientNorm<T>&);
VOCA_CPU_TYPES(VOCA_INSTANTIATE)

}  // namespace voca::kernels
