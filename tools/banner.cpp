#include "tools/banner.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <set>
#include <string_view>
#include <vector>

#include "data/packed/audit.h"
#include "engine/base/terminal.h"

namespace voca::tools {
namespace {

constexpr std::size_t kTextColumn = 8;

std::string thousands(std::int64_t number) {
  std::string text = std::to_string(number);
  for (std::size_t at = text.size(); at > 3; at -= 3) text.insert(at - 3, ",");
  return text;
}

std::string plural(std::int64_t number, const char* what) {
  return fmt::format("{} {}{}", thousands(number), what, number == 1 ? "" : "s");
}

/// The path, quoted for a shell if necessary.
std::string quoted(const std::filesystem::path& path) {
  std::string text = path.string();
  const auto plain = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
           std::string_view("/._-+=:@%,").find(c) != std::string_view::npos;
  };
  if (!text.empty() && std::ranges::all_of(text, plain)) return text;
  std::string result = "'";
  for (const char c : text) result += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return result + "'";
}

std::string batch_text(const BannerFacts& f) {
  std::string text = fmt::format("{} x {}", f.batch_size, plural(f.ranks, "rank"));
  if (f.grad_accum > 1) text += fmt::format(" x {} accumulated", f.grad_accum);
  const std::int64_t all = f.batch_size * f.ranks * f.grad_accum;
  return text + fmt::format(" = {}; {} an epoch, {} in all", plural(all, "video"),
                            plural(f.steps_per_epoch, "step"), thousands(f.steps));
}

std::string apart(std::int64_t all, std::int64_t crossing, std::string_view what) {
  if (crossing == 0) return fmt::format("all {} {} are apart", thousands(all), what);
  return fmt::format("{} of {} {} are in several splits", thousands(crossing), thousands(all), what);
}

/// Compares the groups stored in the file. The expression that made them is not run: it may come from a
/// stranger.
std::string groups_text(const data::Dataset& dataset) {
  std::map<std::int32_t, std::set<data::Split>> splits;
  for (std::int64_t sample = 0; sample < dataset.size(); ++sample)
    if (dataset.group(sample) >= 0) splits[dataset.group(sample)].insert(dataset.split(sample));
  const auto crossing =
      std::ranges::count_if(splits, [](const auto& group) { return group.second.size() > 1; });
  return apart(dataset.summary().groups, crossing, "groups");
}

}  // namespace

std::string identities_text(const data::Dataset& dataset) {
  const std::string& group_by = dataset.summary().group_by;
  const bool by_expression =
      !group_by.empty() && data::GroupBy::parse(group_by)->kind == data::GroupBy::Kind::kExpression;
  if (by_expression && dataset.summary().groups > 0) return groups_text(dataset);
  std::vector<data::Split> splits;
  for (std::int64_t sample = 0; sample < dataset.size(); ++sample) splits.push_back(dataset.split(sample));
  const data::IdentityAudit audit = data::audit_identities(dataset.ids(), splits, data::IdentityFinder());
  if (audit.identities == 0) return "no identities in the names";
  return apart(audit.identities, audit.crossing, "identities");
}

std::string banner(const BannerFacts& f, int columns) {
  const auto videos = [&](data::Split split) { return f.dataset->samples_of(split).size(); };
  const std::string data = fmt::format("{}: {} train, {} val, {} test; {}", f.dataset->path().string(),
                                       videos(data::Split::kTrain), videos(data::Split::kVal),
                                       videos(data::Split::kTest), identities_text(*f.dataset));
  std::string device = fmt::format("{}, {}; {}", f.device, f.precision, f.memory);
  if (!f.threads.empty()) device += "; threads: " + f.threads;
  if (f.time_follows) device += "; the expected time follows";
  std::string text;
  const auto add = [&](const char* what, const std::string& line) {
    if (!text.empty()) text += '\n';
    text += engine::wrapped(fmt::format("{:<{}}{}", what, kTextColumn, line), columns, kTextColumn);
  };
  add("run", fmt::format("{}; tensorboard --logdir {}", f.run_dir.string(), quoted(f.run_dir)));
  add("data", data);
  add("model", fmt::format("{}: {}", f.model, plural(f.parameters, "parameter")));
  add("batch", batch_text(f));
  add("device", device);
  return text;
}

}  // namespace voca::tools
