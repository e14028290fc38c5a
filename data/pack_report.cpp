#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "data/pack.h"

namespace voca::data {

std::string_view name_of(BadVideoKind kind) {
  switch (kind) {
    case BadVideoKind::kMissingStream:
      return "stream missing";
    case BadVideoKind::kUnreadable:
      return "unreadable";
    case BadVideoKind::kDamaged:
      return "damaged or truncated file";
    case BadVideoKind::kChecksum:
      return "CRC error";
    case BadVideoKind::kNoEmbeddings:
      return "no embeddings";
    case BadVideoKind::kEmpty:
      return "empty array";
    case BadVideoKind::kShape:
      return "wrong shape";
    case BadVideoKind::kType:
      return "wrong type";
    case BadVideoKind::kNotFinite:
      return "NaN or infinity";
    case BadVideoKind::kOverflow:
      return "too large for the packed type";
    case BadVideoKind::kWidth:
      return "width differs";
    case BadVideoKind::kLengthMismatch:
      return "lengths far apart";
    case BadVideoKind::kFrameLabels:
      return "frame labels";
  }
  return "unknown";
}

std::map<BadVideoKind, std::int64_t> PackReport::bad_counts() const {
  std::map<BadVideoKind, std::int64_t> result;
  for (const BadVideo& video : bad) ++result[video.kind];
  return result;
}

std::string report_text(const PackReport& report) {
  std::string text =
      fmt::format("packed {} of {} videos ({}, visual {}, audio {})\n", report.packed, report.found,
                  engine::name_of(report.dtype), report.visual_dim, report.audio_dim);
  for (const Split split : kAllSplits) {
    const auto& of_label = report.counts[static_cast<std::size_t>(split)];
    text += fmt::format("{:<5} {} real, {} fake{}\n", name_of(split), of_label[0], of_label[1],
                        of_label[2] > 0 ? fmt::format(", {} of unknown label", of_label[2]) : "");
  }
  if (!report.frame_labels && report.without_frame_labels < report.packed) {
    text += fmt::format("frame labels left out: {} of the packed videos have none that can be used\n",
                        report.without_frame_labels);
  }
  for (const std::string& line : audit_lines(report.audit)) text += line + '\n';
  if (report.bad.empty()) return text;
  text += fmt::format("left out {} videos:", report.bad.size());
  for (const auto& [kind, count] : report.bad_counts())
    text += fmt::format(" {} × {};", count, name_of(kind));
  text.back() = '\n';
  for (const BadVideo& video : report.bad)
    text += fmt::format("  {}  [{}]  {}\n", video.id, name_of(video.kind), video.message);
  return text;
}

std::string report_json(const PackReport& report) {
  using nlohmann::ordered_json;
  ordered_json json{{"found", report.found},
                    {"packed", report.packed},
                    {"dtype", engine::name_of(report.dtype)},
                    {"visual_dim", report.visual_dim},
                    {"audio_dim", report.audio_dim},
                    {"splits_from_folders", report.splits_from_folders},
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
  json["leaks"] = ordered_json::array();
  for (const LeakAudit& leak : report.audit.leaks) {
    json["leaks"].push_back({{"what", leak.what},
                             {"auc", leak.auc ? ordered_json(*leak.auc) : ordered_json(nullptr)},
                             {"warning", leak.leaks()}});
  }
  json["bad_counts"] = ordered_json::object();
  for (const auto& [kind, count] : report.bad_counts())
    json["bad_counts"][std::string(name_of(kind))] = count;
  json["bad"] = ordered_json::array();
  for (const BadVideo& video : report.bad)
    json["bad"].push_back({{"id", video.id}, {"reason", name_of(video.kind)}, {"message", video.message}});
  // Names of folders need not be UTF-8; JSON must.
  return json.dump(2, ' ', false, ordered_json::error_handler_t::replace);
}

}  // namespace voca::data
