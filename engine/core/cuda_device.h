#pragma once

#include <memory>
#include <string>

#include "engine/core/algorithm_sharing.h"
#include "engine/core/device.h"

namespace voca::engine {

/// Which GPUs this process can compute on.
struct CudaAvailability {
  int devices = 0;     ///< that CUDA sees; 0 where none can be used
  int first = 0;       ///< the first of them that the kernels run on
  std::string reason;  ///< why none can be used, in one line; empty where one can
};

/// Whether the CUDA kernels are in this build; without them not even a dry run of a GPU's step is possible.
[[nodiscard]] bool built_with_cuda();

/// Asks the driver. Without a CUDA toolkit at build time there are none, and the reason says so.
[[nodiscard]] CudaAvailability cuda_availability();

struct CudaDeviceOptions {
  /// Products of float32 on tensor cores with 10-bit mantissas (--precision tf32).
  bool allow_tf32 = false;
  /// Time the algorithms of each product once (--gemm_autotune); false takes the library's first.
  bool autotune = true;
  AlgorithmSharing sharing{};  ///< with the other ranks of a job
};

/// GPU `index` of those CUDA sees, from 0. Throws UsageError naming --device when it cannot be used. All of
/// it is used by one thread.
[[nodiscard]] std::unique_ptr<Device> make_cuda_device(int index, const CudaDeviceOptions& options);

/// "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", of the GPU that this thread computes on: the same in every
/// process, whatever number CUDA_VISIBLE_DEVICES gives it there. Empty in a build without CUDA.
[[nodiscard]] std::string cuda_device_uuid();

}  // namespace voca::engine
