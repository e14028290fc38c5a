#pragma once

#include <cstdint>
#include <functional>

namespace voca::data {

/// Calls f(i) for i in [0, count), assigned in ascending order, on `num_workers` threads or, for 0 and 1, in
/// the calling thread. When a call throws, no further index is assigned, and the exception of the lowest
/// index is rethrown, regardless of the number of threads.
void for_each_index(std::int64_t count, int num_workers, const std::function<void(std::int64_t)>& f);

}  // namespace voca::data
