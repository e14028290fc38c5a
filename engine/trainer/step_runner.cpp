#include "engine/trainer/step_runner.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <numeric>
#include <utility>

#include "engine/base/error.h"
#include "engine/core/element.h"
#include "engine/ops/ops.h"

namespace voca::engine {

void LossSums::add(const LossValues& mean, std::int64_t count) {
  loss.add(static_cast<double>(count), mean);
  samples += count;
}

StepRunner::StepRunner(const Model& model, BatchSource& train, Workspace& workspace, Optimizer& optimizer,
                       const Ranks& ranks)
    : model_(model), train_(train), workspace_(workspace), optimizer_(optimizer), ranks_(ranks) {
  VOCA_CHECK(model.signature().losses.size() <= kMaxLosses);
  for (Slot& slot : slots_) {
    slot.samples.reserve(static_cast<std::size_t>(workspace.request().grad_accum));
    slot.losses = workspace.device().allocate_pinned("losses of a step", workspace.losses().bytes());
    slot.state = workspace.device().allocate_pinned("optimizer state", workspace.optimizer_state().bytes());
    slot.arrived = Device::Event(workspace.device());
  }
  rows_by_rank_.resize(static_cast<std::size_t>(ranks.world_size()));
  if (workspace.parameters().sums_apart()) sums_.emplace(workspace);
  if (ranks.alone()) return;
  const Tensor& gradients = workspace.parameters().gradient_sums();
  if (ranks.stream != nullptr) {
    buckets_.emplace(*ranks.gradients, gradients, *ranks.stream, workspace.context().stream, ranks.buckets);
  } else {
    buckets_.emplace(*ranks.gradients, gradients, ranks.buckets);
  }
}

void StepRunner::queue(const StepPlace& place) {
  VOCA_CHECK(queued_ < kDepth);
  Slot& slot = slots_[(first_ + queued_) % kDepth];
  ++queued_;
  slot.place = place;
  slot.samples.clear();
  for (std::int64_t i = 0; i < place.batches; ++i) {
    Batch batch = next_batch(place, place.first_batch + i);
    slot.samples.push_back(share(place.first_batch + i, batch));
    queue_batch(place, slot.samples, batch);
  }
  Device& device = workspace_.device();
  const Stream stream = workspace_.context().stream;
  device.copy_to_host(slot.losses.data(), workspace_.losses().data, slot.losses.bytes(), stream);
  device.copy_to_host(slot.state.data(), workspace_.optimizer_state().data, slot.state.bytes(), stream);
  slot.arrived.record(stream);
}

Batch StepRunner::next_batch(const StepPlace& place, std::int64_t batch_in_epoch) {
  ranks_.doing("waiting for a batch");
  const Batch* next = train_.next();
  if (next == nullptr) {
    throw InternalError("training: epoch {} ended after {} batches of {}", place.epoch, batch_in_epoch,
                        place.epoch_batches);
  }
  return *next;
}

/// Queues the work of one batch, the last of `samples`: forward and backward, preceded by the start of the
/// step if it is the first batch, and followed by the update if it is the last.
void StepRunner::queue_batch(const StepPlace& place, const std::vector<std::int64_t>& samples,
                             const Batch& batch) {
  const auto batch_in_step = static_cast<std::int64_t>(samples.size()) - 1;
  const bool first = batch_in_step == 0;
  const bool last = batch_in_step + 1 == place.batches;
  const bool used = samples.back() > 0;
  const bool any = std::any_of(samples.begin(), samples.end(), [](auto n) { return n > 0; });
  const auto work = [&] {
    if (first) optimizer_.start_step();
    if (used) forward_backward(place, samples, batch);
    if (!last || !any) return;  // without samples there is neither weight decay nor an update
    if (!ranks_.alone()) reduce();
    optimizer_.measure_norm();
    optimizer_.update(place.lr);
  };
  // With several ranks the host supervises collectives while they run, so the work is queued piece by piece.
  if (!ranks_.alone()) return work();
  const std::uint64_t parts = (first ? 1U : 0U) | (last ? 2U : 0U) | (used ? 4U : 0U) | (any ? 8U : 0U);
  workspace_.device().queue_together(static_cast<std::uint64_t>(batch.size) << 4U | parts,
                                     workspace_.context().stream, std::ref(work));  // allocates nothing
}

void StepRunner::forward_backward(const StepPlace& place, const std::vector<std::int64_t>& samples,
                                  const Batch& batch) {
  ranks_.doing("forward and backward");
  const auto batch_in_step = static_cast<std::int64_t>(samples.size()) - 1;
  const std::int64_t batch_in_epoch = place.first_batch + batch_in_step;
  const StepRandom random{
      .seed = place.seed,
      .step = static_cast<std::uint32_t>(place.epoch * place.epoch_batches + batch_in_epoch),
      .first_sample =
          std::accumulate(rows_by_rank_.begin(), rows_by_rank_.begin() + ranks_.rank(), std::int64_t{0})};
  Context context = workspace_.context();
  context.communicator = ranks_.main;
  if (buckets_ && batch_in_step + 1 == place.batches) context.gradients = &*buckets_;
  if (sums_) {
    const bool first = std::all_of(samples.begin(), samples.end() - 1, [](auto n) { return n == 0; });
    sums_->start_batch(first, context.gradients);
    context.gradients = &*sums_;
  }
  const double mine = static_cast<double>(batch.size) / static_cast<double>(samples.back());
  const Tensor losses = workspace_.losses(batch_in_step);
  model_.forward_backward(context, workspace_.parameters(), batch, random,
                          optimizer_.gradient_scale(mine / static_cast<double>(place.batches)),
                          workspace_.outputs(batch.size), losses);
  if (sums_) sums_->finish_batch();
  if (!ranks_.alone()) ops::weighted_sum(context, mine, losses, 0, {}, losses);
}

/// Runs once. If every rank has verified its samples, batch sizes follow from the sample order and no
/// per-batch all-gather is needed.
void StepRunner::agree_on_sizes() {
  if (std::exchange(sizes_are_agreed_on_, true) || ranks_.alone()) return;
  const auto batches = static_cast<std::size_t>(train_.batches_per_epoch());
  constexpr double kUnknown = -1;
  std::vector<double> mine(batches);
  for (std::size_t b = 0; b < batches; ++b) {
    const std::optional<std::int64_t> size = train_.size_of_batch(static_cast<std::int64_t>(b));
    mine[b] = size ? static_cast<double>(*size) : kUnknown;
  }
  ranks_.doing("agreeing on the batches");
  const std::vector<double> all = ranks_.main->all_gather_values("sizes of all batches", mine);
  if (std::find(all.begin(), all.end(), kUnknown) != all.end()) return;
  sizes_.resize(all.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    const std::size_t rank = i / batches;
    sizes_[i % batches * rows_by_rank_.size() + rank] = static_cast<std::int64_t>(all[i]);
  }
}

/// Sets `rows_by_rank` to each rank's part of the global batch. Returns the total number of samples, or 0 if
/// any rank has none, since a collective needs all ranks.
std::int64_t StepRunner::share(std::int64_t batch_in_epoch, Batch& batch) {
  agree_on_sizes();
  if (ranks_.alone()) {
    rows_by_rank_[0] = batch.size;
    bad_samples_ = train_.bad_samples();
    return batch.size;
  }
  if (sizes_.empty()) {
    ask_for_sizes(batch);
  } else {
    const auto first = sizes_.begin() + batch_in_epoch * ranks_.world_size();
    std::copy_n(first, rows_by_rank_.size(), rows_by_rank_.begin());
    VOCA_CHECK(rows_by_rank_[static_cast<std::size_t>(ranks_.rank())] == batch.size);
  }
  batch.rows_by_rank = rows_by_rank_;
  if (std::find(rows_by_rank_.begin(), rows_by_rank_.end(), 0) != rows_by_rank_.end()) return 0;
  return std::accumulate(rows_by_rank_.begin(), rows_by_rank_.end(), std::int64_t{0});
}

/// Needed because any rank may have skipped a bad sample.
void StepRunner::ask_for_sizes(const Batch& batch) {
  const std::array<double, 2> mine{static_cast<double>(batch.size),
                                   static_cast<double>(train_.bad_samples())};
  ranks_.doing("agreeing on a batch");
  const std::vector<double> all = ranks_.main->all_gather_values("sizes of a batch", mine);
  bad_samples_ = 0;
  for (std::size_t rank = 0; rank < rows_by_rank_.size(); ++rank) {
    rows_by_rank_[rank] = static_cast<std::int64_t>(all[2 * rank]);
    bad_samples_ += static_cast<std::int64_t>(all[2 * rank + 1]);
  }
}

/// All-reduces gradients and losses over the global batch.
void StepRunner::reduce() {
  ranks_.doing("summing gradients");
  buckets_->finish();
  ranks_.main->all_reduce_sum("losses", workspace_.losses(), workspace_.context().stream);
}

StepNumbers StepRunner::take() {
  VOCA_CHECK(queued_ > 0);
  const Slot& slot = slots_[first_];
  slot.arrived.synchronize();
  first_ = (first_ + 1) % kDepth;
  --queued_;
  StepNumbers numbers;
  numbers.place = slot.place;
  numbers.sums.loss.names = model_.signature().losses;
  kernels::OptimizerState state;
  std::memcpy(&state, slot.state.data(), sizeof state);
  numbers.loss_scale = static_cast<double>(state.loss_scale);
  for (std::size_t i = 0; i < slot.samples.size(); ++i) {
    if (slot.samples[i] > 0) numbers.sums.add(losses(slot, static_cast<std::int64_t>(i)), slot.samples[i]);
  }
  if (numbers.sums.samples > 0) {
    numbers.norm = state.norm;
    numbers.outcome = state.outcome;
  }
  return numbers;
}

LossValues StepRunner::losses(const Slot& slot, std::int64_t batch_in_step) const {
  Tensor all = workspace_.losses();
  all.data = slot.losses.data();
  all.device = DeviceKind::kCpu;
  const Tensor row = all.rows(batch_in_step, 1);
  LossValues values{.names = model_.signature().losses};
  for (std::size_t i = 0; i < values.names.size(); ++i)
    values.values[i] = read_back(row, static_cast<std::int64_t>(i));
  return values;
}

}  // namespace voca::engine
