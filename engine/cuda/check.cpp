#include "engine/cuda/check.h"

#include <spdlog/spdlog.h>

#include "engine/base/error.h"

namespace voca::engine::cuda {

void check(cudaError_t status, const char* statement, const Place& where) {
  if (status == cudaSuccess) return;
  (void)cudaGetLastError();  // clears the error, which the next check would otherwise report again
  throw InternalError("CUDA: {} ({}) in {}, {} at {}:{}", cudaGetErrorString(status),
                      cudaGetErrorName(status), statement, where.function, where.file, where.line);
}

void check(cublasStatus_t status, const char* statement, const Place& where) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw InternalError("cuBLASLt: {} in {}, {} at {}:{}", cublasLtGetStatusName(status), statement,
                      where.function, where.file, where.line);
}

void report(cudaError_t status, const char* statement) noexcept {
  // At process exit the runtime may be unloaded before the last object is destroyed.
  if (status == cudaSuccess || status == cudaErrorCudartUnloading) return;
  spdlog::error("CUDA: {} in {}", cudaGetErrorString(status), statement);
}

void report(cublasStatus_t status, const char* statement) noexcept {
  if (status != CUBLAS_STATUS_SUCCESS)
    spdlog::error("cuBLASLt: {} in {}", cublasLtGetStatusName(status), statement);
}

}  // namespace voca::engine::cuda
