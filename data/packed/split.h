#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/tree/feature_tree.h"

namespace voca::data {

/// Shares of train, val and test: numbers ≥ 0 whose sum is 1 (to 1e-6).
struct SplitRatios : std::array<double, kSplits> {
  static constexpr std::string_view kForm =
      "three shares of train, val and test from 0 to 1 that sum to 1, such as 0.6,0.2,0.2";
  [[nodiscard]] static std::optional<SplitRatios> parse(std::string_view text);
  [[nodiscard]] std::string text() const;
};
inline constexpr SplitRatios kUsualRatios{0.6, 0.2, 0.2};

/// Which videos are kept in one split (--group_by).
struct GroupBy {
  enum class Kind : std::uint8_t { kNone, kIdentity, kExpression };
  Kind kind = Kind::kNone;
  std::string expression;  ///< of kExpression

  static constexpr std::string_view kForm = "none, identity or a regular expression";
  /// Text that is neither none nor identity is an expression, valid or not.
  [[nodiscard]] static std::optional<GroupBy> parse(std::string_view text);
  [[nodiscard]] std::string text() const;
};

/// Finds the identities in a video's name, each once, in order of appearance. By default an identity is "id"
/// and the five or more digits after it, not preceded by a letter or digit. `expression` (ECMAScript)
/// overrides that: its first group, or else the whole match. Throws UsageError naming --group_by when the
/// expression is invalid.
class IdentityFinder {
 public:
  IdentityFinder();
  explicit IdentityFinder(const std::string& expression);

  /// Searches the part of an id "real/<video>" after the first slash.
  [[nodiscard]] std::vector<std::string> find(std::string_view id) const;

 private:
  std::function<std::vector<std::string>(std::string_view name)> find_in_;
};

/// Groups of videos that share an identity, directly or through others (connected components), numbered in
/// order of first appearance; −1 for a video without an identity.
[[nodiscard]] std::vector<std::int32_t> identity_groups(std::span<const std::string> ids,
                                                        const IdentityFinder& finder);

/// Draws the splits, stratified by label; depends only on `seed` and the order of the videos. `groups` (or
/// empty) are kept together: greedy placement of the largest groups first approximates the ratios for each
/// label. A ratio of 0 leaves that split empty. Without groups, each label's counts are within one video of
/// the ratios.
[[nodiscard]] std::vector<Split> draw_splits(std::span<const std::uint8_t> labels,
                                             std::span<const std::int32_t> groups, const SplitRatios& ratios,
                                             std::uint64_t seed);

/// SHA-256 over ids and splits; must be equal on every rank and at every evaluation.
[[nodiscard]] std::string split_hash(std::span<const std::string> ids, std::span<const std::uint8_t> splits);

}  // namespace voca::data
