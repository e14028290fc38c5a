#include "kernels/gradient_norm.h"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/sum.h"

namespace voca::kernels::cpu {

namespace {
constexpr std::int64_t kChunk = 16384;
}  // namespace

std::size_t gradient_norm_scratch_bytes(std::int64_t elements) {
  return align_up(static_cast<std::size_t>(divide_up(elements, kChunk)) * sizeof(double));
}

template <typename T>
void gradient_norm(const GradientNorm<T>& args) {
  auto* partial = static_cast<double*>(args.scratch);
  const std::int64_t chunks = divide_up(args.elements, kChunk);
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
    const T* gradient = args.gradient + chunk * kChunk;
    const std::int64_t n = std::min(kChunk, args.elements - chunk * kChunk);
    partial[chunk] = ordered_sum(n, [gradient](std::int64_t i) {
      const auto value = static_cast<double>(gradient[i]);
      return value * value;
    });
  }
  double total = 0;
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) total += partial[chunk];
  args.norm[0] = static_cast<Stat<T>>(std::sqrt(total));
}

template void gradient_norm(const GradientNorm<float>& args);
template void gradient_norm(const GradientNorm<double>& args);

}  // namespace voca::kernels::cpu
