#include "engine/cuda/cublaslt.h"

#include <cublasLt.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/error.h"
#include "engine/cuda/algorithm_cache.h"
#include "engine/cuda/algorithm_choice.h"
#include "engine/cuda/check.h"
#include "engine/cuda/gemm_plan.h"
#include "engine/cuda/gemm_timing.h"

namespace voca::engine::cuda {
namespace {

constexpr int kCandidates = 64;
constexpr int kFirstRepeats = 3;
constexpr int kRepeats = 8;
/// A candidate this much slower than the best after its first repeats is not timed further.
constexpr double kHopeless = 1.3;

static_assert(sizeof(cublasLtMatmulAlgo_t) == sizeof(Algorithm));

cublasLtMatmulAlgo_t to_library(const Algorithm& algorithm) {
  cublasLtMatmulAlgo_t result{};
  std::memcpy(&result, &algorithm, sizeof result);
  return result;
}

Algorithm from_library(const cublasLtMatmulAlgo_t& algorithm) {
  Algorithm result{};
  std::memcpy(&result, &algorithm, sizeof result);
  return result;
}

/// In-place split-K reduction uses atomics, whose order is not fixed.
bool is_deterministic(const cublasLtMatmulAlgo_t& algorithm) {
  std::uint32_t scheme = 0;
  std::size_t written = 0;
  VOCA_CUDA(cublasLtMatmulAlgoConfigGetAttribute(&algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &scheme,
                                                 sizeof scheme, &written));
  return (scheme & static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_INPLACE)) == 0;
}

class CublasLt final : public GemmLibrary {
 public:
  CublasLt(const cudaDeviceProp& properties, const CudaDeviceOptions& options)
      : options_(options),
        cache_bytes_(static_cast<std::size_t>(std::max(properties.l2CacheSize, 0))),
        cache_(AlgorithmCache::default_folder(), describe(properties)) {
    VOCA_CUDA(cublasLtCreate(library_.address()));
    VOCA_CUDA(cublasLtMatmulPreferenceCreate(preference_.address()));
    set(preference_, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
        static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE |
                                   CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE));
    if (options.autotune && !cache_.message().empty()) spdlog::warn("{}", cache_.message());
  }

  void prepare(const LibraryGemm& gemm) override { (void)plan_of(gemm); }
  [[nodiscard]] std::size_t workspace_bytes() const override { return kGemmWorkspaceBytes; }
  void tune(std::byte* workspace, std::byte* memory, std::size_t memory_bytes) override;
  void gemm(const LibraryGemm& args, Stream stream) override;
  [[nodiscard]] std::vector<std::string> choices() const override { return choices_; }

 private:
  static GemmLibraryVersion describe(const cudaDeviceProp& properties) {
    int driver = 0;
    VOCA_CUDA(cudaDriverGetVersion(&driver));
    return {.device = properties.name,
            .capability = fmt::format("{}.{}", properties.major, properties.minor),
            .driver = driver,
            .library = cublasLtGetVersion()};
  }

  Plan& plan_of(const LibraryGemm& gemm);
  [[nodiscard]] std::vector<cublasLtMatmulAlgo_t> propose(const LibraryGemm& gemm, const Plan& plan) const;
  [[nodiscard]] bool is_valid(const Plan& plan, const cublasLtMatmulAlgo_t& algorithm) const;
  void choose(std::byte* memory, std::size_t memory_bytes);
  [[nodiscard]] std::optional<ChosenAlgorithm> search(const LibraryGemm& gemm, const Plan& plan,
                                                      std::byte* memory, std::size_t memory_bytes) const;
  [[nodiscard]] double time(const RotatingOperands& operands, const Plan& plan,
                            const cublasLtMatmulAlgo_t& algorithm, double best) const;
  [[nodiscard]] bool repeats_itself(const RotatingOperands& operands, const Plan& plan,
                                    const cublasLtMatmulAlgo_t& algorithm) const;
  cublasStatus_t run(const LibraryGemm& gemm, const Plan& plan, const cublasLtMatmulAlgo_t& algorithm,
                     cudaStream_t stream) const;
  void take(const LibraryGemm& gemm, Plan& plan, const cublasLtMatmulAlgo_t& algorithm,
            const std::string& how);

  CudaDeviceOptions options_;
  std::size_t cache_bytes_;
  AlgorithmCache cache_;
  Library library_;
  Preference preference_;
  GraphTimer timer_;
  std::map<LibraryGemm, Plan, ByShape> plans_;
  std::byte* workspace_ = nullptr;
  std::vector<std::string> choices_;
};

Plan& CublasLt::plan_of(const LibraryGemm& gemm) {
  const auto found = plans_.find(gemm);
  if (found != plans_.end()) return found->second;
  LibraryGemm key = gemm;
  key.a = key.b = key.bias = nullptr;
  key.c = nullptr;
  return plans_.emplace(key, make_plan(gemm, options_.allow_tf32)).first->second;
}

