#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "engine/base/error.h"
#include "engine/trainer/trainer_impl.h"

namespace voca::engine {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

double ratio(double numerator, double denominator) {
  return denominator > 0 ? numerator / denominator : std::nan("");
}

void check_splits(const TrainerConfig& config, const BatchSource& train, const BatchSource* val,
                  const Ranks& ranks) {
  if (train.batches_per_epoch() < 1)
    throw UsageError("--features_root: the training split is empty; pack with other --split_ratios");
  const std::int64_t mine = val == nullptr ? 0 : val->samples_per_epoch();
  const bool val_is_empty = sum_over_ranks(ranks, "validation samples", mine) < 1;
  if (!config.no_val && val_is_empty) refuse_empty_validation();
  VOCA_CHECK(!config.no_val || val == nullptr);
}

/// Ties keep the earlier checkpoint: false.
bool is_better(Better better, double value, double best) {
  return better == Better::kLower ? value < best : value > best;
}

void check_precision(DType compute_type, DeviceKind device) {
  const bool narrow = compute_type == DType::kBF16 || compute_type == DType::kF16;
  if (device == DeviceKind::kCpu && narrow)
    throw UsageError("--precision: the CPU trains in fp32 and fp64, not in {}", name_of(compute_type));
  if (device == DeviceKind::kCuda && compute_type == DType::kF64)
    throw UsageError("--precision: a GPU trains in fp32, bf16 and fp16, not in {}", name_of(compute_type));
}

/// Validates before any memory is allocated.
const TrainerConfig& checked(const TrainerConfig& config, const Task& task, const BatchSource& train,
                             const BatchSource* val, const Device& device, const Ranks& ranks) {
  validate(config);
  check_precision(config.compute_type, device.kind());
  check_splits(config, train, val, ranks);
  if (val != nullptr) static_cast<void>(task.selection(config.select_by));
  return config;
}

}  // namespace

Trainer::Impl::Impl(const TrainerConfig& trainer_config, const Model& trained, const Task& trained_for,
                    BatchSource& train_source, BatchSource* val, Device& device, TrainingObserver& told,
                    Ranks job)
    : config(checked(trainer_config, trained_for, train_source, val, device, job)),
      ranks(std::move(job)),
      model(trained),
      task(trained_for),
      train(train_source),
      observer(told),
      batches_per_epoch(train.batches_per_epoch()),
      steps_per_epoch((batches_per_epoch + config.grad_accum - 1) / config.grad_accum),
      schedule(schedule_options({})),
      workspace(model, memory_request(config, train, val, ranks.world_size()), device),
      optimizer(config.optimizer, workspace),
      steps(trained, train_source, workspace, optimizer, ranks) {
  if (val != nullptr) evaluator.emplace(model, *val, workspace, true, ranks);
  if (!config.checkpoint_folder.empty() && ranks.first())
    store.emplace(config.checkpoint_folder, config.keep);
  progress.sums = no_sums();
}

ScheduleOptions Trainer::Impl::schedule_options(const Extension& extension) const {
  return {.kind = config.schedule,
          .lr = config.lr,
          .epochs = config.epochs,
          .warmup_epochs = config.warmup_epochs,
          .steps_per_epoch = steps_per_epoch,
          .extension = extension};
}

void Trainer::Impl::queue_step() {
  if (steps.queued() == 0) timed_from = Clock::now();
  const std::int64_t batches = std::min(config.grad_accum, batches_per_epoch - progress.batch);
  steps.queue({.seed = config.seed,
               .epoch = progress.epoch,
               .step = progress.step + 1,
               .first_batch = progress.batch,
               .batches = batches,
               .epoch_batches = batches_per_epoch,
               .lr = schedule.at(progress.epoch, progress.batch / config.grad_accum)});
  progress.batch += batches;
  ++progress.step;
  saved = false;
  if (steps.bad_samples() > config.max_bad_samples) {
    throw DataError(
        "training: {} samples are damaged on all ranks together, more than --max_bad_samples {}; pack again",
        steps.bad_samples(), config.max_bad_samples);
  }
}

/// Number of steps left in flight when the next one is queued. 0 after a bad step: the next one may end the
/// run, and the parameter named in the error is in the gradients only until another step is queued.
std::size_t Trainer::Impl::steps_ahead() const {
  const bool waits = workspace.device().kind() == DeviceKind::kCpu || config.max_bad_steps == 1 ||
                     progress.bad_steps_in_a_row > 0;
  return waits ? 0 : StepRunner::kDepth - 1;
}

/// Accounts for the queued steps except the last `left_queued`.
void Trainer::Impl::settle(std::size_t left_queued) {
  while (steps.queued() > left_queued) {
    const StepNumbers numbers = steps.take();
    report(account(numbers), numbers);
  }
}

