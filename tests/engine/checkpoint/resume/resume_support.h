#pragma once

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/checkpoint/resume/resume_state.h"

namespace voca::engine::test {

/// A small state all of which follows from one number.
struct NumberedState {
  static constexpr std::size_t kWeights = 9;
  std::vector<float> weights;
  std::vector<std::int64_t> counters;

  explicit NumberedState(int number) : weights(kWeights), counters(2, number) {
    for (std::size_t i = 0; i < weights.size(); ++i)
      weights[i] = static_cast<float>(number) + static_cast<float>(i) / 16;
  }
  [[nodiscard]] std::vector<ResumeSection> sections() const {
    return {{"weights", DType::kF32, std::as_bytes(std::span(weights))},
            {"nothing", DType::kF32, {}},
            {"counters", DType::kI64, std::as_bytes(std::span(counters))}};
  }
};

inline std::filesystem::path save_number(ResumeStore& store, int number) {
  return store.save({{"number", number}}, NumberedState(number).sections());
}

/// The number of a state that save_number() saved; −1 unless all of it is there.
inline int number_of(const ResumeState& state) {
  const int number = state.header.at("number").get<int>();
  const NumberedState expected(number);
  const auto sections = expected.sections();
  if (state.sections.size() != sections.size()) return -1;
  for (std::size_t i = 0; i < sections.size(); ++i) {
    if (state.sections[i].name != sections[i].name || state.sections[i].dtype != sections[i].dtype ||
        !std::ranges::equal(state.sections[i].bytes, sections[i].bytes))
      return -1;
  }
  return number;
}

inline std::vector<std::string> names_in(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace voca::engine::test
