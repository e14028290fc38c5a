#include "tools/did_you_mean.h"

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

namespace voca::tools {
namespace {

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = std::exchange(row[j], std::min({row[j] + 1, row[j - 1] + 1, replaced}));
    }
  }
  return row.back();
}

constexpr std::size_t kMinPrefix = 3;

bool begins_alike(std::string_view name, std::string_view candidate) {
  if (name.size() >= kMinPrefix && candidate.starts_with(name)) return true;
  if (!name.starts_with(candidate)) return false;
  return candidate.size() >= kMinPrefix || (name.size() > candidate.size() && name[candidate.size()] == '_');
}

}  // namespace

std::string did_you_mean(std::string_view name, std::span<const std::string_view> candidates) {
  if (candidates.empty() || name.empty()) return {};
  const auto best = std::ranges::min_element(
      candidates, {}, [&](std::string_view candidate) { return edit_distance(name, candidate); });
  // In a very short name, two edits would replace everything.
  const std::size_t limit = name.size() <= kMinPrefix ? 1 : std::max<std::size_t>(2, name.size() / 3);
  if (edit_distance(name, *best) <= limit) return std::string(*best);
  std::string_view alike;
  for (const std::string_view candidate : candidates) {
    if (!begins_alike(name, candidate)) continue;
    if (!alike.empty()) return {};
    alike = candidate;
  }
  return std::string(alike);
}

}  // namespace voca::tools
