#pragma once

#include <cstdint>
#include <string_view>

namespace voca::engine {

/// What the learning rate follows: constant within an epoch, or anew each step.
enum class ScheduleKind : std::uint8_t { kEpoch, kStep };

/// "epoch" or "step"; throws UsageError naming --schedule for anything else.
[[nodiscard]] ScheduleKind parse_schedule_kind(std::string_view text);
[[nodiscard]] std::string_view name_of(ScheduleKind kind);

/// Epochs that a finished run goes on for, [from, to), counted from 0; none where `to` is 0.
struct Extension {
  std::int64_t from = 0;
  std::int64_t to = 0;
};

struct ScheduleOptions {
  ScheduleKind kind = ScheduleKind::kEpoch;
  double lr = 3e-4;                  ///< the peak, reached when the warm-up ends
  double min_lr = 1e-6;              ///< what the cosine approaches
  std::int64_t epochs = 1;           ///< E
  std::int64_t warmup_epochs = 0;    ///< W; may exceed E: then every epoch warms up
  std::int64_t steps_per_epoch = 1;  ///< optimiser steps; read in the step form only
  Extension extension{};             ///< begins at E or later
};

/// Linear warm-up, then half a cosine (Loshchilov and Hutter 2017, without restarts). At position e of E, the
/// first W of them warming up:
///
///   e < W:  lr · (0.1 + 0.9 · e / W)
///   else:   min_lr + (lr − min_lr) · (1 + cos(π (e − W) / (E − W))) / 2
///
/// In the step form e, W and E are all counted in steps (W · steps_per_epoch of E · steps_per_epoch). From E
/// on the rate stays min_lr, but within an extension [F, G), which starts again at a tenth of the peak (a
/// warm restart of the same paper, from where the warm-up began):
///
///   F ≤ e < G:  min_lr + (lr / 10 − min_lr) · (1 + cos(π (e − F) / (G − F))) / 2
class Schedule {
 public:
  /// Throws UsageError naming the option that is out of range.
  explicit Schedule(const ScheduleOptions& options);

  /// The rate of step `step` (from 0, within its epoch) of epoch `epoch` (from 0).
  [[nodiscard]] double at(std::int64_t epoch, std::int64_t step) const;

 private:
  /// From `first` at position 0 down to min_lr at `length`.
  [[nodiscard]] double cosine(double first, std::int64_t position, std::int64_t length) const;

  ScheduleOptions options_;
};

}  // namespace voca::engine
