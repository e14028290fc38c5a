#pragma once

#include <functional>
#include <string>

namespace voca::engine {

/// How the ranks of a job agree on GEMM algorithms: rank 0 chooses and sends, the others receive. The default
/// is a world of one.
struct AlgorithmSharing {
  bool chooses = true;
  std::function<void(const std::string& text)> tell{};  ///< on the choosing rank; null in a world of one
  std::function<std::string()> hear{};                  ///< on the others: waits for what `tell` sends
};

}  // namespace voca::engine
