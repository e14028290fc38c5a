#include "engine/trainer/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "engine/checkpoint/resume_state.h"
#include "engine/error.h"
#include "engine/host_tensor.h"
#include "engine/trainer/read_back.h"
#include "engine/trainer/training_state.h"

namespace voca::engine {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

double ratio(double numerator, double denominator) {
  return denominator > 0 ? numerator / denominator : std::nan("");
}

/// Sample-weighted sums of the losses of several batches, in double.
struct LossSums {
  LossValues loss;
  std::int64_t samples = 0;

  void add(const LossValues& mean, std::int64_t count) {
    const auto weight = static_cast<double>(count);
    loss.total += weight * mean.total;
    loss.classification += weight * mean.classification;
    loss.contrastive += weight * mean.contrastive;
    samples += count;
  }
  void add(const LossSums& other) {
    loss.total += other.loss.total;
    loss.classification += other.loss.classification;
    loss.contrastive += other.loss.contrastive;
    samples += other.samples;
  }
  [[nodiscard]] LossValues mean() const {
    const auto count = static_cast<double>(samples);
    return {ratio(loss.total, count), ratio(loss.classification, count), ratio(loss.contrastive, count)};
  }
  [[nodiscard]] bool finite() const {
    return std::isfinite(loss.total) && std::isfinite(loss.classification) && std::isfinite(loss.contrastive);
  }
};

void check_splits(const TrainerConfig& config, const BatchSource& train, const BatchSource* val) {
  if (train.batches_per_epoch() < 1)
    throw UsageError("--features_root: the training split is empty; pack with other --split_ratios");
  const bool val_is_empty = val == nullptr || val->samples_per_epoch() < 1;
  if (!config.no_val && val_is_empty) {
    throw UsageError(
        "--features_root: the validation split is empty; pack with other --split_ratios, or pass --no_val to "
        "train without selecting a best checkpoint");
  }
  VOCA_CHECK(!config.no_val || val == nullptr);
}

ScheduleOptions schedule_options(const TrainerConfig& config, std::int64_t steps_per_epoch) {
  return {.kind = config.schedule,
          .lr = config.lr,
          .epochs = config.epochs,
          .warmup_epochs = config.warmup_epochs,
          .steps_per_epoch = steps_per_epoch};
}

ValidationSummary summarise(const Metrics& metrics, std::optional<double> threshold) {
  ValidationSummary summary;
  summary.threshold = threshold;
  if (const auto* binary = std::get_if<BinaryMetrics>(&metrics)) {
    summary.loss = binary->loss;
    summary.acc = binary->at_half.acc;
    summary.auc = binary->auc;
    summary.ap = binary->ap_real;
  } else {
    const auto& classes = std::get<ClassMetrics>(metrics);
    summary.loss = classes.loss;
    summary.acc = classes.acc;
    summary.auc = classes.auc;
  }
  return summary;
}

/// Of equals the earlier stays: false.
bool is_better(SelectBy select_by, double value, double best) {
  return select_by == SelectBy::kLoss ? value < best : value > best;
}

/// Before any memory is taken.
const TrainerConfig& checked(const TrainerConfig& config, const Model& model, const BatchSource& train,
                             const BatchSource* val) {
  validate(config);
  check_splits(config, train, val);
  if (val != nullptr) check_selection(config.select_by, model.outputs());
  return config;
}

}  // namespace

struct Trainer::Impl {
  Impl(const TrainerConfig& trainer_config, const Model& trained, BatchSource& train_source, BatchSource* val,
       Device& device, TrainingObserver& told)
      : config(checked(trainer_config, trained, train_source, val)),
        model(trained),
        train(train_source),
        observer(told),
        batches_per_epoch(train.batches_per_epoch()),
        steps_per_epoch((batches_per_epoch + config.grad_accum - 1) / config.grad_accum),
        schedule(schedule_options(config, steps_per_epoch)),
        workspace(model, memory_request(config, train, val), device),
        optimizer(config.optimizer, workspace) {
    if (val != nullptr) evaluator.emplace(model, *val, workspace, true);
    if (!config.checkpoint_folder.empty()) store.emplace(config.checkpoint_folder, config.keep);
  }

  TrainingResult run();

