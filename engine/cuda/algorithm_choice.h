#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "engine/core/algorithm_sharing.h"
#include "engine/cuda/algorithm_cache.h"

namespace voca::engine {

/// What a library can say of one product.
struct ProductLibraryCalls {
  std::function<bool(const Algorithm&)> can_run;
  /// Times what the library proposes, which takes a while; nothing where there is no room to.
  std::function<std::optional<ChosenAlgorithm>()> search;
  std::function<Algorithm()> first;  ///< what the library proposes first
};

struct TakenAlgorithm {
  Algorithm algorithm{};
  std::string how;  ///< it was come by, for people
};

/// How the products of a run come by their algorithms: from the cache or by a search. Of the ranks of a job
/// the first does that and tells the others, so that all compute with the same and none searches beside it.
///
///   AlgorithmChoice choice(cache, sharing);     // other ranks than the first wait here
///   for (...) choice.choose(key, calls);
///   choice.settle(can_run);                     // saves, tells
///   for (...) use(choice.taken().at(key));
class AlgorithmChoice {
 public:
  /// Throws what `sharing` throws, and DataError when what is told is damaged.
  AlgorithmChoice(AlgorithmCache& cache, const AlgorithmSharing& sharing);

  /// Nothing where the key has one already.
  void choose(const std::string& key, const ProductLibraryCalls& library);
  /// What another process has found meanwhile is taken over where it can run; then the other ranks are told.
  void settle(const std::function<bool(const std::string& key, const Algorithm&)>& can_run);
  [[nodiscard]] const std::map<std::string, TakenAlgorithm>& taken() const { return taken_; }
  /// Keys whose algorithm, of the cache or of rank 0, cannot run here.
  [[nodiscard]] int passed_over() const { return passed_over_; }

 private:
  AlgorithmCache& cache_;
  const AlgorithmSharing& sharing_;
  std::map<std::string, Algorithm> told_;
  std::map<std::string, TakenAlgorithm> taken_;
  int passed_over_ = 0;
};

}  // namespace voca::engine
