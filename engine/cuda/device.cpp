#include <cuda_runtime_api.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "engine/base/error.h"
#include "engine/core/cuda_device.h"
#include "engine/cuda/check.h"
#include "engine/cuda/cublaslt.h"
#include "engine/cuda/graphs.h"

namespace voca::engine {
namespace {

/// Reserve for the driver's own allocations after free_memory(): kernels are loaded at their first launch.
constexpr std::size_t kReservedBytes = std::size_t{256} << 20;

constexpr int kLeastCapability = 8;

std::string version_text(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

std::string reason_of(cudaError_t status) {
  int driver = 0;
  int runtime = 0;
  switch (status) {
    case cudaErrorInsufficientDriver:
      (void)cudaDriverGetVersion(&driver);
      (void)cudaRuntimeGetVersion(&runtime);
      if (driver == 0) return "there is no NVIDIA driver";
      return fmt::format(
          "the NVIDIA driver is too old: it knows CUDA {}, this build is of CUDA {}; update it",
          version_text(driver), version_text(runtime));
    case cudaErrorNoDevice:
      return "the NVIDIA driver shows no GPU (CUDA_VISIBLE_DEVICES hides them, or there is none)";
    default:
      return fmt::format("{} ({})", cudaGetErrorString(status), cudaGetErrorName(status));
  }
}

/// Why the device cannot be used; empty if it can.
std::string objection(const cudaDeviceProp& properties) {
  if (properties.major >= kLeastCapability) return "";
  return fmt::format("{} has compute capability {}.{}, the kernels need {}.0", properties.name,
                     properties.major, properties.minor, kLeastCapability);
}

class CudaDevice final : public Device {
 public:
  CudaDevice(int index, const CudaDeviceOptions& options) : index_(index) {
    VOCA_CUDA(cudaSetDevice(index));
    VOCA_CUDA(cudaGetDeviceProperties(&properties_, index));
    if (const std::string why = objection(properties_); !why.empty())
      throw UsageError("--device cuda:{}: {}", index, why);
    VOCA_CUDA(cudaStreamCreateWithFlags(&compute_, cudaStreamNonBlocking));
    VOCA_CUDA(cudaStreamCreateWithFlags(&copy_, cudaStreamNonBlocking));
    gemm_library_ = cuda::make_cublaslt(properties_, options);
  }
  ~CudaDevice() override {
    gemm_library_.reset();
    VOCA_REPORT(cudaStreamDestroy(copy_));
    VOCA_REPORT(cudaStreamDestroy(compute_));
  }
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;

  [[nodiscard]] DeviceKind kind() const override { return DeviceKind::kCuda; }
  [[nodiscard]] std::string description() const override {
    return fmt::format("cuda:{}, {}, compute capability {}.{}, {:.1f} GiB", index_, properties_.name,
                       properties_.major, properties_.minor,
                       static_cast<double>(properties_.totalGlobalMem) / 1073741824.0);
  }
  [[nodiscard]] FreeMemory free_memory() const override {
    std::size_t free = 0;
    std::size_t total = 0;
    VOCA_CUDA(cudaMemGetInfo(&free, &total));
    // 0 would mean unknown.
    return {.bytes = free > kReservedBytes ? free - kReservedBytes : 1, .limit = ""};
  }
  void synchronize(Stream stream) override { VOCA_CUDA(cudaStreamSynchronize(stream)); }
  [[nodiscard]] Stream compute_stream() const override { return compute_; }
  [[nodiscard]] Stream copy_stream() const override { return copy_; }
  [[nodiscard]] GemmLibrary* gemm_library() override { return gemm_library_.get(); }

  void copy_to_device(void* to, const void* host, std::size_t bytes, Stream stream) override {
    VOCA_CUDA(cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, stream));
  }
  void copy_to_host(void* host, const void* from, std::size_t bytes, Stream stream) override {
    VOCA_CUDA(cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, stream));
  }
  void queue_together(std::uint64_t kind, Stream stream, const std::function<void()>& work) override {
    graphs_.queue(kind, stream, work);
  }