  // One step, from the batches to the updated weights.
  StepRecord step();
  LossSums micro_batch(std::int64_t batch_in_epoch, double gradient_scale);
  StepRecord account(const LossSums& sums, double norm, bool good, double lr, double seconds);
  void report(const StepRecord& record);
  [[noreturn]] void give_up(const StepRecord& record) const;

  // One epoch.
  void train_epoch();
  void finish_epoch();
  EpochRecord epoch_record() const;
  void evaluate(EpochRecord& record);
  void select(EpochRecord& record);

  // Where the run stands.
  bool at_max_steps() const { return config.max_steps > 0 && progress.step >= config.max_steps; }
  bool epoch_is_trained() const { return progress.batch == batches_per_epoch; }
  bool done() const {
    return progress.epoch == config.epochs || (at_max_steps() && (progress.finished || progress.batch == 0));
  }
  bool state_is_due_after_step() const {
    const Interval& every = config.checkpoint_every;
    return every.in_steps && every.count > 0 && progress.step % every.count == 0;
  }
  bool state_is_due_after_epoch() const {
    const Interval& every = config.checkpoint_every;
    return state_is_due_after_step() ||
           (!every.in_steps && every.count > 0 && progress.epoch % every.count == 0);
  }
  RunIdentity identity() const { return {config.config_hash, config.split_hash}; }
  TrainedModel trained_model() const;
  void save();
  void restore(const ResumeState& state);
  void stop_if_asked();
  [[noreturn]] void interrupt(const char* reason);

  TrainerConfig config;
  const Model& model;
  BatchSource& train;
  TrainingObserver& observer;
  std::int64_t batches_per_epoch;
  std::int64_t steps_per_epoch;
  Schedule schedule;
  Workspace workspace;
  Optimizer optimizer;
  std::optional<Evaluator> evaluator;
  std::optional<ResumeStore> store;
  StopReason stop_reason;
  Progress progress;
  bool saved = false;  ///< as it stands
};

// -- a step

StepRecord Trainer::Impl::step() {
  const Clock::time_point begin = Clock::now();
  const double lr = schedule.at(progress.epoch, progress.batch / config.grad_accum);
  const std::int64_t batches = std::min(config.grad_accum, batches_per_epoch - progress.batch);
  LossSums sums;
  optimizer.clear_gradients();
  for (std::int64_t i = 0; i < batches; ++i)
    sums.add(micro_batch(progress.batch + i, 1.0 / static_cast<double>(batches)));
  const double norm = optimizer.measure_norm();
  const bool good = std::isfinite(norm) && sums.finite();
  if (good && sums.samples > 0) optimizer.update(lr);  // without a sample nothing decays and nothing moves
  progress.batch += batches;
  ++progress.step;
  saved = false;
  return account(sums, norm, good, lr, seconds_since(begin));
}

LossSums Trainer::Impl::micro_batch(std::int64_t batch_in_epoch, double gradient_scale) {
  const Batch* batch = train.next();
  if (batch == nullptr) {
    throw InternalError("training: epoch {} ended after {} batches of {}", progress.epoch, batch_in_epoch,
                        batches_per_epoch);
  }
  LossSums sums;
  if (batch->size == 0) return sums;  // every sample of it was bad
  const StepRandom random{
      .seed = config.seed,
      .step = static_cast<std::uint32_t>(progress.epoch * batches_per_epoch + batch_in_epoch)};
  Context context = workspace.context();
  model.forward_backward(context, workspace.parameters(), *batch, random, gradient_scale,
                         workspace.logits(batch->size), workspace.losses());
  const HostTensor losses(workspace.device(), workspace.losses());
  sums.add({.total = read_back(losses.tensor(), kTotalLoss),
            .classification = read_back(losses.tensor(), kClassificationLoss),
            .contrastive = read_back(losses.tensor(), kContrastiveLoss)},
           batch->size);
  return sums;
}

