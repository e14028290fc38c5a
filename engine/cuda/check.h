#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

// Wrappers for calls of the CUDA runtime and cuBLASLt: a failure throws InternalError with statement,
// function, file and line. A kernel's failure is reported by a later call and may be attributed to it.

namespace voca::engine::cuda {

/// Source location of a call. clang 14 lacks std::source_location.
struct Place {
  const char* function;
  const char* file;
  int line;
};
void check(cudaError_t status, const char* statement, const Place& where);
void check(cublasStatus_t status, const char* statement, const Place& where);

/// For destructors: logs a failure.
void report(cudaError_t status, const char* statement) noexcept;
void report(cublasStatus_t status, const char* statement) noexcept;

}  // namespace voca::engine::cuda

#define VOCA_CUDA(statement)                           \
  ::voca::engine::cuda::check((statement), #statement, \
                              {static_cast<const char*>(__func__), __FILE__, __LINE__})
#define VOCA_REPORT(statement) ::voca::engine::cuda::report((statement), #statement)
