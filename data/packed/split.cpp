#include "data/packed/split.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>
#include <regex>
#include <unordered_map>

#include "engine/base/digest.h"
#include "engine/base/error.h"
#include "engine/base/random.h"
#include "engine/base/text.h"

namespace voca::data {
namespace {

using engine::UsageError;

/// Integers of sum n nearest to n × ratios (largest remainder; ties favour the earlier split).
std::array<std::size_t, kSplits> apportion(std::size_t n, const SplitRatios& ratios) {
  std::array<std::size_t, kSplits> counts{};
  std::array<double, kSplits> rest{};
  std::size_t given = 0;
  for (std::size_t s = 0; s < kSplits; ++s) {
    const double exact = ratios[s] * static_cast<double>(n);
    // 0.6 × 5 is slightly below 3 in binary and must count as 3.
    counts[s] = std::min(static_cast<std::size_t>(exact + 1e-6), n - given);
    given += counts[s];
    rest[s] = ratios[s] > 0 ? exact - static_cast<double>(counts[s]) : -1.0;
  }
  for (; given < n; ++given) {
    const auto most = static_cast<std::size_t>(std::ranges::max_element(rest) - rest.begin());
    ++counts[most];
    rest[most] -= 1.0;
  }
  return counts;
}

/// Videos that stay together, and the number of each label among them.
struct Component {
  std::vector<std::size_t> videos;
  std::map<std::uint8_t, double> labels;
};

std::vector<Component> components_of(std::span<const std::uint8_t> labels,
                                     std::span<const std::int32_t> groups) {
  std::vector<Component> components;
  std::unordered_map<std::int32_t, std::size_t> of_group;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    std::size_t index = components.size();
    if (groups[i] >= 0) index = of_group.try_emplace(groups[i], components.size()).first->second;
    if (index == components.size()) components.emplace_back();
    components[index].videos.push_back(i);
    components[index].labels[labels[i]] += 1.0;
  }
  return components;
}

std::vector<Split> draw_whole_groups(std::span<const std::uint8_t> labels,
                                     std::span<const std::int32_t> groups, const SplitRatios& ratios,
                                     std::uint64_t seed) {
  const std::vector<Component> components = components_of(labels, groups);
  std::vector<std::size_t> order(components.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  engine::RandomStream(seed, engine::RandomPurpose::kSplit, 0).shuffle(order.begin(), order.end());
  std::ranges::stable_sort(order, std::greater(), [&](std::size_t i) { return components[i].videos.size(); });
  std::map<std::uint8_t, double> totals;
  for (const std::uint8_t label : labels) totals[label] += 1.0;
  std::map<std::uint8_t, std::array<double, kSplits>> placed;
  std::vector<Split> splits(labels.size());
  for (const std::size_t index : order) {
    // Choose the split that most reduces the squared distance to the target counts, summed over labels.
    std::size_t best = kSplits;
    double best_change = 0.0;
    for (std::size_t s = 0; s < kSplits; ++s) {
      if (ratios[s] <= 0) continue;
      double change = 0.0;
      for (const auto& [label, count] : components[index].labels)
        change += count * (2.0 * (placed[label][s] - ratios[s] * totals[label]) + count) / totals[label];
      if (best < kSplits && change >= best_change) continue;
      best = s;
      best_change = change;
    }
    for (const auto& [label, count] : components[index].labels) placed[label][best] += count;
    for (const std::size_t video : components[index].videos) splits[video] = static_cast<Split>(best);
  }
  return splits;
}

bool is_alnum(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0;
}

void add_once(std::vector<std::string>& found, std::string text) {
  if (!text.empty() && std::ranges::find(found, text) == found.end()) found.push_back(std::move(text));
}

/// Matches "id" followed by five or more digits, not inside a word.
std::vector<std::string> default_identities(std::string_view name) {
  std::vector<std::string> found;
  for (std::size_t at = name.find("id"); at != std::string_view::npos; at = name.find("id", at + 1)) {
    std::size_t end = at + 2;
    while (end < name.size() && name[end] >= '0' && name[end] <= '9') ++end;
    if (end - at >= 7 && (at == 0 || !is_alnum(name[at - 1])))
      add_once(found, std::string(name.substr(at, end - at)));
  }
  return found;
}

}  // namespace

std::optional<SplitRatios> SplitRatios::parse(std::string_view text) {
  SplitRatios ratios{};
  const char* at = text.data();
  const char* const end = text.data() + text.size();
  double sum = 0.0;
  for (std::size_t s = 0; s < kSplits; ++s) {
    const auto [stop, error] = std::from_chars(at, end, ratios[s]);
    const bool last = s + 1 == kSplits;
    const bool good = error == std::errc() && std::isfinite(ratios[s]) && ratios[s] >= 0 &&
                      (last ? stop == end : stop != end && *stop == ',');
    if (!good) return std::nullopt;
    sum += ratios[s];
    at = last ? stop : stop + 1;
  }
  if (std::abs(sum - 1.0) > 1e-6) return std::nullopt;
  return ratios;
}

std::string SplitRatios::text() const {
  return fmt::format("{}", fmt::join(*this, ","));
}

std::optional<GroupBy> GroupBy::parse(std::string_view text) {
  for (const Kind kind : {Kind::kNone, Kind::kIdentity})
    if (const GroupBy named{.kind = kind, .expression = {}}; named.text() == text) return named;
  return GroupBy{.kind = Kind::kExpression, .expression = std::string(text)};
}

std::string GroupBy::text() const {
  if (kind == Kind::kExpression) return expression;
  return kind == Kind::kNone ? "none" : "identity";
}

IdentityFinder::IdentityFinder() : find_in_(default_identities) {}

IdentityFinder::IdentityFinder(const std::string& expression) {
  constexpr std::size_t kMaxExpression = 256;  // std::regex recurses as deep as an expression is long
  if (expression.size() > kMaxExpression || !engine::is_utf8(expression)) {
    throw UsageError("--group_by '{}': an expression is UTF-8 of at most {} bytes",
                     engine::printable(expression), kMaxExpression);
  }
  try {
    find_in_ = [regex = std::regex(expression, std::regex::ECMAScript)](std::string_view name) {
      std::vector<std::string> found;
      using Iterator = std::regex_iterator<std::string_view::const_iterator>;
      for (Iterator match(name.begin(), name.end(), regex); match != Iterator(); ++match)
        add_once(found, match->str(match->size() > 1 ? 1 : 0));
      return found;
    };
  } catch (const std::regex_error& error) {
    throw UsageError("--group_by '{}' is neither none, nor identity, nor a regular expression: {}",
                     expression, error.what());
  }
}

std::vector<std::string> IdentityFinder::find(std::string_view id) const {
  return find_in_(id.substr(id.find('/') + 1));
}

std::vector<std::int32_t> identity_groups(std::span<const std::string> ids, const IdentityFinder& finder) {
  std::vector<std::size_t> parent(ids.size());
  std::iota(parent.begin(), parent.end(), std::size_t{0});
  const auto root = [&](std::size_t i) {
    while (parent[i] != i) i = parent[i] = parent[parent[i]];
    return i;
  };
  std::unordered_map<std::string, std::size_t> first_with;
  std::vector<bool> known(ids.size(), false);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    for (std::string& identity : finder.find(ids[i])) {
      known[i] = true;
      const std::size_t other = first_with.try_emplace(std::move(identity), i).first->second;
      const std::size_t a = root(i);
      const std::size_t b = root(other);
      parent[std::max(a, b)] = std::min(a, b);
    }
  }
  std::vector<std::int32_t> groups(ids.size(), -1);
  std::int32_t count = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (!known[i]) continue;
    const std::size_t r = root(i);  // the first video of its component, so numbered before i
    groups[i] = r == i ? count++ : groups[r];
  }
  return groups;
}

