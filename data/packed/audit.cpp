#include "data/packed/audit.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>

#include "engine/base/error.h"
#include "model/metrics/metrics.h"

namespace voca::data {

IdentityAudit audit_identities(std::span<const std::string> ids, std::span<const Split> splits,
                               const IdentityFinder& finder) {
  IdentityAudit result;
  std::map<std::string, std::array<std::int64_t, kSplits>> seen;
  std::vector<std::vector<std::string>> names(ids.size());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    names[i] = finder.find(ids[i]);
    if (names[i].empty()) ++result.videos_without;
    for (const std::string& name : names[i]) ++seen[name][static_cast<std::size_t>(splits[i])];
  }
  result.identities = static_cast<std::int64_t>(seen.size());
  for (const auto& [name, counts] : seen) {
    if (std::ranges::count_if(counts, [](std::int64_t n) { return n > 0; }) < 2) continue;
    ++result.crossing;
    if (result.examples.size() < 5) result.examples.push_back(name);
  }
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (splits[i] == Split::kTrain) continue;
    const bool in_train =
        std::ranges::any_of(names[i], [&](const std::string& name) { return seen[name][0] > 0; });
    if (in_train) ++result.crossing_videos;
  }
  return result;
}

namespace {

CopyAudit audit_copies(const AuditInput& input) {
  // 32-bit checksums alone collide among many videos; combined with both lengths they hardly do.
  const auto key = [&](std::size_t i) {
    return std::array<std::int64_t, 3>{input.checksums[i], input.frames[0][i], input.frames[1][i]};
  };
  std::map<std::array<std::int64_t, 3>, std::size_t> in_train;
  for (std::size_t i = 0; i < input.ids.size(); ++i)
    if (input.splits[i] == Split::kTrain) in_train.try_emplace(key(i), i);
  CopyAudit result;
  for (std::size_t i = 0; i < input.ids.size(); ++i) {
    const auto copy = input.splits[i] == Split::kTrain ? in_train.end() : in_train.find(key(i));
    if (copy == in_train.end()) continue;
    ++result.crossing_videos;
    if (result.examples.size() < 5)
      result.examples.push_back(fmt::format("{} and {}", input.ids[i], input.ids[copy->second]));
  }
  return result;
}

}  // namespace

std::optional<double> score_auc(std::span<const double> scores, std::span<const std::uint8_t> labels) {
  VOCA_CHECK(scores.size() == labels.size());
  std::vector<double> distinct(scores.begin(), scores.end());
  std::ranges::sort(distinct);
  distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
  // The AUC depends only on the order, so each score is replaced by its rank among the distinct scores, in
  // [0, 1).
  std::vector<double> ranks;
  std::vector<int> classes;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (labels[i] != kReal && labels[i] != kFake) continue;
    const auto rank = std::ranges::lower_bound(distinct, scores[i]) - distinct.begin();
    ranks.push_back(static_cast<double>(rank) / static_cast<double>(distinct.size()));
    classes.push_back(labels[i]);
  }
  return model::auc(model::roc_curve(ranks, classes));
}

DatasetAudit audit(const AuditInput& input, const IdentityFinder& finder) {
  DatasetAudit result;
  result.identities = audit_identities(input.ids, input.splits, finder);
  result.copies = audit_copies(input);
  for (const Stream stream : kStreams) {
    const std::span<const std::int64_t> frames = input.frames[stream];
    result.leaks.push_back({fmt::format("{} length", name_of(stream)),
                            score_auc(std::vector<double>(frames.begin(), frames.end()), input.labels)});
  }
  for (const Stream stream : kStreams) {
    result.leaks.push_back({fmt::format("{} energy of the first {} frames", name_of(stream), kLeadingFrames),
                            score_auc(input.energy[stream], input.labels)});
  }
  return result;
}

std::vector<std::string> audit_lines(const DatasetAudit& audit) {
  std::vector<std::string> lines;
  const IdentityAudit& identities = audit.identities;
  if (identities.identities == 0) {
    lines.emplace_back(
        "warning: no identities found in the names (as id00012 in id00012_clip3), so whether splits share "
        "people is unknown; --group_by REGEX finds them in other names");
  } else if (identities.crossing == 0) {
    lines.push_back(fmt::format("identities: {}, none in more than one split ({} videos without one)",
                                identities.identities, identities.videos_without));
  } else {
    lines.push_back(
        fmt::format("warning: {} of {} identities are in more than one split (as {}); {} val and test videos "
                    "show one that train has; --group_by identity keeps them apart",
                    identities.crossing, identities.identities, fmt::join(identities.examples, ", "),
                    identities.crossing_videos));
  }
  if (audit.copies.crossing_videos > 0) {
    lines.push_back(fmt::format(
        "warning: {} val and test videos have the very frames of a train video (as {}); keep one of each",
        audit.copies.crossing_videos, fmt::join(audit.copies.examples, ", ")));
  }
  for (const LeakAudit& leak : audit.leaks) {
    if (!leak.auc) {
      lines.push_back(fmt::format("{} alone: AUC undefined, there is one class only", leak.what));
      continue;
    }
    lines.push_back(fmt::format(
        "{}{} alone: AUC {:.4f} (real positive){}", leak.leaks() ? "warning: " : "", leak.what, *leak.auc,
        leak.leaks() ? "; it gives the label away without looking at the content" : ""));
  }
  return lines;
}

}  // namespace voca::data
