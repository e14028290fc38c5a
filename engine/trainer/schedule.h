#pragma once

#include <array>
#include <cstdint>

#include "engine/base/names.h"

namespace voca::engine {

/// Granularity of the learning rate: constant within an epoch, or updated each step.
enum class ScheduleKind : std::uint8_t { kEpoch, kStep };
constexpr auto names_of(ScheduleKind /*tag*/) {
  return std::to_array<Named<ScheduleKind>>({{"epoch", ScheduleKind::kEpoch}, {"step", ScheduleKind::kStep}});
}

/// Epochs [from, to), counted from 0, by which a finished run is extended; none if `to` is 0.
struct Extension {
  std::int64_t from = 0;
  std::int64_t to = 0;
};

struct ScheduleOptions {
  ScheduleKind kind = ScheduleKind::kEpoch;
  double lr = 3e-4;                  ///< peak, reached at the end of the warm-up
  double min_lr = 1e-6;              ///< limit of the cosine
  std::int64_t epochs = 1;           ///< E ≥ 1
  std::int64_t warmup_epochs = 0;    ///< W ≥ 0; may exceed E, in which case every epoch warms up
  std::int64_t steps_per_epoch = 1;  ///< optimiser steps; used by kStep only
  Extension extension{};             ///< begins at E or later
};

/// Linear warm-up, then half a cosine (Loshchilov and Hutter 2017, without restarts). At position e of E,
/// with W warm-up positions:
///
///   e < W:  lr · (0.1 + 0.9 · e / W)
///   else:   min_lr + (lr − min_lr) · (1 + cos(π (e − W) / (E − W))) / 2
///
/// For kStep e, W and E are counted in steps (W · steps_per_epoch of E · steps_per_epoch). From E on the rate
/// stays at min_lr, except within an extension [F, G), which restarts at a tenth of the peak (a warm restart
/// of the same paper, from where the warm-up began):
///
///   F ≤ e < G:  min_lr + (lr / 10 − min_lr) · (1 + cos(π (e − F) / (G − F))) / 2
class Schedule {
 public:
  explicit Schedule(const ScheduleOptions& options);

  /// Learning rate of step `step` (from 0, within its epoch) of epoch `epoch` (from 0).
  [[nodiscard]] double at(std::int64_t epoch, std::int64_t step) const;

 private:
  /// Half a cosine from `first` at position 0 down to min_lr at `length`.
  [[nodiscard]] double cosine(double first, std::int64_t position, std::int64_t length) const;

  ScheduleOptions options_;
};

}  // namespace voca::engine
