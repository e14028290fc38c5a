#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "engine/core/predictions.h"

namespace voca::engine::test {

/// Predictions of a detector with these logits, (n, outputs); the labels are 0, 1, 0, 1, …
inline Predictions of_logits(std::vector<double> logits, std::int64_t outputs = 1) {
  Predictions predictions;
  std::vector<double> labels;
  for (std::size_t i = 0; i < logits.size() / static_cast<std::size_t>(outputs); ++i) {
    predictions.samples.push_back(static_cast<std::int64_t>(i));
    labels.push_back(static_cast<double>(i % 2));
  }
  predictions.outputs.push_back({.name = "logits", .width = outputs, .values = std::move(logits)});
  predictions.targets.push_back({.name = "label", .width = 1, .values = std::move(labels)});
  return predictions;
}

}  // namespace voca::engine::test
