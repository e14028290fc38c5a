#pragma once

#include <memory>

#include "engine/core/device.h"
#if defined(VOCA_TEST_CUDA)
#include "engine/core/cuda_device.h"
#else
#include "tests/simt/host_device.h"
#endif

// Device for tests of the engine: a real GPU if built for one, else the executor.

namespace voca::simt::host {

#if defined(VOCA_TEST_CUDA)
/// Whether networks can be large; the executor would take minutes for sizes that a GPU handles easily.
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
