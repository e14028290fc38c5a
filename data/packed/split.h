#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/tree/feature_tree.h"

namespace voca::data {

using SplitRatios = std::array<double, kSplits>;

/// "0.6,0.2,0.2": three numbers ≥ 0 of sum 1 (to 1e-6). Throws UsageError naming --split_ratios.
[[nodiscard]] SplitRatios parse_split_ratios(std::string_view text);

/// The identities a video's name carries, each once, in order of appearance. By default "id" and the five or
/// more digits that follow it, where no letter or digit stands before; `expression` (ECMAScript) finds
/// others: its first group, or the whole match. Throws UsageError naming --group_by when it is no expression.
class IdentityFinder {
 public:
  IdentityFinder();
  explicit IdentityFinder(const std::string& expression);
  ~IdentityFinder();
  IdentityFinder(const IdentityFinder&) = delete;
  IdentityFinder& operator=(const IdentityFinder&) = delete;

  /// Of an id "real/<video>": what stands after the first slash is searched.
  [[nodiscard]] std::vector<std::string> find(std::string_view id) const;

 private:
  struct Expression;
  std::unique_ptr<Expression> expression_;
};

/// Groups of videos that share an identity, directly or through others (connected components), numbered in
/// order of first appearance; −1 for a video without one.
[[nodiscard]] std::vector<std::int32_t> identity_groups(std::span<const std::string> ids,
                                                        const IdentityFinder& finder);

/// Draws the splits: stratified by label, from `seed` and the order of the videos alone. `groups` (or empty)
/// are kept whole: their splits come as near the ratios, in each label, as a greedy placement of the largest
/// groups first brings them. A ratio of 0 leaves that split empty. Without groups each label's counts are off
/// by less than one video.
[[nodiscard]] std::vector<Split> draw_splits(std::span<const std::uint8_t> labels,
                                             std::span<const std::int32_t> groups, const SplitRatios& ratios,
                                             std::uint64_t seed);

/// SHA-256 over ids and splits: the same on every rank and at every evaluation, or something is wrong.
[[nodiscard]] std::string split_hash(std::span<const std::string> ids, std::span<const std::uint8_t> splits);

}  // namespace voca::data