 protected:
  std::byte* allocate_bytes(std::size_t bytes) override {
    void* data = nullptr;
    if (!taken(cudaMalloc(&data, bytes))) return nullptr;
    VOCA_CUDA(cudaMemsetAsync(data, 0, bytes, compute_));
    VOCA_CUDA(cudaStreamSynchronize(compute_));
    return static_cast<std::byte*>(data);
  }
  void free_bytes_at(std::byte* data) noexcept override { VOCA_REPORT(cudaFree(data)); }

  std::byte* allocate_pinned_bytes(std::size_t bytes) override {
    void* data = nullptr;
    if (!taken(cudaMallocHost(&data, bytes))) return nullptr;
    std::fill_n(static_cast<std::byte*>(data), bytes, std::byte{0});
    return static_cast<std::byte*>(data);
  }
  void free_pinned(std::byte* data) noexcept override { VOCA_REPORT(cudaFreeHost(data)); }

  [[nodiscard]] void* make_event() override {
    cudaEvent_t event = nullptr;
    VOCA_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    return event;
  }
  void destroy_event(void* event) noexcept override {
    VOCA_REPORT(cudaEventDestroy(static_cast<cudaEvent_t>(event)));
  }
  void record_event(void* event, Stream stream) override {
    VOCA_CUDA(cudaEventRecord(static_cast<cudaEvent_t>(event), stream));
  }
  void stream_wait(Stream stream, void* event) override {
    VOCA_CUDA(cudaStreamWaitEvent(stream, static_cast<cudaEvent_t>(event), 0));
  }
  void synchronize_event(void* event) override {
    VOCA_CUDA(cudaEventSynchronize(static_cast<cudaEvent_t>(event)));
  }

 private:
  /// False if memory is insufficient; the caller reports it with all current allocations.
  static bool taken(cudaError_t status) {
    if (status == cudaErrorMemoryAllocation) {
      (void)cudaGetLastError();
      return false;
    }
    VOCA_CUDA(status);
    return true;
  }

  int index_;
  cudaDeviceProp properties_{};
  cudaStream_t compute_ = nullptr;
  cudaStream_t copy_ = nullptr;
  std::unique_ptr<GemmLibrary> gemm_library_;
  cuda::Graphs graphs_;
};

}  // namespace

bool built_with_cuda() {
  return true;
}

CudaAvailability cuda_availability() {
  int devices = 0;
  if (const cudaError_t status = cudaGetDeviceCount(&devices); status != cudaSuccess) {
    (void)cudaGetLastError();
    return {.reason = reason_of(status)};
  }
  std::string objections;
  for (int i = 0; i < devices; ++i) {
    cudaDeviceProp properties{};
    VOCA_CUDA(cudaGetDeviceProperties(&properties, i));
    const std::string why = objection(properties);
    if (why.empty()) return {.devices = devices, .first = i, .reason = ""};
    objections += objections.empty() ? why : "; " + why;
  }
  return {.reason = objections.empty() ? reason_of(cudaErrorNoDevice) : objections};
}

std::unique_ptr<Device> make_cuda_device(int index, const CudaDeviceOptions& options) {
  const CudaAvailability available = cuda_availability();
  if (available.devices == 0) throw UsageError("--device cuda: {}", available.reason);
  if (index < 0 || index >= available.devices) {
    throw UsageError("--device cuda:{}: there are {} GPUs, counted from 0", index, available.devices);
  }
  return std::make_unique<CudaDevice>(index, options);
}

std::string cuda_device_uuid() {
  int index = 0;
  cudaDeviceProp properties{};
  VOCA_CUDA(cudaGetDevice(&index));
  VOCA_CUDA(cudaGetDeviceProperties(&properties, index));
  std::string digits;
  for (const char byte : properties.uuid.bytes)
    digits += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return fmt::format("GPU-{}-{}-{}-{}-{}", digits.substr(0, 8), digits.substr(8, 4), digits.substr(12, 4),
                     digits.substr(16, 4), digits.substr(20));
}

}  // namespace voca::engine
