#pragma once

#include <atomic>

namespace voca::kernels::cpu {

namespace detail {
inline std::atomic<bool> gemm_ran = false;
}  // namespace detail

/// Whether this process has run a GEMM, after which OpenBLAS keeps buffers for its calling threads.
[[nodiscard]] inline bool has_run_gemm() {
  return detail::gemm_ran;
}

}  // namespace voca::kernels::cpu
