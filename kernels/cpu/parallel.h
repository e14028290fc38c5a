#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

// Thread parallelism of the CPU kernels.

namespace voca::kernels::cpu {

/// Sets the number of threads of the kernels, n ≥ 1, for the whole process; results do not depend on it. The
/// default is that of OpenMP (OMP_NUM_THREADS, else the cores this process may run on).
void set_threads(int n);
[[nodiscard]] int threads();

namespace detail {
using ParallelBody = void (*)(void* context, std::int64_t index, int thread);
void parallel_run(std::int64_t n, ParallelBody body, void* context);
}  // namespace detail

/// Calls f(i), or f(i, thread) with thread in [0, threads()), once for every i in [0, n) and returns when all
/// calls have returned. Each thread takes one run of consecutive indices. If n ≤ 1, f runs on the calling
/// thread, so a kernel with little work can use one chunk and avoid a fork. f must not throw, and its results
/// must not depend on `thread`, which only selects a slice of scratch.
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
