#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <string>

#include "engine/base/error.h"
#include "engine/trainer/trainer.h"

namespace voca::engine {
namespace {

struct SelectName {
  SelectBy value;
  std::string_view name;
};
constexpr std::array<SelectName, 4> kSelectNames{
    {{SelectBy::kAuc, "auc"}, {SelectBy::kAcc, "acc"}, {SelectBy::kAp, "ap"}, {SelectBy::kLoss, "loss"}}};

void expect_at_least(const char* option, std::int64_t least, std::int64_t value) {
  if (value < least) throw UsageError("{}: is {}, must be at least {}", option, value, least);
}

void expect_not_negative(const char* option, double value) {
  if (!(value >= 0) || !std::isfinite(value))
    throw UsageError("{}: is {}, must be a number and not negative", option, value);
}

}  // namespace

void validate(const TrainerConfig& config) {
  expect_at_least("--epochs", 1, config.epochs);
  expect_at_least("--extend_epochs", 0, config.extend_epochs);
  expect_at_least("--max_steps", 0, config.max_steps);
  expect_at_least("--grad_accum", 1, config.grad_accum);
  expect_at_least("--max_bad_steps", 1, config.max_bad_steps);
  expect_at_least("--eval_every", 1, config.eval_every);
  expect_at_least("--log_every", 0, config.log_every);
  expect_at_least("--checkpoint_every", 0, config.checkpoint_every.count);
  expect_at_least("--keep", 1, config.keep);
  expect_not_negative("--weight_decay", config.optimizer.weight_decay);
  expect_not_negative("--max_grad_norm", config.optimizer.max_grad_norm);
}

SelectBy parse_select_by(std::string_view text) {
  for (const SelectName& entry : kSelectNames)
    if (entry.name == text) return entry.value;
  throw UsageError("--select_by: \"{}\" is not one of auc, acc, ap, loss", text);
}

std::string_view name_of(SelectBy select_by) {
  for (const SelectName& entry : kSelectNames)
    if (entry.value == select_by) return entry.name;
  throw InternalError("no such SelectBy: {}", static_cast<int>(select_by));
}

std::optional<double> selection_value(SelectBy select_by, const ValidationSummary& summary) {
  switch (select_by) {
    case SelectBy::kAuc:
      return summary.auc;
    case SelectBy::kAcc:
      return summary.acc;
    case SelectBy::kAp:
      return summary.ap;
    case SelectBy::kLoss:
      return summary.loss;
  }
  throw InternalError("no such SelectBy: {}", static_cast<int>(select_by));
}

void refuse_empty_validation() {
  throw UsageError(
      "--features_root: the validation split is empty; pack with other --split_ratios, or pass --no_val to "
      "train without selecting a best checkpoint");
}

void check_selection(SelectBy select_by, std::int64_t outputs) {
  if (select_by == SelectBy::kAp && outputs > 1) {
    throw UsageError("--select_by ap: is defined for two classes, the model has {}; use auc, acc or loss",
                     outputs);
  }
}

void check_selection(SelectBy select_by, std::int64_t outputs,
                     std::span<const std::int64_t> samples_of_class) {
  check_selection(select_by, outputs);
  if (std::all_of(samples_of_class.begin(), samples_of_class.end(), [](std::int64_t n) { return n == 0; }))
    refuse_empty_validation();
  if (select_by != SelectBy::kAuc && select_by != SelectBy::kAp) return;
  const auto classes = std::count_if(samples_of_class.begin(), samples_of_class.end(),
                                     [](std::int64_t samples) { return samples > 0; });
  if (classes < 2) {
    throw UsageError(
        "--select_by {}: is not defined on a validation split of one class only; use --select_by acc or "
        "loss, or another split",
        name_of(select_by));
  }
}

Interval parse_interval(std::string_view option, std::string_view text) {
  Interval interval;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, interval.count);
  const std::string_view unit(rest, static_cast<std::size_t>(end - rest));
  interval.in_steps = unit == "steps";
  if (error != std::errc{} || interval.count < 0 ||
      !(unit.empty() || unit == "epochs" || interval.in_steps)) {
    throw UsageError("{}: \"{}\" is not a number of epochs or steps, such as 2, 2epochs or 500steps", option,
                     text);
  }
  return interval;
}

}  // namespace voca::engine