StepRecord Trainer::Impl::account(const LossSums& sums, double norm, bool good, double lr, double seconds) {
  EpochSums& epoch = progress.sums;
  progress.lr = lr;
  epoch.samples_seen += sums.samples;
  epoch.seconds += seconds;
  if (!good) {
    ++epoch.bad_steps;
    ++progress.bad_steps;
    ++progress.bad_steps_in_a_row;
  } else if (sums.samples > 0) {
    epoch.loss.total += sums.loss.total;
    epoch.loss.classification += sums.loss.classification;
    epoch.loss.contrastive += sums.loss.contrastive;
    epoch.grad_norm += norm;
    epoch.samples += sums.samples;
    ++epoch.good_steps;
    progress.bad_steps_in_a_row = 0;
  }
  return {.epoch = progress.epoch,
          .step = progress.step,
          .step_in_epoch = (progress.batch + config.grad_accum - 1) / config.grad_accum,
          .steps_per_epoch = steps_per_epoch,
          .loss = sums.mean(),
          .lr = lr,
          .grad_norm = norm,
          .skipped = !good,
          .bad_steps = progress.bad_steps,
          .bad_samples = train.bad_samples(),
          .samples_per_s = ratio(static_cast<double>(epoch.samples_seen), epoch.seconds)};
}

void Trainer::Impl::report(const StepRecord& record) {
  observer.on_progress(record);
  if (record.skipped || (config.log_every > 0 && record.step % config.log_every == 0))
    observer.on_step(record);
  if (!record.skipped) return;
  if (progress.bad_steps_in_a_row >= config.max_bad_steps) give_up(record);
  observer.on_message(
      fmt::format("step {}: a gradient is not finite (norm {}, loss {}): skipped, {} in a row", record.step,
                  record.grad_norm, record.loss.total, progress.bad_steps_in_a_row));
}

void Trainer::Impl::give_up(const StepRecord& record) const {
  const std::string parameter = first_non_finite_gradient(workspace.parameters());
  throw DataError(
      "training: {} steps in a row, the last of them step {}, were not finite (loss {}, gradient norm {}, "
      "first parameter without a finite gradient: {}); lower --lr or --max_grad_norm, or look at the data",
      progress.bad_steps_in_a_row, record.step, record.loss.total, record.grad_norm,
      parameter.empty() ? "none" : parameter);
}

// -- an epoch

void Trainer::Impl::train_epoch() {
  if (epoch_is_trained() || at_max_steps()) return;
  train.start_epoch(progress.epoch, progress.batch);
  while (!epoch_is_trained() && !at_max_steps()) {
    report(step());
    // After the last step the epoch's line and best checkpoint come first: finish_epoch() saves.
    if (state_is_due_after_step() && !epoch_is_trained() && !at_max_steps()) save();
    stop_if_asked();
  }
}

void Trainer::Impl::finish_epoch() {
  const Clock::time_point begin = Clock::now();
  EpochRecord record = epoch_record();
  const bool last = at_max_steps() || progress.epoch + 1 == config.epochs;
  if (evaluator && (last || (progress.epoch + 1) % config.eval_every == 0)) evaluate(record);
  record.seconds = progress.sums.seconds + seconds_since(begin);
  if (record.best) observer.on_best(trained_model());
  observer.on_epoch(record);
  if (epoch_is_trained()) {
    ++progress.epoch;
    progress.batch = 0;
    progress.sums = {};
  }
  progress.finished = last;
  saved = false;
  if (last || state_is_due_after_epoch()) save();
  if (!last) stop_if_asked();
}

EpochRecord Trainer::Impl::epoch_record() const {
  const EpochSums& sums = progress.sums;
  const auto samples = static_cast<double>(sums.samples);
  EpochRecord record;
  record.epoch = progress.epoch;
  record.step = progress.step;
  record.loss = {.total = ratio(sums.loss.total, samples),
                 .classification = ratio(sums.loss.classification, samples),
                 .contrastive = ratio(sums.loss.contrastive, samples)};
  record.lr = progress.lr;
  record.grad_norm = ratio(sums.grad_norm, static_cast<double>(sums.good_steps));
  record.samples = sums.samples;
  record.bad_steps = sums.bad_steps;
  record.bad_samples = train.bad_samples();
  record.samples_per_s = ratio(static_cast<double>(sums.samples_seen), sums.seconds);
  return record;
}

void Trainer::Impl::evaluate(EpochRecord& record) {
  const char* reason = nullptr;
  const Predictions* predictions =
      evaluator->run([&] { return stop_reason && (reason = stop_reason()) != nullptr; });
  if (predictions == nullptr) interrupt(reason);
  const std::optional<double> threshold = fit_threshold(*predictions);
  record.val = measure(*predictions, threshold.value_or(0.5));
  record.summary = summarise(*record.val, threshold);
  record.summary->epoch = progress.epoch;
  record.summary->step = progress.step;
  progress.last = record.summary;
  select(record);
}

