#include "engine/cuda/algorithm_choice.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "engine/base/activity.h"
#include "engine/base/error.h"
#include "engine/base/json.h"

namespace voca::engine {
namespace {

std::map<std::string, Algorithm> read_told(const std::string& text) {
  std::map<std::string, Algorithm> told;
  try {
    const nlohmann::ordered_json json = parse_json(text, "the algorithms that rank 0 tells of");
    for (const auto& [key, algorithm] : json.items()) told[key] = algorithm_of(algorithm.get<std::string>());
  } catch (const nlohmann::json::exception& error) {
    throw DataError("the algorithms that rank 0 tells of: {}", error.what());
  }
  return told;
}

std::string told_text(const std::map<std::string, TakenAlgorithm>& taken) {
  nlohmann::ordered_json told = nlohmann::ordered_json::object();
  for (const auto& [key, entry] : taken) told[key] = text_of(entry.algorithm);
  return json_text(told);
}

std::string found_text(const ChosenAlgorithm& chosen) {
  return fmt::format("{:.1f} us, the best of {}", chosen.microseconds, chosen.candidates);
}

}  // namespace

AlgorithmChoice::AlgorithmChoice(AlgorithmCache& cache, const AlgorithmSharing& sharing)
    : cache_(cache), sharing_(sharing) {
  if (!sharing.chooses) told_ = read_told(sharing.hear());
}

void AlgorithmChoice::choose(const std::string& key, const GemmLibraryCalls& library) {
  if (taken_.contains(key)) return;
  report_activity("choosing algorithms for GEMMs");
  const auto told = told_.find(key);
  const ChosenAlgorithm* const cached = sharing_.chooses ? cache_.find(key) : nullptr;
  if (told != told_.end() && library.can_run(told->second)) {
    taken_[key] = {told->second, "as on rank 0"};
  } else if (cached != nullptr && library.can_run(cached->algorithm)) {
    taken_[key] = {cached->algorithm, found_text(*cached)};
  } else {
    if (told != told_.end() || cached != nullptr) ++passed_over_;
    const std::optional<ChosenAlgorithm> found = sharing_.chooses ? library.search() : std::nullopt;
    if (found) cache_.insert(key, *found);
    taken_[key] =
        found ? TakenAlgorithm{found->algorithm, found_text(*found)}
              : TakenAlgorithm{library.first(), sharing_.chooses
                                                    ? "the library's first: there is no room to time others"
                                                    : "the library's first: rank 0 has none that runs here"};
  }
}

void AlgorithmChoice::settle(const std::function<bool(const std::string& key, const Algorithm&)>& can_run) {
  if (!sharing_.chooses) return;
  cache_.save();
  for (auto& [key, taken] : taken_) {
    const ChosenAlgorithm* const cached = cache_.find(key);
    if (cached == nullptr || cached->algorithm == taken.algorithm || !can_run(key, cached->algorithm))
      continue;
    taken = {cached->algorithm, found_text(*cached)};
  }
  if (sharing_.tell) sharing_.tell(told_text(taken_));
}

}  // namespace voca::engine
