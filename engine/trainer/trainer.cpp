#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "engine/base/error.h"
#include "engine/trainer/trainer.h"

namespace voca::engine {
namespace {

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
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

Trainer::Trainer(const TrainerConfig& config, const Model& model, const Task& task, BatchSource& train,
                 BatchSource* val, Device& device, TrainingObserver& observer, Ranks ranks)
    : config_(checked(config, task, train, val, device, ranks)),
      ranks_(std::move(ranks)),
      model_(model),
      task_(task),
      train_(train),
      observer_(observer),
      batches_per_epoch_(train.batches_per_epoch()),
      steps_per_epoch_((batches_per_epoch_ + config.grad_accum - 1) / config.grad_accum),
      schedule_(schedule_options({})),
      workspace_(model, memory_request(config, train, val, ranks_.world_size()), device),
      optimizer_(config.optimizer, workspace_),
      steps_(model, train, workspace_, optimizer_, ranks_) {
  if (val != nullptr) evaluator_.emplace(model, *val, workspace_, true, ranks_);
  if (!config.checkpoint_folder.empty() && ranks_.first())
    store_.emplace(config.checkpoint_folder, config.keep);
  progress_.sums = no_sums();
}

ScheduleOptions Trainer::schedule_options(const Extension& extension) const {
  return {.kind = config_.schedule,
          .lr = config_.lr,
          .epochs = config_.epochs,
          .warmup_epochs = config_.warmup_epochs,
          .steps_per_epoch = steps_per_epoch_,
          .extension = extension};
}

void Trainer::queue_step() {
  if (steps_.queued() == 0) timed_from_ = Clock::now();
  const std::int64_t batches = std::min(config_.grad_accum, batches_per_epoch_ - progress_.batch);
  steps_.queue({.seed = config_.seed,
                .epoch = progress_.epoch,
                .step = progress_.step + 1,
                .first_batch = progress_.batch,
                .batches = batches,
                .epoch_batches = batches_per_epoch_,
                .lr = schedule_.at(progress_.epoch, progress_.batch / config_.grad_accum)});
  progress_.batch += batches;
  ++progress_.step;
  saved_ = false;
  if (steps_.bad_samples() > config_.max_bad_samples) {
    throw DataError(
        "training: {} samples are damaged on all ranks together, more than --max_bad_samples {}; pack again",
        steps_.bad_samples(), config_.max_bad_samples);
  }
}

/// Number of steps left in flight when the next one is queued. 0 after a bad step: the next one may end the
/// run, and the parameter named in the error is in the gradients only until another step is queued.
std::size_t Trainer::steps_ahead() const {
  const bool waits = workspace_.device().kind() == DeviceKind::kCpu || config_.max_bad_steps == 1 ||
                     progress_.bad_steps_in_a_row > 0;
  return waits ? 0 : StepRunner::kDepth - 1;
}

/// Accounts for the queued steps except the last `left_queued`.
void Trainer::settle(std::size_t left_queued) {
  while (steps_.queued() > left_queued) {
    const StepNumbers numbers = steps_.take();
    report(account(numbers), numbers);
  }
}

StepRecord Trainer::account(const StepNumbers& numbers) {
  const Clock::time_point now = Clock::now();
  const std::int64_t samples = numbers.sums.samples;
  EpochSums& epoch = progress_.sums;
  progress_.lr = numbers.place.lr;
  epoch.samples_seen += samples;
  epoch.seconds += std::chrono::duration<double>(now - timed_from_).count();
  timed_from_ = now;
  if (numbers.bad()) {
    ++epoch.bad_steps;
    ++progress_.bad_steps;
    ++progress_.bad_steps_in_a_row;
  } else if (numbers.outcome == kernels::StepOutcome::kOverflow) {
    ++epoch.overflow_steps;
    ++progress_.overflow_steps;
  } else if (samples > 0) {
    epoch.loss.add(1, numbers.sums.loss);
    epoch.grad_norm += numbers.norm;
    epoch.samples += samples;
    ++epoch.good_steps;
    progress_.bad_steps_in_a_row = 0;
  }
  const std::int64_t last_batch = numbers.place.first_batch + numbers.place.batches;
  return {.epoch = numbers.place.epoch + 1,
          .step = numbers.place.step,
          .step_in_epoch = (last_batch + config_.grad_accum - 1) / config_.grad_accum,
          .steps_per_epoch = steps_per_epoch_,
          .loss = numbers.sums.mean(),
          .lr = numbers.place.lr,
          .grad_norm = numbers.norm,
          .skipped = numbers.outcome != kernels::StepOutcome::kUpdated,
          .loss_scale = numbers.loss_scale,
          .bad_steps = progress_.bad_steps,
          .overflow_steps = progress_.overflow_steps,
          .bad_samples = steps_.bad_samples(),
          .samples_per_s = ratio(static_cast<double>(epoch.samples_seen), epoch.seconds)};
}

void Trainer::report(const StepRecord& record, const StepNumbers& numbers) {
  observer_.on_progress(record);
  if (record.skipped || (config_.log_every > 0 && record.step % config_.log_every == 0))
    observer_.on_step(record);
  if (!numbers.bad()) return;
  if (progress_.bad_steps_in_a_row >= config_.max_bad_steps) give_up(record);
  observer_.on_message(
      fmt::format("step {}: a gradient is not finite (norm {:.4g}, loss {:.4g}): skipped, {} in a row",
                  record.step, record.grad_norm, record.loss.total(), progress_.bad_steps_in_a_row));
}

void Trainer::give_up(const StepRecord& record) const {
  const std::string parameter = first_non_finite_gradient(workspace_.parameters());
  throw DataError(
      "training: {} steps in a row, the last of them step {}, were not finite (loss {}, gradient norm {}, "
      "first parameter without a finite gradient: {}); lower --lr or --max_grad_norm, or look at the data",
      progress_.bad_steps_in_a_row, record.step, record.loss.total(), record.grad_norm,
      parameter.empty() ? "none" : parameter);
}

void Trainer::train_epoch() {
  if (epoch_is_trained() || at_max_steps()) return;
  train_.start_epoch(progress_.epoch, progress_.batch);
  while (!epoch_is_trained() && !at_max_steps()) {
    queue_step();
    settle(steps_ahead());
    // After the epoch's last step, its record and best checkpoint come first: finish_epoch() saves the state.
    if (state_is_due_after_step() && !epoch_is_trained() && !at_max_steps()) save();
    stop_if_asked();
  }
  settle();
}

void Trainer::finish_epoch() {
  if (progress_.sums.samples_seen == 0) {
    throw DataError(
        "training: no sample of epoch {} could be used, {} are damaged; copy or pack the data again",
        progress_.epoch + 1, steps_.bad_samples());
  }
  const Clock::time_point begin = Clock::now();
  EpochRecord record = epoch_record();
  const bool last = at_max_steps() || progress_.epoch + 1 == total_epochs();
  if (evaluator_ && (last || (progress_.epoch + 1) % config_.eval_every == 0)) evaluate(record);
  record.seconds = progress_.sums.seconds + seconds_since(begin);
  if (record.best) observer_.on_best(trained_model());
  observer_.on_epoch(record);
  ranks_.meet("the end of an epoch");
  if (epoch_is_trained()) {
    ++progress_.epoch;
    progress_.batch = 0;
    progress_.sums = no_sums();
  }
  progress_.finished = last;
  saved_ = false;
  if (last || state_is_due_after_epoch()) save();
  if (!last) stop_if_asked();
}

EpochRecord Trainer::epoch_record() const {
  const EpochSums& sums = progress_.sums;
  EpochRecord record;
  record.epoch = progress_.epoch + 1;
  record.step = progress_.step;
  record.loss = sums.loss.over(static_cast<double>(sums.samples));
  record.lr = progress_.lr;
  record.grad_norm = ratio(sums.grad_norm, static_cast<double>(sums.good_steps));
  record.samples = sums.samples;
  record.bad_steps = sums.bad_steps;
  record.overflow_steps = sums.overflow_steps;
  record.bad_samples = steps_.bad_samples();
  record.samples_per_s = ratio(static_cast<double>(sums.samples_seen), sums.seconds);
  return record;
}

void Trainer::evaluate(EpochRecord& record) {
  const Predictions* predictions = evaluator_->run([&] { return own_stop_reason() != nullptr; });
  if (predictions == nullptr) interrupt();
  check_finite_outputs(*predictions, progress_.epoch + 1);
  record.val = task_.validate(*predictions);
  record.summary = {.epoch = progress_.epoch + 1, .step = progress_.step, .measures = {}};
  for (const MeasuredValue& measured : record.val)
    if (!measured.name.empty()) record.summary->measures[std::string(measured.name)] = measured.value;
  progress_.last = record.summary;
  select(record);
}

void Trainer::select(EpochRecord& record) {
  const std::optional<double> value = record.summary->measure(config_.select_by);
  if (!value || !std::isfinite(*value)) {
    observer_.on_message(fmt::format("epoch {}: {} is not defined on the validation split: not selected",
                                     progress_.epoch + 1, config_.select_by));
    return;
  }
  const Better better = task_.selection(config_.select_by).better;
  if (progress_.best && !is_better(better, *value, *progress_.best->measure(config_.select_by))) return;
  progress_.best = record.summary;
  record.best = true;
}

/// Every rank continues from rank 0's state.
TrainingResult Trainer::run() {
  start_together();
  // A run that --max_steps ended within an epoch has already reported that partial epoch.
  const bool epoch_is_told = finished() && progress_.batch > 0;
  observer_.on_start(progress_.epoch + (epoch_is_told ? 1 : 0), progress_.step);
  while (!finished()) {
    train_epoch();
    finish_epoch();
  }
  observer_.on_last(trained_model());
  ranks_.meet("the end of the training");
  return {.epochs = progress_.epoch,
          .last_epoch = trained_model().epoch,
          .step = progress_.step,
          .bad_steps = progress_.bad_steps,
          .overflow_steps = progress_.overflow_steps,
          .best = progress_.best,
          .last = progress_.last};
}

TrainedModel Trainer::trained_model() const {
  const bool evaluated = progress_.last && progress_.last->step == progress_.step;
  return {.parameters = workspace_.parameters(),
          .optimizer_steps = optimizer_.state().steps,
          .epoch = progress_.batch == 0 ? progress_.epoch : progress_.epoch + 1,
          .step = progress_.step,
          .lr = progress_.lr,
          .val = evaluated ? progress_.last : std::nullopt};
}

const char* Trainer::own_stop_reason() {
  if (stopped_by_ == nullptr && stop_reason_) stopped_by_ = stop_reason_();
  return stopped_by_;
}

void Trainer::stop_if_asked() {
  if (any_rank(ranks_, "whether to stop", own_stop_reason() != nullptr)) interrupt();
}

void Trainer::interrupt() {
  save();
  const char* const reason = stopped_by_ != nullptr ? stopped_by_ : "a signal to another rank";
  if (config_.checkpoint_folder.empty()) {
    throw Interrupted("training: stopped by {} after step {}; nothing was saved: there is no --run_dir",
                      reason, progress_.step);
  }
  throw Interrupted("training: stopped by {} after step {}; the state is in {}, continue with --resume auto",
                    reason, progress_.step, config_.checkpoint_folder.string());
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

}  // namespace voca::engine
