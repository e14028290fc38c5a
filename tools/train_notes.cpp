#include "tools/train_notes.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/base/error.h"
#include "engine/trainer/schedule.h"

namespace voca::tools {
namespace {

/// Highest learning rate within the first --epochs, by the schedule that changes once per epoch.
double highest_lr(const TrainOptions& o) {
  const engine::Schedule schedule(
      {.lr = o.trainer.lr, .epochs = o.trainer.epochs, .warmup_epochs = o.trainer.warmup_epochs});
  return schedule.at(o.trainer.epochs - 1, 0);  // warm-up lasts to the end
}

/// The only class of the training split: "real", "fake" or "of class 2"; empty if it has several.
std::string only_class(const data::Dataset& dataset) {
  const std::vector<std::int64_t> samples = dataset.samples_of(data::Split::kTrain);
  if (samples.empty()) return {};
  const int first = dataset.label(samples.front());
  const bool one =
      std::ranges::all_of(samples, [&](std::int64_t sample) { return dataset.label(sample) == first; });
  if (!one) return {};
  if (first == data::kReal) return "real";
  return first == data::kFake ? "fake" : fmt::format("of class {}", first);
}

}  // namespace

std::vector<std::string> notes_on_run(const TrainOptions& o, const data::Dataset& dataset, int world_size) {
  std::vector<std::string> notes;
  const auto videos = static_cast<std::int64_t>(dataset.samples_of(data::Split::kTrain).size());
  const std::int64_t global_batch = o.batches.sampler.batch_size * world_size;
  if (const std::int64_t rest = videos % global_batch; videos > global_batch && rest > 0) {
    notes.push_back(
        fmt::format("note: each epoch leaves {} of {} training videos out, others each time: they do not "
                    "fill a batch of {}",
                    rest, videos, global_batch));
  }
  if (const std::string only = only_class(dataset); !only.empty()) {
    notes.push_back(fmt::format(
        "warning: all {} training videos are {}: a detector cannot learn from one class", videos, only));
  }
  const std::int64_t batches = std::max<std::int64_t>(videos / global_batch, 1);
  if (o.trainer.grad_accum > batches) {
    notes.push_back(
        fmt::format("note: --grad_accum {}: an epoch has {} batches only, and a step takes them all",
                    o.trainer.grad_accum, batches));
  }
  if (o.trainer.warmup_epochs >= o.trainer.epochs) {
    notes.push_back(
        fmt::format("note: --warmup_epochs {} takes all {} of --epochs: the learning rate reaches {:.3g}, "
                    "not --lr {:.3g}",
                    o.trainer.warmup_epochs, o.trainer.epochs, highest_lr(o), o.trainer.lr));
  }
  if (o.trainer.no_val && !o.save_last.empty() && !o.save_path.empty()) {  // only --config allows it
    notes.push_back(
        fmt::format("note: --save_path {} will not be written: with --no_val nothing is selected; the "
                    "checkpoint is --save_last {}",
                    o.save_path, o.save_last));
  }
  if (const std::string reason = why_untested(dataset); !reason.empty())
    notes.push_back(fmt::format("note: there will be no test: {}", reason));
  return notes;
}

void check_contrastive_batch(const TrainOptions& o, const data::Dataset& dataset, int world_size) {
  if (!o.losses.use_contrastive) return;
  const auto videos = static_cast<std::int64_t>(dataset.samples_of(data::Split::kTrain).size());
  if (videos == 0) return;  // reported elsewhere
  const bool global = o.losses.contrastive_scope == model::ContrastiveScope::kGlobal;
  const std::int64_t on_a_rank =
      std::min(o.batches.sampler.batch_size, std::max<std::int64_t>(videos / world_size, 1));
  if (on_a_rank * (global ? world_size : 1) > 1) return;
  throw engine::UsageError(
      "--use_contrastive: a batch of one video leaves InfoNCE no other to compare it with; use --batch_size "
      "2 or more (--grad_accum does not help){}",
      world_size > 1 ? " or --contrastive_scope global" : "");
}

std::string why_untested(const data::Dataset& dataset) {
  const std::vector<std::int64_t> samples = dataset.samples_of(data::Split::kTest);
  if (samples.empty()) return "the test split is empty";
  const auto unlabelled =
      std::ranges::count_if(samples, [&](std::int64_t sample) { return dataset.label(sample) < 0; });
  if (unlabelled == 0) return {};
  return fmt::format("{} of the {} videos of the test split have no label", unlabelled, samples.size());
}

}  // namespace voca::tools
