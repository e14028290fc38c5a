#pragma once

#include <cuda_runtime_api.h>

#include <memory>

#include "engine/core/cuda_device.h"
#include "engine/core/matrix_products.h"

namespace voca::engine::cuda {

/// MatrixProducts by cuBLASLt on the current device, which `properties` describes. Sums are fp32; products of
/// float32 take tf32 with options.allow_tf32. Algorithms that add with atomics are never taken. tune() times
/// the candidates of products that the cache of this GPU, driver and library (engine/cuda/algorithm_cache.h)
/// does not have.
[[nodiscard]] std::unique_ptr<MatrixProducts> make_cublaslt_products(const cudaDeviceProp& properties,
                                                                     const CudaDeviceOptions& options);

}  // namespace voca::engine::cuda
