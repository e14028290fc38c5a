#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

#include "kernels/cpu/features.h"

// The one place where the CPU kernels meet threads.

namespace voca::kernels::cpu {

namespace detail {
using ParallelBody = void (*)(void* context, std::int64_t index, int thread);
void parallel_run(std::int64_t n, ParallelBody body, void* context);
}  // namespace detail

/// Calls f(i), or f(i, thread) with thread in [0, threads()), once for every i in [0, n) and returns when all
/// are done. Each thread takes one run of consecutive indices. n ≤ 1 runs here and now: a kernel whose work
/// is small cuts it into one piece and pays for no fork. f must not throw, and what it computes must not
/// depend on `thread`: that names a slice of scratch and nothing else.
template <typename F>
void parallel_for(std::int64_t n, F&& f) {
  using Body = std::remove_reference_t<F>;
  detail::parallel_run(
      n,
      [](void* context, std::int64_t index, [[maybe_unused]] int thread) {
        Body& body = *static_cast<Body*>(context);
        if constexpr (std::is_invocable_v<Body&, std::int64_t, int>) {
          body(index, thread);
        } else {
          body(index);
        }
      },
      const_cast<void*>(static_cast<const void*>(std::addressof(f))));
}

}  // namespace voca::kernels::cpu