StepRecord Trainer::Impl::account(const StepNumbers& numbers) {
  const Clock::time_point now = Clock::now();
  const std::int64_t samples = numbers.sums.samples;
  EpochSums& epoch = progress.sums;
  progress.lr = numbers.place.lr;
  epoch.samples_seen += samples;
  epoch.seconds += std::chrono::duration<double>(now - timed_from).count();
  timed_from = now;
  if (numbers.bad()) {
    ++epoch.bad_steps;
    ++progress.bad_steps;
    ++progress.bad_steps_in_a_row;
  } else if (numbers.outcome == kernels::StepOutcome::kOverflow) {
    ++epoch.overflow_steps;
    ++progress.overflow_steps;
  } else if (samples > 0) {
    epoch.loss.add(1, numbers.sums.loss);
    epoch.grad_norm += numbers.norm;
    epoch.samples += samples;
    ++epoch.good_steps;
    progress.bad_steps_in_a_row = 0;
  }
  const std::int64_t last_batch = numbers.place.first_batch + numbers.place.batches;
  return {.epoch = numbers.place.epoch + 1,
          .step = numbers.place.step,
          .step_in_epoch = (last_batch + config.grad_accum - 1) / config.grad_accum,
          .steps_per_epoch = steps_per_epoch,
          .loss = numbers.sums.mean(),
          .lr = numbers.place.lr,
          .grad_norm = numbers.norm,
          .skipped = numbers.outcome != kernels::StepOutcome::kUpdated,
          .loss_scale = numbers.loss_scale,
          .bad_steps = progress.bad_steps,
          .overflow_steps = progress.overflow_steps,
          .bad_samples = steps.bad_samples(),
          .samples_per_s = ratio(static_cast<double>(epoch.samples_seen), epoch.seconds)};
}

void Trainer::Impl::report(const StepRecord& record, const StepNumbers& numbers) {
  observer.on_progress(record);
  if (record.skipped || (config.log_every > 0 && record.step % config.log_every == 0))
    observer.on_step(record);
  if (!numbers.bad()) return;
  if (progress.bad_steps_in_a_row >= config.max_bad_steps) give_up(record);
  observer.on_message(
      fmt::format("step {}: a gradient is not finite (norm {:.4g}, loss {:.4g}): skipped, {} in a row",
                  record.step, record.grad_norm, record.loss.total(), progress.bad_steps_in_a_row));
}

void Trainer::Impl::give_up(const StepRecord& record) const {
  const std::string parameter = first_non_finite_gradient(workspace.parameters());
  throw DataError(
      "training: {} steps in a row, the last of them step {}, were not finite (loss {}, gradient norm {}, "
      "first parameter without a finite gradient: {}); lower --lr or --max_grad_norm, or look at the data",
      progress.bad_steps_in_a_row, record.step, record.loss.total(), record.grad_norm,
      parameter.empty() ? "none" : parameter);
}

void Trainer::Impl::train_epoch() {
  if (epoch_is_trained() || at_max_steps()) return;
  train.start_epoch(progress.epoch, progress.batch);
  while (!epoch_is_trained() && !at_max_steps()) {
    queue_step();
    settle(steps_ahead());
    // After the epoch's last step, its record and best checkpoint come first: finish_epoch() saves the state.
    if (state_is_due_after_step() && !epoch_is_trained() && !at_max_steps()) save();
    stop_if_asked();
  }
  settle();
}

void Trainer::Impl::finish_epoch() {
  if (progress.sums.samples_seen == 0) {
    throw DataError(
        "training: no sample of epoch {} could be used, {} are damaged; copy or pack the data again",
        progress.epoch + 1, steps.bad_samples());
  }
  const Clock::time_point begin = Clock::now();
  EpochRecord record = epoch_record();
  const bool last = at_max_steps() || progress.epoch + 1 == total_epochs();
  if (evaluator && (last || (progress.epoch + 1) % config.eval_every == 0)) evaluate(record);
  record.seconds = progress.sums.seconds + seconds_since(begin);
  if (record.best) observer.on_best(trained_model());
  observer.on_epoch(record);
  ranks.meet("the end of an epoch");
  if (epoch_is_trained()) {
    ++progress.epoch;
    progress.batch = 0;
    progress.sums = no_sums();
  }
  progress.finished = last;
  saved = false;
  if (last || state_is_due_after_epoch()) save();
  if (!last) stop_if_asked();
}

EpochRecord Trainer::Impl::epoch_record() const {
  const EpochSums& sums = progress.sums;
  EpochRecord record;
  record.epoch = progress.epoch + 1;
  record.step = progress.step;
  record.loss = sums.loss.over(static_cast<double>(sums.samples));
  record.lr = progress.lr;
  record.grad_norm = ratio(sums.grad_norm, static_cast<double>(sums.good_steps));
  record.samples = sums.samples;
  record.bad_steps = sums.bad_steps;
  record.overflow_steps = sums.overflow_steps;
  record.bad_samples = steps.bad_samples();
  record.samples_per_s = ratio(static_cast<double>(sums.samples_seen), sums.seconds);
  return record;
}

