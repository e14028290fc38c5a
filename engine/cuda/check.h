#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

// What wraps every call of the CUDA runtime and of cuBLASLt: a failure throws InternalError with the
// statement, function, file and line. A failure of a kernel shows at a later call and may be named there.

namespace voca::engine::cuda {

/// Where a call stands. std::source_location is not known to clang 14.
struct Place {
  const char* function;
  const char* file;
  int line;
};
void check(cudaError_t status, const char* statement, const Place& where);
void check(cublasStatus_t status, const char* statement, const Place& where);

/// For destructors: a failure is logged.
void report(cudaError_t status, const char* statement) noexcept;
void report(cublasStatus_t status, const char* statement) noexcept;

}  // namespace voca::engine::cuda

#define VOCA_CUDA(statement)                           \
  ::voca::engine::cuda::check((statement), #statement, \
                              {static_cast<const char*>(__func__), __FILE__, __LINE__})
#define VOCA_CUBLAS(statement)                         \
  ::voca::engine::cuda::check((statement), #statement, \
                              {static_cast<const char*>(__func__), __FILE__, __LINE__})
#define VOCA_REPORT(statement) ::voca::engine::cuda::report((statement), #statement)
