#include <fmt/format.h>

#include <charconv>
#include <string>

#include "engine/base/error.h"
#include "engine/trainer/trainer_config.h"

namespace voca::engine {

void validate(const TrainerConfig& config) {
  VOCA_CHECK(config.epochs >= 1 && config.extend_epochs >= 0 && config.max_steps >= 0);
  VOCA_CHECK(config.grad_accum >= 1 && config.max_bad_steps >= 1);
  VOCA_CHECK(config.eval_every >= 1 && config.log_every >= 0);
  VOCA_CHECK(config.checkpoint_every.count >= 0 && config.keep >= 1);
  VOCA_CHECK(config.optimizer.adamw.weight_decay >= 0 && config.optimizer.max_grad_norm >= 0);
}

void refuse_empty_validation() {
  throw UsageError(
      "--features_root: the validation split is empty; pack with other --split_ratios, or pass --no_val to "
      "train without selecting a best checkpoint");
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
