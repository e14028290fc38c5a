#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <source_location>

// What wraps every call of the CUDA runtime and of cuBLASLt: a failure throws InternalError with the
// statement, function, file and line. A failure of a kernel shows at a later call and may be named there.

namespace voca::engine::cuda {

void check(cudaError_t status, const char* statement, const std::source_location& where);
void check(cublasStatus_t status, const char* statement, const std::source_location& where);

/// For destructors: a failure is logged.
void report(cudaError_t status, const char* statement) noexcept;
void report(cublasStatus_t status, const char* statement) noexcept;

}  // namespace voca::engine::cuda

#define VOCA_CUDA(statement) \
  ::voca::engine::cuda::check((statement), #statement, std::source_location::current())
#define VOCA_CUBLAS(statement) \
  ::voca::engine::cuda::check((statement), #statement, std::source_location::current())
#define VOCA_REPORT(statement) ::voca::engine::cuda::report((statement), #statement)
