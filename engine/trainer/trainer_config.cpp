#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string>

#include "engine/base/error.h"
#include "engine/trainer/trainer.h"
#include "model/metrics/measure_table.h"

namespace voca::engine {
namespace {

template <typename Predicate>
std::string names_of(Predicate&& predicate) {
  std::string names;
  for (const Selection& row : selections())
    if (predicate(row)) names += fmt::format("{}{}", names.empty() ? "" : ", ", row.name);
  return names;
}

}  // namespace

void validate(const TrainerConfig& config) {
  VOCA_CHECK(config.epochs >= 1 && config.extend_epochs >= 0 && config.max_steps >= 0);
  VOCA_CHECK(config.grad_accum >= 1 && config.max_bad_steps >= 1);
  VOCA_CHECK(config.eval_every >= 1 && config.log_every >= 0);
  VOCA_CHECK(config.checkpoint_every.count >= 0 && config.keep >= 1);
  VOCA_CHECK(config.optimizer.weight_decay >= 0 && config.optimizer.max_grad_norm >= 0);
  static_cast<void>(selection(config.select_by));
}

void refuse_empty_validation() {
  throw UsageError(
      "--features_root: the validation split is empty; pack with other --split_ratios, or pass --no_val to "
      "train without selecting a best checkpoint");
}

void check_selection(std::string_view select_by, std::int64_t outputs) {
  if (selection(select_by).is_of_classes || outputs == 1) return;
  throw UsageError("--select_by {}: is defined for two classes, the model has {}; use one of {}", select_by,
                   outputs, names_of([](const Selection& row) { return row.is_of_classes; }));
}

void check_selection(std::string_view select_by, std::int64_t outputs,
                     std::span<const std::int64_t> samples_of_class) {
  check_selection(select_by, outputs);
  if (std::all_of(samples_of_class.begin(), samples_of_class.end(), [](std::int64_t n) { return n == 0; }))
    refuse_empty_validation();
  if (!selection(select_by).needs_two_classes) return;
  const auto classes = std::count_if(samples_of_class.begin(), samples_of_class.end(),
                                     [](std::int64_t samples) { return samples > 0; });
  if (classes < 2) {
    throw UsageError(
        "--select_by {}: is not defined on a validation split of one class only; use one of {}, or another "
        "split",
        select_by, names_of([](const Selection& row) { return !row.needs_two_classes; }));
  }
}

std::optional<Interval> Interval::parse(std::string_view text) {
  Interval interval;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, interval.count);
  const std::string_view unit(rest, static_cast<std::size_t>(end - rest));
  interval.in_steps = unit == "steps";
  if (error != std::errc{} || interval.count < 0) return std::nullopt;
  if (!unit.empty() && unit != "epochs" && !interval.in_steps) return std::nullopt;
  return interval;
}

std::string Interval::text() const {
  return fmt::format("{}{}", count, in_steps ? "steps" : "epochs");
}

}  // namespace voca::engine