void Trainer::Impl::select(EpochRecord& record) {
  const std::optional<double> value = selection_value(config.select_by, *record.summary);
  if (!value || !std::isfinite(*value)) {
    observer.on_message(fmt::format("epoch {}: {} is not defined on the validation split: not selected",
                                    progress.epoch, name_of(config.select_by)));
    return;
  }
  if (progress.best &&
      !is_better(config.select_by, *value, *selection_value(config.select_by, *progress.best)))
    return;
  progress.best = record.summary;
  record.best = true;
}

// -- the run

TrainingResult Trainer::Impl::run() {
  // A run that --max_steps ended within an epoch has told of that part of it already.
  const bool epoch_is_told = done() && progress.batch > 0;
  observer.on_start(progress.epoch + (epoch_is_told ? 1 : 0), progress.step);
  while (!done()) {
    train_epoch();
    finish_epoch();
  }
  observer.on_last(trained_model());
  return {.epoch = progress.epoch,
          .step = progress.step,
          .bad_steps = progress.bad_steps,
          .best = progress.best,
          .last = progress.last};
}

TrainedModel Trainer::Impl::trained_model() const {
  const bool evaluated = progress.last && progress.last->step == progress.step;
  const std::int64_t last_epoch = progress.batch == 0 ? progress.epoch - 1 : progress.epoch;
  return {.parameters = workspace.parameters(),
          .optimizer_steps = optimizer.steps(),
          .epoch = std::max<std::int64_t>(last_epoch, 0),
          .step = progress.step,
          .lr = progress.lr,
          .val = evaluated ? progress.last : std::nullopt};
}

void Trainer::Impl::save() {
  if (!store || saved) return;
  Progress state = progress;
  state.optimizer_steps = optimizer.steps();
  store->save(state_header(state, identity()), state_sections(HostParameters(workspace.parameters())));
  saved = true;
}

void Trainer::Impl::restore(const ResumeState& state) {
  progress = restore_state(state, identity(), workspace.parameters());
  optimizer.set_steps(progress.optimizer_steps);
  observer.on_message(fmt::format("resumed {}: epoch {}, batch {} of {}, step {}", state.path.string(),
                                  progress.epoch, progress.batch, batches_per_epoch, progress.step));
}

void Trainer::Impl::stop_if_asked() {
  if (const char* reason = stop_reason ? stop_reason() : nullptr) interrupt(reason);
}

void Trainer::Impl::interrupt(const char* reason) {
  save();
  if (!store) {
    throw Interrupted("training: stopped by {} after step {}; nothing was saved: there is no --run_dir",
                      reason, progress.step);
  }
  throw Interrupted("training: stopped by {} after step {}; the state is in {}, continue with --resume auto",
                    reason, progress.step, store->folder().string());
}

// -- the class

MemoryRequest Trainer::memory_request(const TrainerConfig& config, const BatchSource& train,
                                      const BatchSource* val) {
  return {.compute_type = config.compute_type,
          .train_batch = train.max_batch_size(),
          .eval_batch = val == nullptr ? 0 : val->max_batch_size()};
}

Trainer::Trainer(TrainerConfig config, const Model& model, BatchSource& train, BatchSource* val,
                 Device& device, TrainingObserver& observer)
    : impl_(std::make_unique<Impl>(std::move(config), model, train, val, device, observer)) {}

Trainer::~Trainer() = default;

ParameterStore& Trainer::parameters() {
  return impl_->workspace.parameters();
}

Workspace& Trainer::workspace() {
  return impl_->workspace;
}

bool Trainer::resume_latest() {
  if (!impl_->store) return false;
  const FoundResumeState found = impl_->store->load();
  for (const std::string& message : found.messages) impl_->observer.on_message(message);
  if (!found.state) return false;
  impl_->restore(*found.state);
  return true;
}

void Trainer::resume_from(const std::filesystem::path& path) {
  if (!std::filesystem::is_directory(path)) return impl_->restore(read_resume_state(path));
  const FoundResumeState found = find_resume_state(path);
  for (const std::string& message : found.messages) impl_->observer.on_message(message);
  if (!found.state) throw DataError("--resume {}: the folder has no training state", path.string());
  impl_->restore(*found.state);
}

void Trainer::set_stop_reason(StopReason reason) {
  impl_->stop_reason = std::move(reason);
}

TrainingResult Trainer::run() {
  return impl_->run();
}

}  // namespace voca::engine
