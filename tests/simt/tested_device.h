#pragma once

#include <memory>

#include "engine/core/device.h"
#if defined(VOCA_TEST_CUDA)
#include "engine/core/cuda_device.h"
#else
#include "tests/simt/host_device.h"
#endif

// The GPU that tests of the engine run on: a real one where they are built for it, else the executor.

namespace voca::simt::host {

#if defined(VOCA_TEST_CUDA)
/// Sizes of networks: a GPU takes what the executor would take minutes for.
inline constexpr bool kRealGpu = true;
[[nodiscard]] inline std::unique_ptr<engine::Device> make_tested_device() {
  return engine::make_cuda_device(engine::cuda_availability().first, {});
}
#else
inline constexpr bool kRealGpu = false;
[[nodiscard]] inline std::unique_ptr<engine::Device> make_tested_device() {
  return std::make_unique<HostDevice>();
}
#endif

}  // namespace voca::simt::host
