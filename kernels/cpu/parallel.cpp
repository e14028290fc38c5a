#include "kernels/cpu/parallel.h"

#include <omp.h>

#include <atomic>

#if defined(__SANITIZE_THREAD__)
#include <thread>
#include <vector>
#endif

namespace voca::kernels::cpu {

namespace {
// Process-wide; omp_set_num_threads would affect only the calling thread.
std::atomic<int> configured_threads{0};
}  // namespace

void set_threads(int n) {
  configured_threads = n;
}

int threads() {
  const int configured = configured_threads;
  return configured > 0 ? configured : omp_get_max_threads();
}

namespace detail {

#if defined(__SANITIZE_THREAD__)

// ThreadSanitizer does not recognise the barriers of libgomp; it does track the start and join of
// std::jthread.
void parallel_run(std::int64_t n, ParallelBody body, void* context) {
  const std::int64_t team = threads();
  if (n <= 1 || team <= 1) {
    for (std::int64_t i = 0; i < n; ++i) body(context, i, 0);
    return;
  }
  std::vector<std::jthread> workers;
  workers.reserve(static_cast<std::size_t>(team));
  for (std::int64_t t = 0; t < team; ++t) {
    workers.emplace_back([=] {
      for (std::int64_t i = n * t / team; i < n * (t + 1) / team; ++i) body(context, i, static_cast<int>(t));
    });
  }
}

#else

void parallel_run(std::int64_t n, ParallelBody body, void* context) {
  const int team = threads();
  if (n <= 1 || team <= 1) {
    for (std::int64_t i = 0; i < n; ++i) body(context, i, 0);
    return;
  }
  // The team size is constant even if n is smaller: libgomp ends and restarts threads when it changes.
#pragma omp parallel for schedule(static) num_threads(team)
  for (std::int64_t i = 0; i < n; ++i) body(context, i, omp_get_thread_num());
}

#endif

}  // namespace detail

}  // namespace voca::kernels::cpu
