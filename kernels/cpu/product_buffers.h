#pragma once

#include <atomic>

namespace voca::kernels::cpu {

namespace detail {
inline std::atomic<bool> multiplied = false;
}  // namespace detail

/// Whether this process has run a GEMM, after which OpenBLAS keeps buffers for its calling threads.
[[nodiscard]] inline bool has_multiplied() {
  return detail::multiplied;
}

}  // namespace voca::kernels::cpu
