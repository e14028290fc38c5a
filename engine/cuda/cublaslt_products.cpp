#include "engine/cuda/cublaslt_products.h"

#include <cublasLt.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/base/error.h"
#include "engine/cuda/algorithm_cache.h"
#include "engine/cuda/algorithm_choice.h"
#include "engine/cuda/check.h"
#include "engine/cuda/graphs.h"

namespace voca::engine::cuda {
namespace {

constexpr int kCandidates = 64;
constexpr int kFirstRepeats = 3;
constexpr int kRepeats = 8;
/// A candidate this much slower than the best after its first repeats is not timed further.
constexpr double kHopeless = 1.3;
constexpr std::size_t kAlignment = 256;

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

/// Owns a cuBLASLt descriptor; `destroy` is its destructor.
template <typename Handle, cublasStatus_t (*destroy)(Handle)>
class Owned {
 public:
  Owned() = default;
  Owned(Owned&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Owned& operator=(Owned&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  ~Owned() {
    if (handle_ != nullptr) report(destroy(handle_), "cublasLt…Destroy");
  }
  [[nodiscard]] Handle* address() { return &handle_; }
  [[nodiscard]] Handle get() const { return handle_; }

 private:
  Handle handle_ = nullptr;
};
using Library = Owned<cublasLtHandle_t, cublasLtDestroy>;
using Description = Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

class TimingEvent {
 public:
  TimingEvent() { VOCA_CUDA(cudaEventCreate(&event_)); }
  ~TimingEvent() { VOCA_REPORT(cudaEventDestroy(event_)); }
  TimingEvent(const TimingEvent&) = delete;
  TimingEvent& operator=(const TimingEvent&) = delete;
  [[nodiscard]] cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

/// Times work in a CUDA graph, as in a training step: the overhead of what a GEMM queues besides its kernel
/// differs from that in a stream.
class GraphTimer {
 public:
  GraphTimer() { VOCA_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  ~GraphTimer() { VOCA_REPORT(cudaStreamDestroy(stream_)); }
  GraphTimer(const GraphTimer&) = delete;
  GraphTimer& operator=(const GraphTimer&) = delete;

  /// Minimum over several launches of work(stream), in µs; infinite if it returns false or cannot be
  /// captured.
  template <typename Work>
  [[nodiscard]] double time(Work work) const {
    double least = std::numeric_limits<double>::infinity();
    bool done = false;
    cudaGraph_t graph = capture(stream_, [&] { done = work(stream_); });
    if (graph == nullptr) return least;
    if (done) {
      cudaGraphExec_t executable = nullptr;
      VOCA_CUDA(cudaGraphInstantiate(&executable, graph, 0));
      for (int i = 0; i < kTimes; ++i) {
        VOCA_CUDA(cudaEventRecord(begin_.get(), stream_));
        VOCA_CUDA(cudaGraphLaunch(executable, stream_));
        VOCA_CUDA(cudaEventRecord(end_.get(), stream_));
        VOCA_CUDA(cudaEventSynchronize(end_.get()));
        float milliseconds = 0;
        VOCA_CUDA(cudaEventElapsedTime(&milliseconds, begin_.get(), end_.get()));
        least = std::min(least, 1000.0 * static_cast<double>(milliseconds));
      }
      VOCA_CUDA(cudaGraphExecDestroy(executable));
    }
    VOCA_CUDA(cudaGraphDestroy(graph));
    return least;
  }

 private:
  /// The first launch of a graph is slower than later ones.
  static constexpr int kTimes = 2;

  cudaStream_t stream_ = nullptr;
  TimingEvent begin_;
  TimingEvent end_;
};

cudaDataType_t cuda_type(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return CUDA_R_32F;
    case DType::kBF16:
      return CUDA_R_16BF;
    case DType::kF16:
      return CUDA_R_16F;
    default:
      throw InternalError("matrix product: there is none of {} on a GPU", name_of(dtype));
  }
}

/// Orders GEMMs by everything except operand addresses.
struct ByShape {
  static auto tie(const MatrixProduct& p) {
    return std::tie(p.dtype, p.transpose_a, p.transpose_b, p.m, p.n, p.k, p.lda, p.ldb, p.ldc, p.accumulate,
                    p.add_bias, p.batch, p.stride_a, p.stride_b, p.stride_c, p.alignment);
  }
  bool operator()(const MatrixProduct& x, const MatrixProduct& y) const { return tie(x) < tie(y); }
};

/// A GEMM as cuBLASLt takes it. cuBLASLt is column-major and sees our matrices transposed, so that Cᵀ =
/// op(B)ᵀ · op(A)ᵀ: B is its first operand, and the bias, one value per column of C, is one per row of its
/// result.
struct Plan {
  Description description;
  Layout first;   ///< B
  Layout second;  ///< A
  Layout result;  ///< C
  cublasLtMatmulAlgo_t algorithm{};
  bool has_algorithm = false;
};

template <typename T>
void set(const Description& description, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  VOCA_CUBLAS(cublasLtMatmulDescSetAttribute(description.get(), attribute, &value, sizeof value));
}
template <typename T>
void set(const Layout& layout, cublasLtMatrixLayoutAttribute_t attribute, const T& value) {
  VOCA_CUBLAS(cublasLtMatrixLayoutSetAttribute(layout.get(), attribute, &value, sizeof value));
}
template <typename T>
void set(const Preference& preference, cublasLtMatmulPreferenceAttributes_t attribute, const T& value) {
  VOCA_CUBLAS(cublasLtMatmulPreferenceSetAttribute(preference.get(), attribute, &value, sizeof value));
}

/// Layout of our stored matrix (rows, columns) in column-major terms.
Layout make_layout(const MatrixProduct& p, std::int64_t rows, std::int64_t columns, std::int64_t ld,
                   std::int64_t stride) {
  Layout layout;
  VOCA_CUBLAS(cublasLtMatrixLayoutCreate(layout.address(), cuda_type(p.dtype),
                                         static_cast<std::uint64_t>(columns),
                                         static_cast<std::uint64_t>(rows), ld));
  if (p.batch > 1) {
    set(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, static_cast<std::int32_t>(p.batch));
    set(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, stride);
  }
  return layout;
}

Plan make_plan(const MatrixProduct& p, bool allow_tf32) {
  const auto operation = [](kernels::Transpose transpose) {
    return transpose == kernels::Transpose::kYes ? CUBLAS_OP_T : CUBLAS_OP_N;
  };
  const bool ta = p.transpose_a == kernels::Transpose::kYes;
  const bool tb = p.transpose_b == kernels::Transpose::kYes;
  const bool tf32 = allow_tf32 && p.dtype == DType::kF32;
  Plan plan;
  VOCA_CUBLAS(cublasLtMatmulDescCreate(plan.description.address(),
                                       tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F));
  set(plan.description, CUBLASLT_MATMUL_DESC_TRANSA, operation(p.transpose_b));
  set(plan.description, CUBLASLT_MATMUL_DESC_TRANSB, operation(p.transpose_a));
  if (p.add_bias) set(plan.description, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
  plan.first = make_layout(p, tb ? p.n : p.k, tb ? p.k : p.n, p.ldb, p.stride_b);
  plan.second = make_layout(p, ta ? p.k : p.m, ta ? p.m : p.k, p.lda, p.stride_a);
  plan.result = make_layout(p, p.m, p.n, p.ldc, p.stride_c);
  return plan;
}

/// In-place split-K reduction uses atomics, whose order is not fixed.
bool is_deterministic(const cublasLtMatmulAlgo_t& algorithm) {
  std::uint32_t scheme = 0;
  std::size_t written = 0;
  VOCA_CUBLAS(cublasLtMatmulAlgoConfigGetAttribute(&algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &scheme,
                                                   sizeof scheme, &written));
  return (scheme & static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_INPLACE)) == 0;
}

/// Operands of a GEMM in the memory in which candidates are timed, as several sets, so that a repeat does not
/// find its operands in the GPU's cache.
class RotatingOperands {
 public:
  RotatingOperands(const MatrixProduct& product, std::byte* memory, std::size_t memory_bytes,
                   std::size_t cache_bytes)
      : product_(product), memory_(memory) {
    const auto span = [&](std::int64_t rows, std::int64_t ld, std::int64_t stride) {
      const std::int64_t elements = (product.batch - 1) * stride + rows * ld;
      return align(static_cast<std::size_t>(elements) * size_of(product.dtype));
    };
    const bool ta = product.transpose_a == kernels::Transpose::kYes;
    const bool tb = product.transpose_b == kernels::Transpose::kYes;
    b_at_ = span(ta ? product.k : product.m, product.lda, product.stride_a);
    c_at_ = b_at_ + span(tb ? product.n : product.k, product.ldb, product.stride_b);
    bias_at_ = c_at_ + span(product.m, product.ldc, product.stride_c);
    set_bytes_ = bias_at_ + align(static_cast<std::size_t>(product.n) * size_of(product.dtype));
    sets_ = std::min(memory_bytes / set_bytes_, 2 * cache_bytes / set_bytes_ + 2);
  }
  /// 0 if one set does not fit.
  [[nodiscard]] std::size_t sets() const { return sets_; }
  [[nodiscard]] std::size_t bytes() const { return sets_ * set_bytes_; }
  [[nodiscard]] std::size_t result_bytes() const { return bias_at_ - c_at_; }
  [[nodiscard]] MatrixProduct operator[](std::size_t i) const {
    std::byte* const base = memory_ + i % sets_ * set_bytes_;
    MatrixProduct placed = product_;
    placed.a = base;
    placed.b = base + b_at_;
    placed.c = base + c_at_;
    if (placed.add_bias) placed.bias = base + bias_at_;
    return placed;
  }

 private:
  static std::size_t align(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

  MatrixProduct product_;
  std::byte* memory_;
  std::size_t b_at_ = 0;
  std::size_t c_at_ = 0;
  std::size_t bias_at_ = 0;
  std::size_t set_bytes_ = 0;
  std::size_t sets_ = 0;
};

class CublasLtProducts final : public MatrixProducts {
 public:
  CublasLtProducts(const cudaDeviceProp& properties, const CudaDeviceOptions& options)
      : options_(options),
        cache_bytes_(static_cast<std::size_t>(std::max(properties.l2CacheSize, 0))),
        cache_(AlgorithmCache::default_folder(), describe(properties)) {
    VOCA_CUBLAS(cublasLtCreate(library_.address()));
    VOCA_CUBLAS(cublasLtMatmulPreferenceCreate(preference_.address()));
    set(preference_, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
        static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE |
                                   CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE));
    if (options.autotune && !cache_.message().empty()) spdlog::warn("{}", cache_.message());
  }

  void prepare(const MatrixProduct& product) override { (void)plan_of(product); }
  [[nodiscard]] std::size_t workspace_bytes() const override { return kProductWorkspaceBytes; }
  void tune(std::byte* workspace, std::byte* memory, std::size_t memory_bytes) override;
  void multiply(const MatrixProduct& product, void* stream) override;
  [[nodiscard]] std::vector<std::string> choices() const override { return choices_; }

 private:
  static ProductLibrary describe(const cudaDeviceProp& properties) {
    int driver = 0;
    VOCA_CUDA(cudaDriverGetVersion(&driver));
    return {.device = properties.name,
            .capability = fmt::format("{}.{}", properties.major, properties.minor),
            .driver = driver,
            .library = cublasLtGetVersion()};
  }

  Plan& plan_of(const MatrixProduct& product);
  [[nodiscard]] std::vector<cublasLtMatmulAlgo_t> propose(const MatrixProduct& product,
                                                          const Plan& plan) const;
  [[nodiscard]] bool is_valid(const Plan& plan, const cublasLtMatmulAlgo_t& algorithm) const;
  void choose(std::byte* memory, std::size_t memory_bytes);
  [[nodiscard]] std::optional<ChosenAlgorithm> search(const MatrixProduct& product, const Plan& plan,
                                                      std::byte* memory, std::size_t memory_bytes) const;
  [[nodiscard]] double time(const RotatingOperands& operands, const Plan& plan,
                            const cublasLtMatmulAlgo_t& algorithm, double best) const;
  [[nodiscard]] bool repeats_itself(const RotatingOperands& operands, const Plan& plan,
                                    const cublasLtMatmulAlgo_t& algorithm) const;
  cublasStatus_t run(const MatrixProduct& product, const Plan& plan, const cublasLtMatmulAlgo_t& algorithm,
                     cudaStream_t stream) const;
  void take(const MatrixProduct& product, Plan& plan, const cublasLtMatmulAlgo_t& algorithm,
            const std::string& how);

  CudaDeviceOptions options_;
  std::size_t cache_bytes_;
  AlgorithmCache cache_;
  Library library_;
  Preference preference_;
  GraphTimer timer_;
  std::map<MatrixProduct, Plan, ByShape> plans_;
  std::byte* workspace_ = nullptr;
  std::vector<std::string> choices_;
};

Plan& CublasLtProducts::plan_of(const MatrixProduct& product) {
  const auto found = plans_.find(product);
  if (found != plans_.end()) return found->second;
  MatrixProduct key = product;
  key.a = key.b = key.bias = nullptr;
  key.c = nullptr;
  return plans_.emplace(key, make_plan(product, options_.allow_tf32)).first->second;
}

/// Deterministic candidates in the order of the library's expected speed; at least one.
std::vector<cublasLtMatmulAlgo_t> CublasLtProducts::propose(const MatrixProduct& product,
                                                            const Plan& plan) const {
  const auto alignment = static_cast<std::uint32_t>(product.alignment);
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
    VOCA_CUBLAS(status);
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
    throw InternalError("cuBLASLt has no deterministic algorithm for the product {}",
                        product_key(product, options_.allow_tf32));
  }
  return algorithms;
}

/// Whether an algorithm from disk can run this GEMM with the current library and our workspace.
bool CublasLtProducts::is_valid(const Plan& plan, const cublasLtMatmulAlgo_t& algorithm) const {
  cublasLtMatmulHeuristicResult_t result{};
  const cublasStatus_t status =
      cublasLtMatmulAlgoCheck(library_.get(), plan.description.get(), plan.first.get(), plan.second.get(),
                              plan.result.get(), plan.result.get(), &algorithm, &result);
  return status == CUBLAS_STATUS_SUCCESS && result.workspaceSize <= workspace_bytes() &&
         is_deterministic(algorithm);
}

void CublasLtProducts::tune(std::byte* workspace, std::byte* memory, std::size_t memory_bytes) {
  workspace_ = workspace;
  for (auto& [product, plan] : plans_) {
    const void* const bias = workspace_;  // only its alignment matters here
    if (product.add_bias) set(plan.description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
  }
  if (options_.autotune) {
    choose(memory, memory_bytes);
  } else {
    for (auto& [product, plan] : plans_)
      if (!plan.has_algorithm) take(product, plan, propose(product, plan).front(), "the library's first");
  }
  VOCA_CUDA(cudaDeviceSynchronize());
}

void CublasLtProducts::choose(std::byte* memory, std::size_t memory_bytes) {
  std::map<std::string, std::pair<const MatrixProduct*, Plan*>> open;
  for (auto& [product, plan] : plans_)
    if (!plan.has_algorithm) open[product_key(product, options_.allow_tf32)] = {&product, &plan};
  if (options_.sharing.chooses) spdlog::info("choosing algorithms for {} matrix products", open.size());
  AlgorithmChoice choice(cache_, options_.sharing);
  for (const auto& [key, entry] : open) {
    const auto [product, plan] = entry;
    choice.choose(key,
                  {.can_run = [&, p = plan](const Algorithm& a) { return is_valid(*p, to_library(a)); },
                   .search = [&, m = product, p = plan] { return search(*m, *p, memory, memory_bytes); },
                   .first = [&, m = product, p = plan] { return from_library(propose(*m, *p).front()); }});
  }
  choice.settle([&](const std::string& key, const Algorithm& algorithm) {
    return is_valid(*open.at(key).second, to_library(algorithm));
  });
  if (!cache_.message().empty()) spdlog::warn("{}", cache_.message());
  if (choice.passed_over() > 0) {
    spdlog::warn("{}: the algorithms of {} matrix products cannot run them; others are taken",
                 options_.sharing.chooses ? cache_.path().string() : "rank 0", choice.passed_over());
  }
  for (const auto& [key, entry] : open) {
    const TakenAlgorithm& taken = choice.taken().at(key);
    take(*entry.first, *entry.second, to_library(taken.algorithm), taken.how);
  }
}

void CublasLtProducts::take(const MatrixProduct& product, Plan& plan, const cublasLtMatmulAlgo_t& algorithm,
                            const std::string& how) {
  plan.algorithm = algorithm;
  plan.has_algorithm = true;
  choices_.push_back(fmt::format("{}: {} ({})", product_key(product, options_.allow_tf32),
                                 text_of(from_library(algorithm)), how));
}

/// Times the library's candidates; nullopt if `memory` cannot hold the operands.
std::optional<ChosenAlgorithm> CublasLtProducts::search(const MatrixProduct& product, const Plan& plan,
                                                        std::byte* memory, std::size_t memory_bytes) const {
  const std::vector<cublasLtMatmulAlgo_t> candidates = propose(product, plan);
  const RotatingOperands operands(product, memory, memory_bytes, cache_bytes_);
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
    throw InternalError("cuBLASLt: no algorithm runs the product {} the same way twice",
                        product_key(product, options_.allow_tf32));
  }
  return ChosenAlgorithm{.algorithm = from_library(candidates[*chosen]),
                         .microseconds = microseconds[*chosen],
                         .candidates = static_cast<std::int64_t>(candidates.size())};
}

/// Time of one GEMM in µs; infinite if it fails. Slow candidates are timed only roughly.
double CublasLtProducts::time(const RotatingOperands& operands, const Plan& plan,
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
bool CublasLtProducts::repeats_itself(const RotatingOperands& operands, const Plan& plan,
                                      const cublasLtMatmulAlgo_t& algorithm) const {
  const MatrixProduct product = operands[0];
  std::vector<std::byte> results[2];
  for (std::vector<std::byte>& result : results) {
    VOCA_CUDA(cudaMemset(product.c, 0x3C, operands.result_bytes()));
    if (run(product, plan, algorithm, nullptr) != CUBLAS_STATUS_SUCCESS) return false;
    result.resize(operands.result_bytes());
    VOCA_CUDA(cudaMemcpy(result.data(), product.c, result.size(), cudaMemcpyDeviceToHost));
  }
  return results[0] == results[1];
}

cublasStatus_t CublasLtProducts::run(const MatrixProduct& product, const Plan& plan,
                                     const cublasLtMatmulAlgo_t& algorithm, cudaStream_t stream) const {
  const float alpha = 1;
  const float beta = product.accumulate ? 1 : 0;
  if (product.add_bias) set(plan.description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, product.bias);
  return cublasLtMatmul(library_.get(), plan.description.get(), &alpha, product.b, plan.first.get(),
                        product.a, plan.second.get(), &beta, product.c, plan.result.get(), product.c,
                        plan.result.get(), &algorithm, workspace_, workspace_bytes(), stream);
}

void CublasLtProducts::multiply(const MatrixProduct& product, void* stream) {
  VOCA_CHECK(workspace_ != nullptr);
  if (product.m == 0 || product.n == 0) return;
  Plan& plan = plan_of(product);
  if (!plan.has_algorithm) {
    if (product.add_bias) set(plan.description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, product.bias);
    plan.algorithm = propose(product, plan).front();
    plan.has_algorithm = true;
  }
  VOCA_CUBLAS(run(product, plan, plan.algorithm, static_cast<cudaStream_t>(stream)));
}

}  // namespace

std::unique_ptr<MatrixProducts> make_cublaslt_products(const cudaDeviceProp& properties,
                                                       const CudaDeviceOptions& options) {
  return std::make_unique<CublasLtProducts>(properties, options);
}

}  // namespace voca::engine::cuda
