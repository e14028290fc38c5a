#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string>

#include "engine/base/error.h"
#include "engine/trainer/trainer.h"

namespace voca::engine {
namespace {

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

void refuse_empty_validation() {
  throw UsageError(
      "--features_root: the validation split is empty; pack with other --split_ratios, or pass --no_val to "
      "train without selecting a best checkpoint");
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
