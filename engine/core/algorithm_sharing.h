#pragma once

#include <functional>
#include <string>

namespace voca::engine {

/// How the ranks of a job come to the same algorithms for their matrix products: the first chooses and tells,
/// the others hear. The default is a world of one.
struct AlgorithmSharing {
  bool chooses = true;
  std::function<void(const std::string& text)> tell{};  ///< of the rank that chooses; null: there is no other
  std::function<std::string()> hear{};                  ///< of the others: waits for what it tells
};

}  // namespace voca::engine
