#pragma once

#include <cuda_runtime_api.h>

#include <memory>

#include "engine/core/cuda_device.h"
#include "engine/core/gemm_library.h"

namespace voca::engine::cuda {

/// GemmLibrary with cuBLASLt on the current device, which `properties` describes. Accumulation is fp32;
/// float32 GEMMs use TF32 with options.allow_tf32. Algorithms that add with atomics are never used. tune()
/// times candidates only for GEMMs missing in the cache of this GPU, driver and library
/// (engine/cuda/algorithm_cache.h).
[[nodiscard]] std::unique_ptr<GemmLibrary> make_cublaslt(const cudaDeviceProp& properties,
                                                         const CudaDeviceOptions& options);

}  // namespace voca::engine::cuda
