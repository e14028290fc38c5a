#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "data/packed/pack.h"
#include "engine/base/json.h"
#include "engine/base/text.h"

namespace voca::data {
namespace {

constexpr std::size_t kNamed = 10;  // videos listed in a line; the JSON report has all

/// What a split lacks for its purpose; "" if nothing.
std::string split_warning(const PackReport& report, Split split) {
  const auto s = static_cast<std::size_t>(split);
  const auto& [real, fake, unknown] = report.counts[s];
  constexpr std::array kOfEmpty{"nothing can be trained on this file", "train then needs --no_val",
                                "eval and train have nothing to test on"};
  constexpr std::array kOfOneClass{"a detector cannot be trained on one class",
                                   "auc and ap are not defined on it", "auc and ap are not defined on it"};
  if (real + fake + unknown == 0) {
    const bool asked = report.form == TreeForm::kClassFolders && report.split_ratios[s] == 0;
    return fmt::format("warning: the {} split is empty{}; {}", name_of(split),
                       asked ? " (its share in --split_ratios is 0)" : "", kOfEmpty[s]);
  }
  if (real + fake == 0 || (real > 0 && fake > 0)) return "";
  return fmt::format("warning: the {} split has one class only ({} real, {} fake); {}", name_of(split), real,
                     fake, kOfOneClass[s]);
}

std::string group_warning(const PackReport& report) {
  if (2 * report.largest_group <= report.packed) return "";
  return fmt::format(
      "warning: {} of {} videos are one group, linked by the identities they share, so the splits cannot "
      "come near {}; --group_by REGEX with one identity a video (its first group) links fewer",
      report.largest_group, report.packed, fmt::join(report.split_ratios, ","));
}

std::string repeated_warning(const PackReport& report) {
  if (report.repeated.empty()) return "";
  const bool splits = report.form == TreeForm::kSplitFolders;
  std::string text = fmt::format("warning: in the tree twice, packed once{}:",
                                 splits ? " in the later of train, val and test" : "");
  for (std::size_t i = 0; i < std::min(report.repeated.size(), kNamed); ++i) {
    const RepeatedVideo& video = report.repeated[i];
    text += fmt::format("{} {} (kept as {}{}, {})", i == 0 ? "" : ",", video.id, video.kept,
                        splits ? fmt::format(" in {}", name_of(video.kept_split)) : "",
                        video.is_copy ? "the same name and content" : "the same files");
  }
  if (report.repeated.size() > kNamed) text += fmt::format(" and {} more", report.repeated.size() - kNamed);
  return text;
}

}  // namespace

std::vector<std::string> warnings(const PackReport& report) {
  std::vector<std::string> lines;
  if (report.form == TreeForm::kUnlabelled) {
    lines.emplace_back("a folder of videos without labels: predict takes it, train and eval do not");
  } else {
    for (const Split split : kAllSplits) lines.push_back(split_warning(report, split));
  }
  lines.push_back(group_warning(report));
  lines.push_back(repeated_warning(report));
  if (!report.ignored.empty()) {
    lines.push_back(
        fmt::format("passed over, being no part of the tree: {}", fmt::join(report.ignored, ", ")));
  }
  std::erase(lines, "");
  return lines;
}

std::map<BadVideoKind, std::int64_t> PackReport::bad_counts() const {
  std::map<BadVideoKind, std::int64_t> result;
  for (const BadVideo& video : bad) ++result[video.kind];
  return result;
}

std::string report_text(const PackReport& report) {
  std::string text = fmt::format("packed {} of {} videos ({}, visual {}, audio {})\n", report.packed,
                                 report.found, engine::name_of(report.dtype), report.dims[0], report.dims[1]);
  for (const Split split : kAllSplits) {
    if (report.form == TreeForm::kUnlabelled) break;
    const auto& of_label = report.counts[static_cast<std::size_t>(split)];
    text += fmt::format("{:<5} {} real, {} fake{}\n", name_of(split), of_label[0], of_label[1],
                        of_label[2] > 0 ? fmt::format(", {} of unknown label", of_label[2]) : "");
  }
  if (!report.frame_labels && report.without_frame_labels < report.packed) {
    text += fmt::format("frame labels left out: {} of the packed videos have none that can be used\n",
                        report.without_frame_labels);
  }
  for (const std::string& line : warnings(report)) text += line + '\n';
  // Without labels and splits nothing can leak.
  if (report.form != TreeForm::kUnlabelled)
    for (const std::string& line : audit_lines(report.audit)) text += line + '\n';
  if (report.bad.empty()) return text;
  text += fmt::format("left out {} video{}:", report.bad.size(), report.bad.size() == 1 ? "" : "s");
  for (const auto& [kind, count] : report.bad_counts())
    text += fmt::format(" {} × {};", count, name_of(kind));
  text.back() = '\n';
  // A longer list would push the rest of the report off the screen; report_json() has all of them.
  constexpr std::size_t kMaxListed = 20;
  for (std::size_t i = 0; i < std::min(report.bad.size(), kMaxListed); ++i) {
    const BadVideo& video = report.bad[i];
    text += fmt::format("  {}  [{}]  {}\n", engine::printable(video.id), name_of(video.kind),
                        engine::printable(video.message, video.message.size()));
  }
  if (report.bad.size() > kMaxListed)
    text += fmt::format("  and {} more, in the report\n", report.bad.size() - kMaxListed);
  return text;
}

std::string report_json(const PackReport& report) {
  using nlohmann::ordered_json;
  ordered_json json{{"found", report.found},
                    {"packed", report.packed},
                    {"dtype", engine::name_of(report.dtype)},
                    {"visual_dim", report.dims[0]},
                    {"audio_dim", report.dims[1]},
                    {"splits_from_folders", report.form == TreeForm::kSplitFolders},
                    {"labelled", report.form != TreeForm::kUnlabelled},
                    {"frame_labels", report.frame_labels},
                    {"bytes_read", report.bytes_read},
                    {"bytes_written", report.bytes_written},
                    {"content_hash", report.content_hash},
                    {"split_hash", report.split_hash}};
  for (const Split split : kAllSplits) {
    const auto& of_label = report.counts[static_cast<std::size_t>(split)];
    json["splits"][std::string(name_of(split))] = {
        {"real", of_label[0]}, {"fake", of_label[1]}, {"unknown", of_label[2]}};
  }
  const IdentityAudit& identities = report.audit.identities;
  json["identities"] = {{"found", identities.identities},
                        {"videos_without", identities.videos_without},
                        {"crossing", identities.crossing},
                        {"crossing_videos", identities.crossing_videos},
                        {"examples", identities.examples}};
  json["copies"] = {{"crossing_videos", report.audit.copies.crossing_videos},
                    {"examples", report.audit.copies.examples}};
  json["leaks"] = ordered_json::array();
  for (const LeakAudit& leak : report.audit.leaks) {
    json["leaks"].push_back({{"what", leak.what},
                             {"auc", leak.auc ? ordered_json(*leak.auc) : ordered_json(nullptr)},
                             {"warning", leak.leaks()}});
  }
  json["warnings"] = warnings(report);
  json["largest_group"] = report.largest_group;
  json["ignored"] = report.ignored;
  json["repeated"] = ordered_json::array();
  for (const RepeatedVideo& video : report.repeated) {
    json["repeated"].push_back(
        {{"id", video.id}, {"kept", video.kept}, {"same", video.is_copy ? "content" : "files"}});
  }
  json["bad_counts"] = ordered_json::object();
  for (const auto& [kind, count] : report.bad_counts())
    json["bad_counts"][std::string(name_of(kind))] = count;
  json["bad"] = ordered_json::array();
  for (const BadVideo& video : report.bad)
    json["bad"].push_back({{"id", video.id}, {"reason", name_of(video.kind)}, {"message", video.message}});
  return engine::json_text(json, 2);
}

}  // namespace voca::data