void Trainer::Impl::evaluate(EpochRecord& record) {
  const Predictions* predictions = evaluator->run([&] { return own_stop_reason() != nullptr; });
  if (predictions == nullptr) interrupt();
  check_finite_outputs(*predictions, progress.epoch + 1);
  record.val = task.validate(*predictions);
  record.summary = {.epoch = progress.epoch + 1, .step = progress.step, .measures = {}};
  for (const MeasuredValue& measured : record.val)
    if (!measured.name.empty()) record.summary->measures[std::string(measured.name)] = measured.value;
  progress.last = record.summary;
  select(record);
}

void Trainer::Impl::select(EpochRecord& record) {
  const std::optional<double> value = record.summary->measure(config.select_by);
  if (!value || !std::isfinite(*value)) {
    observer.on_message(fmt::format("epoch {}: {} is not defined on the validation split: not selected",
                                    progress.epoch + 1, config.select_by));
    return;
  }
  const Better better = task.selection(config.select_by).better;
  if (progress.best && !is_better(better, *value, *progress.best->measure(config.select_by))) return;
  progress.best = record.summary;
  record.best = true;
}

/// Every rank continues from rank 0's state.
TrainingResult Trainer::Impl::run() {
  start_together();
  // A run that --max_steps ended within an epoch has already reported that partial epoch.
  const bool epoch_is_told = done() && progress.batch > 0;
  observer.on_start(progress.epoch + (epoch_is_told ? 1 : 0), progress.step);
  while (!done()) {
    train_epoch();
    finish_epoch();
  }
  observer.on_last(trained_model());
  ranks.meet("the end of the training");
  return {.epochs = progress.epoch,
          .last_epoch = trained_model().epoch,
          .step = progress.step,
          .bad_steps = progress.bad_steps,
          .overflow_steps = progress.overflow_steps,
          .best = progress.best,
          .last = progress.last};
}

TrainedModel Trainer::Impl::trained_model() const {
  const bool evaluated = progress.last && progress.last->step == progress.step;
  return {.parameters = workspace.parameters(),
          .optimizer_steps = optimizer.state().steps,
          .epoch = progress.batch == 0 ? progress.epoch : progress.epoch + 1,
          .step = progress.step,
          .lr = progress.lr,
          .val = evaluated ? progress.last : std::nullopt};
}

const char* Trainer::Impl::own_stop_reason() {
  if (stopped_by == nullptr && stop_reason) stopped_by = stop_reason();
  return stopped_by;
}

void Trainer::Impl::stop_if_asked() {
  if (any_rank(ranks, "whether to stop", own_stop_reason() != nullptr)) interrupt();
}

void Trainer::Impl::interrupt() {
  save();
  const char* const reason = stopped_by != nullptr ? stopped_by : "a signal to another rank";
  if (config.checkpoint_folder.empty()) {
    throw Interrupted("training: stopped by {} after step {}; nothing was saved: there is no --run_dir",
                      reason, progress.step);
  }
  throw Interrupted("training: stopped by {} after step {}; the state is in {}, continue with --resume auto",
                    reason, progress.step, config.checkpoint_folder.string());
}

MemoryRequest Trainer::memory_request(const TrainerConfig& config, const BatchSource& train,
                                      const BatchSource* val, int world_size) {
  return {.compute_type = config.compute_type,
          .train_batch = train.max_batch_size(),
          .eval_batch = val == nullptr ? 0 : val->max_batch_size(),
          .grad_accum = config.grad_accum,
          .world_size = world_size,
          .wide_sums = config.wide_sums};
}

Trainer::Trainer(const TrainerConfig& config, const Model& model, const Task& task, BatchSource& train,
                 BatchSource* val, Device& device, TrainingObserver& observer, Ranks ranks)
    : impl_(std::make_unique<Impl>(config, model, task, train, val, device, observer, std::move(ranks))) {}

Trainer::~Trainer() = default;

ParameterStore& Trainer::parameters() {
  return impl_->workspace.parameters();
}

Workspace& Trainer::workspace() {
  return impl_->workspace;
}

const std::optional<ValidationSummary>& Trainer::best() const {
  return impl_->progress.best;
}

void Trainer::forget_best() {
  impl_->progress.best.reset();
}

std::int64_t Trainer::epochs_done() const {
  return impl_->progress.epoch;
}

bool Trainer::finished() const {
  return impl_->done();
}

void Trainer::set_stop_reason(StopReason reason) {
  impl_->stop_reason = std::move(reason);
}

TrainingResult Trainer::run() {
  return impl_->run();
}

}  // namespace voca::engine
