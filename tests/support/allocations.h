#pragma once

#include <cstdint>

namespace voca::test {

/// Calls of operator new so far, by all threads of this test program.
[[nodiscard]] std::int64_t allocations();

}  // namespace voca::test