std::vector<Split> draw_splits(std::span<const std::uint8_t> labels, std::span<const std::int32_t> groups,
                               const SplitRatios& ratios, std::uint64_t seed) {
  VOCA_CHECK(groups.empty() || groups.size() == labels.size());
  if (!groups.empty()) return draw_whole_groups(labels, groups, ratios, seed);
  std::map<std::uint8_t, std::vector<std::size_t>> by_label;
  for (std::size_t i = 0; i < labels.size(); ++i) by_label[labels[i]].push_back(i);
  std::vector<Split> splits(labels.size());
  for (auto& [label, videos] : by_label) {
    engine::RandomStream(seed, engine::RandomPurpose::kSplit, std::uint64_t{label} + 1)
        .shuffle(videos.begin(), videos.end());
    const std::array<std::size_t, kSplits> counts = apportion(videos.size(), ratios);
    std::size_t next = 0;
    for (std::size_t s = 0; s < kSplits; ++s) {
      for (std::size_t i = 0; i < counts[s]; ++i) splits[videos[next++]] = static_cast<Split>(s);
    }
  }
  return splits;
}

std::string split_hash(std::span<const std::string> ids, std::span<const std::uint8_t> splits) {
  VOCA_CHECK(ids.size() == splits.size());
  engine::Sha256 digest;
  for (std::size_t i = 0; i < ids.size(); ++i) digest.update(fmt::format("{}\n{}\n", ids[i], splits[i]));
  return digest.finish();
}

}  // namespace voca::data
