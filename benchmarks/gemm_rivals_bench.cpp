// GEMMs of the network on one core, here and in libraries given by path, in turns. Prints one line of JSON.
//
//   gemm_rivals_bench [libopenblas.so.0 libmkl_rt.so.3 libdnnl.so.2 ...]
//
// Calls cblas_sgemm of a library, or dnnl_sgemm. Each must have been told to use one thread
// (OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_THREADING_LAYER=SEQUENTIAL); it may be told its kernels
// (OPENBLAS_CORETYPE, MKL_ENABLE_INSTRUCTIONS, ONEDNN_MAX_CPU_ISA).

#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "benchmarks/kernels/support/roof.h"
#include "benchmarks/support/statistics.h"
#include "kernels/cpu/levels.h"
#include "kernels/cpu/parallel.h"
#include "kernels/gemm.h"

namespace {

using namespace voca;
using kernels::Gemm;
using kernels::Transpose;

using Compute = std::function<void(const Gemm<float>&)>;

struct Rival {
  std::string name;
  Compute compute;
};

// Of cblas.h and dnnl.h.
using CblasSgemm = void (*)(int order, int transpose_a, int transpose_b, int m, int n, int k, float alpha,
                            const float* a, int lda, const float* b, int ldb, float beta, float* c, int ldc);
using DnnlSgemm = int (*)(char transpose_a, char transpose_b, std::int64_t m, std::int64_t n, std::int64_t k,
                          float alpha, const float* a, std::int64_t lda, const float* b, std::int64_t ldb,
                          float beta, float* c, std::int64_t ldc);

Compute compute_of(void* library) {
  if (auto* const dnnl = reinterpret_cast<DnnlSgemm>(::dlsym(library, "dnnl_sgemm"))) {
    const auto letter = [](Transpose transpose) { return transpose == Transpose::kYes ? 'T' : 'N'; };
    return [=](const Gemm<float>& g) {
      dnnl(letter(g.transpose_a), letter(g.transpose_b), g.m, g.n, g.k, 1, g.a, g.lda, g.b, g.ldb, 0, g.c,
           g.ldc);
    };
  }
  if (auto* const cblas = reinterpret_cast<CblasSgemm>(::dlsym(library, "cblas_sgemm"))) {
    constexpr int kRowMajor = 101;
    const auto number = [](Transpose transpose) { return transpose == Transpose::kYes ? 112 : 111; };
    const auto narrow = [](std::int64_t size) { return static_cast<int>(size); };
    return [=](const Gemm<float>& g) {
      cblas(kRowMajor, number(g.transpose_a), number(g.transpose_b), narrow(g.m), narrow(g.n), narrow(g.k), 1,
            g.a, narrow(g.lda), g.b, narrow(g.ldb), 0, g.c, narrow(g.ldc));
    };
  }
  return nullptr;
}

Gemm<float> shape(std::int64_t m, std::int64_t n, std::int64_t k, const char* transposed) {
  const bool ta = transposed[0] == 'T';
  const bool tb = transposed[1] == 'T';
  return {.transpose_a = ta ? Transpose::kYes : Transpose::kNo,
          .transpose_b = tb ? Transpose::kYes : Transpose::kNo,
          .m = m,
          .n = n,
          .k = k,
          .lda = ta ? m : k,
          .ldb = tb ? k : n,
          .ldc = n};
}

/// GFLOP/s of each rival, the best of several turns, and the largest difference of a result from the first's.
nlohmann::ordered_json measure(Gemm<float> args, const std::vector<Rival>& rivals) {
  const auto a = kernels::benchmarks::numbers(args.m * args.k, 1);
  const auto b = kernels::benchmarks::numbers(args.k * args.n, 2);
  std::vector<std::vector<float>> results(rivals.size(),
                                          std::vector<float>(static_cast<std::size_t>(args.m * args.n)));
  args.a = a.data();
  args.b = b.data();
  kernels::benchmarks::AlignedScratch scratch(scratch_bytes(kernels::Cpu{}, args));
  args.scratch = scratch.data();
  const double flops =
      2.0 * static_cast<double>(args.m) * static_cast<double>(args.n) * static_cast<double>(args.k);
  const int calls = std::max(1, static_cast<int>(3e8 / flops));
  std::vector<double> best(rivals.size(), 1e30);
  for (int turn = 0; turn < 15; ++turn) {
    for (std::size_t i = 0; i < rivals.size(); ++i) {
      args.c = results[i].data();
      const auto start = benchmarks::Clock::now();
      for (int call = 0; call < calls; ++call) rivals[i].compute(args);
      best[i] = std::min(best[i], benchmarks::milliseconds_since(start) / calls);
    }
  }
  nlohmann::ordered_json out{{"m", args.m}, {"n", args.n}, {"k", args.k}};
  out["transposed"] = std::string(args.transpose_a == Transpose::kYes ? "T" : "N") +
                      (args.transpose_b == Transpose::kYes ? "T" : "N");
  for (std::size_t i = 0; i < rivals.size(); ++i)
    out["gflops"][rivals[i].name] = std::round(flops / best[i] / 1e5) / 10;
  double difference = 0;
  for (const std::vector<float>& result : results) {
    for (std::size_t j = 0; j < result.size(); ++j)
      difference = std::max(difference, static_cast<double>(std::abs(result[j] - results[0][j])));
  }
  out["largest_difference"] = difference;
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  kernels::cpu::set_threads(1);
  std::vector<Rival> rivals{
      {"voca-engine", [](const Gemm<float>& args) { kernels::gemm(kernels::Cpu{}, args); }}};
  for (int i = 1; i < argc; ++i) {
    void* const library = ::dlopen(argv[i], RTLD_NOW | RTLD_LOCAL);
    Compute compute = library == nullptr ? nullptr : compute_of(library);
    if (compute == nullptr) {
      std::fprintf(stderr, "%s: cannot be opened, or has neither cblas_sgemm nor dnnl_sgemm\n", argv[i]);
      return 1;
    }
    rivals.push_back({std::string(argv[i]).substr(std::string(argv[i]).rfind('/') + 1), std::move(compute)});
  }
  // A linear layer forward, backward to its input and to its weight; an attention head's products.
  const std::vector<Gemm<float>> shapes{
      shape(2048, 1024, 256, "NT"), shape(2048, 256, 1024, "NT"), shape(2048, 256, 256, "NT"),
      shape(2048, 256, 256, "NN"),  shape(256, 256, 2048, "TN"),  shape(1024, 256, 2048, "TN"),
      shape(1024, 3072, 768, "NT"), shape(768, 768, 1024, "TN"),  shape(128, 128, 64, "NT"),
      shape(128, 64, 128, "NN"),    shape(128, 64, 128, "TN"),    shape(100, 100, 64, "NT"),
      shape(64, 64, 64, "NN"),      shape(16, 256, 256, "NT")};
  nlohmann::ordered_json out{{"what", "float32 GEMMs on one core, GFLOP/s"},
                             {"kernels", kernels::cpu::instruction_set()}};
  for (const Gemm<float>& one : shapes) out["gemms"].push_back(measure(one, rivals));
  std::printf("%s\n", out.dump().c_str());
}
