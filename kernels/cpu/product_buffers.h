#pragma once

#include <atomic>

namespace voca::kernels::cpu {

namespace detail {
inline std::atomic<bool> multiplied = false;
}  // namespace detail

/// Whether this process has multiplied matrices: OpenBLAS then has the buffers that it keeps for its callers'
/// threads.
[[nodiscard]] inline bool has_multiplied() {
  return detail::multiplied;
}

}  // namespace voca::kernels::cpu
