#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "engine/core/gemm_library.h"
#include "engine/cuda/algorithm_cache.h"

namespace voca::engine {

/// Queries to the GEMM library about one GEMM.
struct GemmLibraryCalls {
  std::function<bool(const Algorithm&)> can_run;
  /// Times the library's candidates, which takes a while; nullopt if there is no memory for operands.
  std::function<std::optional<ChosenAlgorithm>()> search;
  std::function<Algorithm()> first;  ///< the library's first proposal
};

struct TakenAlgorithm {
  Algorithm algorithm{};
  std::string how;  ///< origin of the algorithm, for people
};

/// Chooses the GEMM algorithms of a run, from the cache or by a search. In a job only rank 0 does this and
/// sends the result to the other ranks, so that all compute with the same algorithms and no other rank
/// searches.
///
///   AlgorithmChoice choice(cache, sharing);     // ranks other than 0 wait here
///   for (...) choice.choose(key, calls);
///   choice.settle(can_run);                     // saves and sends
///   for (...) use(choice.taken().at(key));
class AlgorithmChoice {
 public:
  /// Throws what `sharing` throws, and DataError if the received text is damaged.
  AlgorithmChoice(AlgorithmCache& cache, const AlgorithmSharing& sharing);

  /// Chooses the algorithm of `key`; a no-op if it already has one.
  void choose(const std::string& key, const GemmLibraryCalls& library);
  /// Saves, adopts algorithms that other processes have found meanwhile if they can run, and sends the result
  /// to the other ranks.
  void settle(const std::function<bool(const std::string& key, const Algorithm&)>& can_run);
  [[nodiscard]] const std::map<std::string, TakenAlgorithm>& taken() const { return taken_; }
  /// Number of keys whose algorithm, from the cache or rank 0, cannot run here.
  [[nodiscard]] int passed_over() const { return passed_over_; }

 private:
  AlgorithmCache& cache_;
  const AlgorithmSharing& sharing_;
  std::map<std::string, Algorithm> told_;
  std::map<std::string, TakenAlgorithm> taken_;
  int passed_over_ = 0;
};

}  // namespace voca::engine
