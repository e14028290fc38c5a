#include "model/metrics/measure_table.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "engine/base/error.h"

namespace voca::model {
namespace {

using Binary = BinaryMetrics;
using Classes = ClassMetrics;

std::optional<double> nearest(const Binary& m) {
  return m.eer ? std::optional(m.eer->nearest) : std::nullopt;
}

std::optional<double> interpolated(const Binary& m) {
  return m.eer ? std::optional(m.eer->interpolated) : std::nullopt;
}

constexpr std::array kBinary{
    Measure<Binary>{.name = "auc",
                    .label = "auc",
                    .record = "val_auc",
                    .select_by = "auc",
                    .needs_two_classes = true,
                    .value = [](const Binary& m) { return m.auc; }},
    Measure<Binary>{.name = "ap_real",
                    .label = "ap(real)",
                    .record = "val_ap_real",
                    .select_by = "ap",
                    .needs_two_classes = true,
                    .value = [](const Binary& m) { return m.ap_real; }},
    Measure<Binary>{.name = "ap_fake",
                    .label = "ap(fake)",
                    .record = "val_ap_fake",
                    .needs_two_classes = true,
                    .value = [](const Binary& m) { return m.ap_fake; }},
    Measure<Binary>{.name = "eer",
                    .label = "eer",
                    .record = "val_eer",
                    .better = Better::kLower,
                    .needs_two_classes = true,
                    .value = nearest},
    Measure<Binary>{.name = "eer_interpolated",
                    .better = Better::kLower,
                    .needs_two_classes = true,
                    .value = interpolated},
    Measure<Binary>{.name = "loss",
                    .label = "loss",
                    .record = "val_loss",
                    .select_by = "loss",
                    .better = Better::kLower,
                    .value = [](const Binary& m) { return m.loss; }},
    Measure<Binary>{.name = "tpr_at_fpr_1pct",
                    .label = "tpr at fpr 1%",
                    .needs_two_classes = true,
                    .value = [](const Binary& m) { return m.tpr_at_fpr_1pct; }},
    Measure<Binary>{.name = "tpr_at_fpr_01pct",
                    .label = "tpr at fpr 0.1%",
                    .needs_two_classes = true,
                    .value = [](const Binary& m) { return m.tpr_at_fpr_01pct; }},
    Measure<Binary>{.name = "ece",
                    .label = "ece",
                    .better = Better::kLower,
                    .value = [](const Binary& m) { return m.calibration.ece; }},
    Measure<Binary>{.name = "acc",
                    .record = "val_acc",
                    .select_by = "acc",
                    .value = [](const Binary& m) { return m.at_half.acc; }},
    Measure<Binary>{.name = "balanced_acc",
                    .record = "val_balanced_acc",
                    .needs_two_classes = true,
                    .value = [](const Binary& m) { return m.at_half.balanced_acc; }},
};

constexpr std::array kClasses{
    Measure<Classes>{.name = "acc",
                     .label = "acc",
                     .record = "val_acc",
                     .select_by = "acc",
                     .value = [](const Classes& m) { return m.acc; }},
    Measure<Classes>{.name = "balanced_acc",
                     .label = "balanced acc",
                     .record = "val_balanced_acc",
                     .value = [](const Classes& m) { return m.balanced_acc; }},
    Measure<Classes>{.name = "auc",
                     .label = "macro auc",
                     .record = "val_auc",
                     .select_by = "auc",
                     .needs_two_classes = true,
                     .value = [](const Classes& m) { return m.auc; }},
    Measure<Classes>{.name = "loss",
                     .label = "loss",
                     .record = "val_loss",
                     .select_by = "loss",
                     .better = Better::kLower,
                     .value = [](const Classes& m) { return m.loss; }},
};

std::vector<SelectingMeasure> selecting_rows() {
  std::vector<SelectingMeasure> rows;
  for (const Measure<Binary>& row : kBinary) {
    if (row.select_by.empty()) continue;
    const bool is_of_classes =
        std::any_of(kClasses.begin(), kClasses.end(),
                    [&](const Measure<Classes>& one) { return one.select_by == row.select_by; });
    rows.push_back({{row.select_by, row.better}, row.needs_two_classes, is_of_classes});
  }
  return rows;
}

}  // namespace

std::span<const Measure<BinaryMetrics>> measures_of(const BinaryMetrics& /*metrics*/) {
  return kBinary;
}

std::span<const Measure<ClassMetrics>> measures_of(const ClassMetrics& /*metrics*/) {
  return kClasses;
}

const std::vector<SelectingMeasure>& selections() {
  static const std::vector<SelectingMeasure> rows = selecting_rows();
  return rows;
}

const SelectingMeasure& selection(std::string_view name) {
  for (const SelectingMeasure& row : selections())
    if (row.name == name) return row;
  throw engine::UsageError("--select_by: \"{}\" is not one of {}", name, fmt::join(selection_names(), ", "));
}

std::vector<std::string_view> selection_names() {
  std::vector<std::string_view> names;
  for (const SelectingMeasure& row : selections()) names.push_back(row.name);
  return names;
}

}  // namespace voca::model
