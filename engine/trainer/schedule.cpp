#include "engine/trainer/schedule.h"

#include <cmath>
#include <numbers>

#include "engine/base/error.h"

namespace voca::engine {
namespace {

/// Fraction of the peak at which a warm-up and an extension begin.
constexpr double kFirstShare = 0.1;

}  // namespace

Schedule::Schedule(const ScheduleOptions& options) : options_(options) {
  VOCA_CHECK(std::isfinite(options.lr) && options.lr > 0.0);
  VOCA_CHECK(options.epochs >= 1 && options.warmup_epochs >= 0);
  VOCA_CHECK(std::isfinite(options.min_lr) && options.min_lr >= 0.0);
  VOCA_CHECK(options.steps_per_epoch >= 1);
}

double Schedule::at(std::int64_t epoch, std::int64_t step) const {
  const bool by_step = options_.kind == ScheduleKind::kStep;
  const std::int64_t scale = by_step ? options_.steps_per_epoch : 1;
  const std::int64_t position = by_step ? epoch * scale + step : epoch;
  const std::int64_t from = options_.extension.from * scale;
  const std::int64_t to = options_.extension.to * scale;
  if (from <= position && position < to) return cosine(options_.lr * kFirstShare, position - from, to - from);
  const std::int64_t warmup = options_.warmup_epochs * scale;
  const std::int64_t total = options_.epochs * scale;
  if (position >= total) return options_.min_lr;
  if (position >= warmup) return cosine(options_.lr, position - warmup, total - warmup);
  return options_.lr *
         (kFirstShare + (1.0 - kFirstShare) * static_cast<double>(position) / static_cast<double>(warmup));
}

double Schedule::cosine(double first, std::int64_t position, std::int64_t length) const {
  const double progress = static_cast<double>(position) / static_cast<double>(length);
  return options_.min_lr + (first - options_.min_lr) * (1.0 + std::cos(std::numbers::pi * progress)) / 2.0;
}

}  // namespace voca::engine
