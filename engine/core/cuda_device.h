#pragma once

#include <memory>
#include <string>

#include "engine/core/device.h"
#include "engine/core/gemm_library.h"

namespace voca::engine {

/// GPUs on which this process can compute.
struct CudaAvailability {
  int devices = 0;     ///< number visible to CUDA; 0 if none can be used
  int first = 0;       ///< index of the first that can run the kernels
  std::string reason;  ///< why none can be used, in one line; empty if one can
};

/// Whether this build has the CUDA kernels; without them not even a dry run of a GPU step is possible.
[[nodiscard]] bool built_with_cuda();

/// Queries the driver. In a build without a CUDA toolkit there are no devices, and `reason` says so.
[[nodiscard]] CudaAvailability cuda_availability();

struct CudaDeviceOptions {
  /// Allow TF32 tensor cores (10-bit mantissa) for float32 GEMM (--precision tf32).
  bool allow_tf32 = false;
  /// Time the candidate algorithms of each GEMM once (--gemm_autotune); false takes the library's first.
  bool autotune = true;
  AlgorithmSharing sharing{};  ///< between the ranks of a job
};

/// GPU `index` of those visible to CUDA, from 0. Throws UsageError naming --device if it cannot be used. The
/// device is used by a single thread.
[[nodiscard]] std::unique_ptr<Device> make_cuda_device(int index, const CudaDeviceOptions& options);

/// UUID of the current GPU of this thread, "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6". It does not depend on
/// CUDA_VISIBLE_DEVICES, unlike the index. Empty in a build without CUDA.
[[nodiscard]] std::string cuda_device_uuid();

}  // namespace voca::engine