/// Deterministic candidates in the order of the library's expected speed; at least one.
std::vector<cublasLtMatmulAlgo_t> CublasLt::propose(const LibraryGemm& gemm, const Plan& plan) const {
  const auto alignment = static_cast<std::uint32_t>(gemm.alignment);
  for (const auto attribute :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
    set(preference_, attribute, alignment);
  std::vector<cublasLtMatmulAlgo_t> algorithms;
  // Without a workspace the library proposes other algorithms: those that queue nothing besides their kernel.
  for (const std::size_t workspace : {workspace_bytes(), std::size_t{0}}) {
    set(preference_, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace);
    std::vector<cublasLtMatmulHeuristicResult_t> found(kCandidates);
    int count = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        library_.get(), plan.description.get(), plan.first.get(), plan.second.get(), plan.result.get(),
        plan.result.get(), preference_.get(), kCandidates, found.data(), &count);
    if (workspace == 0 && status == CUBLAS_STATUS_NOT_SUPPORTED) break;
    VOCA_CUDA(status);
    for (int i = 0; i < count; ++i) {
      const cublasLtMatmulHeuristicResult_t& result = found[static_cast<std::size_t>(i)];
      const bool known = std::any_of(algorithms.begin(), algorithms.end(), [&](const auto& other) {
        return std::memcmp(&other, &result.algo, sizeof other) == 0;
      });
      if (result.state == CUBLAS_STATUS_SUCCESS && is_deterministic(result.algo) && !known)
        algorithms.push_back(result.algo);
    }
  }
  if (algorithms.empty()) {
    throw InternalError("cuBLASLt has no deterministic algorithm for the GEMM {}",
                        gemm_key(gemm, options_.allow_tf32));
  }
  return algorithms;
}

/// Whether an algorithm from disk can run this GEMM with the current library and our workspace.
bool CublasLt::is_valid(const Plan& plan, const cublasLtMatmulAlgo_t& algorithm) const {
  cublasLtMatmulHeuristicResult_t result{};
  const cublasStatus_t status =
      cublasLtMatmulAlgoCheck(library_.get(), plan.description.get(), plan.first.get(), plan.second.get(),
                              plan.result.get(), plan.result.get(), &algorithm, &result);
  return status == CUBLAS_STATUS_SUCCESS && result.workspaceSize <= workspace_bytes() &&
         is_deterministic(algorithm);
}

void CublasLt::tune(std::byte* workspace, std::byte* memory, std::size_t memory_bytes) {
  workspace_ = workspace;
  for (auto& [gemm, plan] : plans_) {
    const void* const bias = workspace_;  // only its alignment matters here
    if (gemm.add_bias) set(plan.description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
  }
  if (options_.autotune) {
    choose(memory, memory_bytes);
  } else {
    for (auto& [gemm, plan] : plans_)
      if (!plan.has_algorithm) take(gemm, plan, propose(gemm, plan).front(), "the library's first");
  }
  VOCA_CUDA(cudaDeviceSynchronize());
}

void CublasLt::choose(std::byte* memory, std::size_t memory_bytes) {
  std::map<std::string, std::pair<const LibraryGemm*, Plan*>> open;
  for (auto& [gemm, plan] : plans_)
    if (!plan.has_algorithm) open[gemm_key(gemm, options_.allow_tf32)] = {&gemm, &plan};
  if (options_.sharing.chooses) spdlog::info("choosing algorithms for {} GEMMs", open.size());
  AlgorithmChoice choice(cache_, options_.sharing);
  for (const auto& [key, entry] : open) {
    const auto [gemm, plan] = entry;
    choice.choose(key, {.can_run = [&, p = plan](const Algorithm& a) { return is_valid(*p, to_library(a)); },
                        .search = [&, m = gemm, p = plan] { return search(*m, *p, memory, memory_bytes); },
                        .first = [&, m = gemm, p = plan] { return from_library(propose(*m, *p).front()); }});
  }
  choice.settle([&](const std::string& key, const Algorithm& algorithm) {
    return is_valid(*open.at(key).second, to_library(algorithm));
  });
  if (!cache_.message().empty()) spdlog::warn("{}", cache_.message());
  if (choice.passed_over() > 0) {
    spdlog::warn("{}: the algorithms of {} GEMMs cannot run them; others are taken",
                 options_.sharing.chooses ? cache_.path().string() : "rank 0", choice.passed_over());
  }
  for (const auto& [key, entry] : open) {
    const TakenAlgorithm& taken = choice.taken().at(key);
    take(*entry.first, *entry.second, to_library(taken.algorithm), taken.how);
  }
}

void CublasLt::take(const LibraryGemm& gemm, Plan& plan, const cublasLtMatmulAlgo_t& algorithm,
                    const std::string& how) {
  plan.algorithm = algorithm;
  plan.has_algorithm = true;
  choices_.push_back(
      fmt::format("{}: {} ({})", gemm_key(gemm, options_.allow_tf32), text_of(from_library(algorithm)), how));
}

/// Times the library's candidates; nullopt if `memory` cannot hold the operands.
std::optional<ChosenAlgorithm> CublasLt::search(const LibraryGemm& gemm, const Plan& plan, std::byte* memory,
                                                std::size_t memory_bytes) const {
  const std::vector<cublasLtMatmulAlgo_t> candidates = propose(gemm, plan);
  const RotatingOperands operands(gemm, memory, memory_bytes, cache_bytes_);
  if (operands.sets() == 0) return std::nullopt;
  // Small numbers: the cost of NaN and denormals must not be timed.
  VOCA_CUDA(cudaMemsetAsync(memory, 0x3C, operands.bytes(), nullptr));
  std::vector<double> microseconds(candidates.size(), std::numeric_limits<double>::infinity());
  double best = std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    if (!is_valid(plan, candidates[i])) continue;
    microseconds[i] = time(operands, plan, candidates[i], best);
    best = std::min(best, microseconds[i]);
  }
  std::optional<std::size_t> chosen = choose_candidate(microseconds);
  while (chosen && !repeats_itself(operands, plan, candidates[*chosen])) {
    microseconds[*chosen] = std::numeric_limits<double>::infinity();
    chosen = choose_candidate(microseconds);
  }
  if (!chosen) {
    throw InternalError("cuBLASLt: no algorithm runs the GEMM {} the same way twice",
                        gemm_key(gemm, options_.allow_tf32));
  }
  return ChosenAlgorithm{.algorithm = from_library(candidates[*chosen]),
                         .microseconds = microseconds[*chosen],
                         .candidates = static_cast<std::int64_t>(candidates.size())};
}

