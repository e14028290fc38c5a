#pragma once

#include <cmath>
#include <cstdint>
#include <set>
#include <vector>

#include "model/metrics/metrics.h"

namespace voca::model::test {

/// Scores and labels of a split.
struct Sample {
  std::vector<double> scores;
  std::vector<int> labels;
};

// A small generator of our own: std distributions differ between libraries.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  double uniform() {
    state_ = state_ * 6364136223846793005ULL + 1442695040888963407ULL;
    return static_cast<double>(state_ >> 11) / 9007199254740992.0;
  }

 private:
  std::uint64_t state_;
};

// Reals score higher on average; `levels` distinct scores make ties.
inline Sample draw(std::size_t n, double share_real, double levels, std::uint64_t seed) {
  Random random(seed);
  Sample sample;
  for (std::size_t i = 0; i < n; ++i) {
    const int label = random.uniform() < share_real ? 1 : 0;
    const double raw = 0.7 * random.uniform() + 0.3 * label * random.uniform();
    sample.labels.push_back(label);
    sample.scores.push_back(std::floor(raw * levels) / levels);
  }
  sample.labels[0] = 1;
  sample.labels[1] = 0;
  return sample;
}

inline std::vector<Sample> samples() {
  return {draw(60, 0.5, 1e6, 1), draw(97, 0.3, 10, 2), draw(150, 0.05, 40, 3), draw(80, 0.9, 3, 4),
          draw(2, 0.5, 5, 5)};
}

/// Reals and fakes with a score of at least `threshold`, by counting.
inline RocPoint count_from(const Sample& sample, double threshold) {
  RocPoint point{.threshold = threshold};
  for (std::size_t i = 0; i < sample.scores.size(); ++i) {
    if (sample.scores[i] >= threshold) (sample.labels[i] == 1 ? point.tp : point.fp) += 1;
  }
  return point;
}

inline std::vector<double> thresholds_descending(const Sample& sample) {
  std::set<double> distinct(sample.scores.begin(), sample.scores.end());
  return {distinct.rbegin(), distinct.rend()};
}

}  // namespace voca::model::test
