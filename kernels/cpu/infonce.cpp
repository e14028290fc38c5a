#include "kernels/infonce.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/cpu/chunks.h"
#include "kernels/gemm.h"

namespace voca::kernels {

using namespace cpu;

namespace {

/// Logarithms of the two sums in the loss.
struct RowSums {
  double log_positive;  ///< log Σ M e^S
  double log_all;       ///< log(Σ e^S + 1e-8)
};

/// The sums of row i of S, which `s` holds.
template <typename T>
RowSums row_sums(const InfoNce<T>& args, std::int64_t i, const T* s) {
  // Each sum has its own maximum, so that positives far below the hardest negative do not underflow.
  auto maximum_positive = static_cast<double>(s[i + args.diagonal_offset]);
  double maximum = maximum_positive;
  for (std::int64_t j = 0; j < args.columns; ++j) {
    const auto value = static_cast<double>(s[j]);
    maximum = std::max(maximum, value);
    if (label_weight(args, i, j) > 0) maximum_positive = std::max(maximum_positive, value);
  }
  double positive = 0;
  double all = 0;
  for (std::int64_t j = 0; j < args.columns; ++j) {
    const auto value = static_cast<double>(s[j]);
    const double weight = label_weight(args, i, j);
    all += std::exp(value - maximum);
    if (weight > 0) positive += weight * std::exp(value - maximum_positive);
  }
  // 1e-8 is added to the unshifted sum in log space, so that e^{−maximum} is never computed.
  return {maximum_positive + std::log(positive), log_add_exp(maximum + std::log(all), kInfoNceLogFloor)};
}

/// Replaces row i of S with e^S / (Σ e^S + 1e-8) − M e^S / Σ M e^S.
template <typename T>
void row_gradient(const InfoNce<T>& args, std::int64_t i, const RowSums& sums, T* s) {
  for (std::int64_t j = 0; j < args.columns; ++j) {
    const auto value = static_cast<double>(s[j]);
    const double weight = label_weight(args, i, j);
    double gradient = std::exp(value - sums.log_all);
    if (weight > 0) gradient -= weight * std::exp(value - sums.log_positive);
    s[j] = static_cast<T>(gradient);
  }
}

/// Upper bound of the scratch of the GEMMs.
template <typename T>
std::size_t gemm_bytes(const InfoNce<T>& args) {
  return scratch_bytes(Cpu{}, Gemm<T>{.n = std::max(args.columns, args.width),
                                      .k = std::max({args.rows, args.columns, args.width})});
}

/// Start of S, of the rows' losses, of the scratch of the GEMMs, and the end.
template <typename T>
std::array<std::size_t, 4> parts_of_scratch(const InfoNce<T>& args) {
  const std::size_t losses = align_up(static_cast<std::size_t>(args.rows * args.columns) * sizeof(T));
  const std::size_t gemms = losses + align_up(static_cast<std::size_t>(args.rows) * sizeof(double));
  return {0, losses, gemms, gemms + gemm_bytes(args)};
}

template <typename T>
Gemm<T> contiguous_gemm(Transpose transpose_a, Transpose transpose_b, std::int64_t m, std::int64_t n,
                        std::int64_t k) {
  Gemm<T> gemm;
  gemm.transpose_a = transpose_a;
  gemm.transpose_b = transpose_b;
  gemm.m = m;
  gemm.n = n;
  gemm.k = k;
  gemm.lda = transpose_a == Transpose::kNo ? k : m;
  gemm.ldb = transpose_b == Transpose::kNo ? n : k;
  gemm.ldc = n;
  return gemm;
}

}  // namespace

template <typename T>
std::size_t scratch_bytes(Cpu, const InfoNce<T>& args) {
  return parts_of_scratch(args).back();
}

template <typename T>
void infonce(Cpu, const InfoNce<T>& args) {
  const auto parts = parts_of_scratch(args);
  auto* const scratch = static_cast<std::byte*>(args.scratch);
  auto* s = reinterpret_cast<T*>(scratch + parts[0]);
  auto* row_losses = reinterpret_cast<double*>(scratch + parts[1]);
  const auto multiply = [&](Gemm<T> args_of_gemm) {
    args_of_gemm.scratch = scratch + parts[2];
    gemm(Cpu{}, args_of_gemm);
  };

  Gemm<T> similarity =
      contiguous_gemm<T>(Transpose::kNo, Transpose::kYes, args.rows, args.columns, args.width);
  similarity.alpha = 1.0 / args.temperature;
  similarity.a = args.zv;
  similarity.b = args.za;
  similarity.c = s;
  multiply(similarity);

  // Three exponentials per element: chunks are an eighth of those of cheaper operations.
  for_row_chunks(args.rows, 8 * args.columns, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      T* row = s + i * args.columns;
      const RowSums sums = row_sums(args, i, row);
      row_losses[i] = sums.log_all - sums.log_positive;
      if (args.dzv != nullptr) row_gradient(args, i, sums, row);
    }
  });
  double total = 0;
  for (std::int64_t i = 0; i < args.rows; ++i) total += row_losses[i];
  args.loss[0] = static_cast<Stat<T>>(total / static_cast<double>(args.rows));
  if (args.dzv == nullptr) return;

  const double scale =
      scaled(args.grad, args.loss_scale) / (static_cast<double>(args.rows) * args.temperature);
  Gemm<T> dzv = contiguous_gemm<T>(Transpose::kNo, Transpose::kNo, args.rows, args.width, args.columns);
  dzv.alpha = scale;
  dzv.a = s;
  dzv.b = args.za;
  dzv.c = args.dzv;
  multiply(dzv);
  Gemm<T> dza = contiguous_gemm<T>(Transpose::kYes, Transpose::kNo, args.columns, args.width, args.rows);
  dza.alpha = scale;
  dza.a = s;
  dza.b = args.zv;
  dza.c = args.dza;
  multiply(dza);
}

#define VOCA_INSTANTIATE(T)                      \
  template void infonce(Cpu, const InfoNce<T>&); \
  template std::size_t scratch_bytes(Cpu, const InfoNce<T>&);
VOCA_CPU_TYPES(VOCA_INSTANTIATE)

}  // namespace voca::kernels