/// Time of one GEMM in µs; infinite if it fails. Slow candidates are timed only roughly.
double CublasLt::time(const RotatingOperands& operands, const Plan& plan,
                      const cublasLtMatmulAlgo_t& algorithm, double best) const {
  std::size_t set_number = 0;
  const auto run_several = [&](int repeats, cudaStream_t stream) {
    for (int i = 0; i < repeats; ++i) {
      if (run(operands[set_number++], plan, algorithm, stream) != CUBLAS_STATUS_SUCCESS) return false;
    }
    return true;
  };
  // Loads its kernels before graph capture.
  if (!run_several(1, nullptr)) return std::numeric_limits<double>::infinity();
  VOCA_CUDA(cudaStreamSynchronize(nullptr));
  const auto measure = [&](int repeats) {
    return timer_.time([&](cudaStream_t stream) { return run_several(repeats, stream); }) / repeats;
  };
  const double first = measure(kFirstRepeats);
  return first > kHopeless * best ? first : measure(kRepeats);
}

/// Whether two runs give the same bits: checks the library's claim of determinism.
bool CublasLt::repeats_itself(const RotatingOperands& operands, const Plan& plan,
                              const cublasLtMatmulAlgo_t& algorithm) const {
  const LibraryGemm gemm = operands[0];
  std::vector<std::byte> results[2];
  for (std::vector<std::byte>& result : results) {
    VOCA_CUDA(cudaMemset(gemm.c, 0x3C, operands.result_bytes()));
    if (run(gemm, plan, algorithm, nullptr) != CUBLAS_STATUS_SUCCESS) return false;
    result.resize(operands.result_bytes());
    VOCA_CUDA(cudaMemcpy(result.data(), gemm.c, result.size(), cudaMemcpyDeviceToHost));
  }
  return results[0] == results[1];
}

cublasStatus_t CublasLt::run(const LibraryGemm& gemm, const Plan& plan, const cublasLtMatmulAlgo_t& algorithm,
                             cudaStream_t stream) const {
  const auto alpha = static_cast<float>(gemm.alpha);
  const auto beta = static_cast<float>(gemm.beta);
  if (gemm.add_bias) set(plan.description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, gemm.bias);
  return cublasLtMatmul(library_.get(), plan.description.get(), &alpha, gemm.b, plan.first.get(), gemm.a,
                        plan.second.get(), &beta, gemm.c, plan.result.get(), gemm.c, plan.result.get(),
                        &algorithm, workspace_, workspace_bytes(), stream);
}

void CublasLt::gemm(const LibraryGemm& args, Stream stream) {
  VOCA_CHECK(workspace_ != nullptr);
  if (args.m == 0 || args.n == 0) return;
  Plan& plan = plan_of(args);
  if (!plan.has_algorithm) {
    if (args.add_bias) set(plan.description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, args.bias);
    plan.algorithm = propose(args, plan).front();
    plan.has_algorithm = true;
  }
  VOCA_CUDA(run(args, plan, plan.algorithm, stream));
}

}  // namespace

std::unique_ptr<GemmLibrary> make_cublaslt(const cudaDeviceProp& properties,
                                           const CudaDeviceOptions& options) {
  return std::make_unique<CublasLt>(properties, options);
}

}  // namespace voca::engine::cuda
