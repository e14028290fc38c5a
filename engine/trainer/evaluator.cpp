#include "engine/trainer/evaluator.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/base/error.h"
#include "engine/core/host_tensor.h"
#include "engine/trainer/read_back.h"

namespace voca::engine {
namespace {

double sigmoid(double logit) {
  const double e = std::exp(-std::abs(logit));
  return logit >= 0 ? 1 / (1 + e) : e / (1 + e);
}

void softmax(const double* logits, std::int64_t classes, double* out) {
  const double largest = *std::max_element(logits, logits + classes);
  double sum = 0;
  for (std::int64_t k = 0; k < classes; ++k) sum += out[k] = std::exp(logits[k] - largest);
  for (std::int64_t k = 0; k < classes; ++k) out[k] /= sum;
}

void check_measurable(const Predictions& predictions) {
  if (predictions.samples.empty()) {
    throw DataError(
        "evaluation: no sample of the split could be used, all are damaged; copy or pack the data again");
  }
  for (std::size_t i = 0; i < predictions.samples.size(); ++i) {
    if (predictions.labels[i] < 0) {
      throw DataError("evaluation: sample {} has no label; measures need the label of every sample",
                      predictions.samples[i]);
    }
  }
}

std::optional<double> mean(const std::vector<double>& values) {
  if (values.empty()) return std::nullopt;
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

template <typename T>
void permute_rows(const std::vector<std::size_t>& order, std::size_t width, const std::vector<T>& from,
                  std::vector<T>& to) {
  to.clear();
  if (from.empty()) return;
  for (const std::size_t row : order)
    for (std::size_t column = 0; column < width; ++column) to.push_back(from[row * width + column]);
}

void reserve(Predictions& predictions, std::size_t samples, bool losses) {
  predictions.samples.reserve(samples);
  predictions.labels.reserve(samples);
  predictions.logits.reserve(samples * static_cast<std::size_t>(predictions.outputs));
  if (losses) predictions.losses.reserve(samples);
}

}  // namespace

std::vector<double> probabilities(const Predictions& predictions) {
  std::vector<double> result(predictions.logits.size());
  if (predictions.outputs == 1) {
    std::transform(predictions.logits.begin(), predictions.logits.end(), result.begin(), sigmoid);
    return result;
  }
  const auto classes = static_cast<std::size_t>(predictions.outputs);
  for (std::size_t first = 0; first < result.size(); first += classes)
    softmax(&predictions.logits[first], predictions.outputs, &result[first]);
  return result;
}

Predictions average_logits(const std::vector<Predictions>& predictions) {
  VOCA_CHECK(!predictions.empty());
  Predictions average = predictions.front();
  average.losses.clear();
  for (std::size_t i = 1; i < predictions.size(); ++i) {
    const Predictions& other = predictions[i];
    if (other.outputs != average.outputs || other.samples != average.samples) {
      throw DataError(
          "ensemble: checkpoint 1 predicts {} samples of {} logits, checkpoint {} {} of {}; they must be of "
          "the same samples and classes",
          average.size(), average.outputs, i + 1, other.size(), other.outputs);
    }
    for (std::size_t j = 0; j < average.logits.size(); ++j) average.logits[j] += other.logits[j];
  }
  for (double& logit : average.logits) logit /= static_cast<double>(predictions.size());
  return average;
}

Metrics measure(const Predictions& predictions, double threshold) {
  check_measurable(predictions);
  const std::vector<double> probability = probabilities(predictions);
  if (predictions.outputs == 1) {
    BinaryMetrics metrics = binary_metrics(probability, predictions.labels, threshold);
    metrics.loss = mean(predictions.losses);
    return metrics;
  }
  ClassMetrics metrics =
      class_metrics(probability, predictions.labels, static_cast<int>(predictions.outputs));
  metrics.loss = mean(predictions.losses);
  return metrics;
}

void check_finite_scores(const Predictions& validation, std::int64_t epoch) {
  const auto bad = std::count_if(validation.logits.begin(), validation.logits.end(),
                                 [](double logit) { return !std::isfinite(logit); });
  if (bad == 0) return;
  throw DataError(
      "training: after epoch {} {} of {} scores on the validation split are not finite: the run has "
      "diverged; lower --lr, or begin from other weights",
      epoch, bad, validation.logits.size());
}

std::optional<double> fit_threshold(const Predictions& validation, const ThresholdRule& rule) {
  if (validation.outputs != 1) return std::nullopt;
  check_measurable(validation);
  return fit_threshold(roc_curve(probabilities(validation), validation.labels), rule);
}

Evaluator::Evaluator(const Model& model, BatchSource& source, Workspace& workspace, bool losses, Ranks ranks)
    : model_(model), source_(source), workspace_(workspace), with_losses_(losses), ranks_(std::move(ranks)) {
  VOCA_CHECK(source.max_batch_size() <= workspace.request().eval_batch);
  predictions_.outputs = sorted_.outputs = model.outputs();
  const auto samples =
      static_cast<std::size_t>(sum_over_ranks(ranks_, "samples to evaluate", source.samples_per_epoch()));
  reserve(predictions_, samples, losses);
  reserve(sorted_, samples, losses);
  order_.reserve(samples);
  if (workspace.device().kind() == DeviceKind::kCpu) return;
  const std::int64_t batch = source.max_batch_size();
  host_labels_.resize(static_cast<std::size_t>(batch) * sizeof(std::int32_t));
  host_logits_.resize(workspace.logits(batch).bytes());
  if (losses) host_losses_.resize(workspace.row_losses(batch).bytes());
}

std::size_t Evaluator::host_bytes(std::int64_t samples, std::int64_t outputs, std::int64_t batch_size,
                                  int world_size) {
  const auto logits = static_cast<std::size_t>(outputs);
  const std::size_t row = sizeof(std::int64_t) + sizeof(std::int32_t) + sizeof(double) * (logits + 1);
  const std::size_t kept = static_cast<std::size_t>(samples) * (2 * row + sizeof(std::size_t));
  if (world_size == 1) return kept;
  const std::size_t message = static_cast<std::size_t>(batch_size) * sizeof(double) * (3 + logits);
  return kept + message * static_cast<std::size_t>(2 + world_size);
}

const Predictions* Evaluator::run(const StopRequested& stop) {
  predictions_.samples.clear();
  predictions_.labels.clear();
  predictions_.logits.clear();
  predictions_.losses.clear();
  source_.start_epoch(0, 0);
  bool stopped = false;
  for (bool more = true; more;) {
    ranks_.doing("evaluating");
    const Batch* batch = source_.next();
    const bool stop_now = stop && stop();
    if (ranks_.alone() && stop_now) return nullptr;
    if (batch != nullptr && batch->size > 0) predict(*batch);
    if (ranks_.alone()) {
      more = batch != nullptr;
      if (more) collect(*batch);
    } else {
      more = exchange(stop_now, batch, stopped);
      if (stopped) return nullptr;
    }
  }
  // A source counts a bad sample once, however often it skips it.
  const std::int64_t bad = sum_over_ranks(ranks_, "bad samples", source_.bad_samples());
  const std::int64_t samples = sum_over_ranks(ranks_, "samples evaluated", source_.samples_per_epoch());
  if (predictions_.size() + bad != samples) {
    throw InternalError("evaluation: saw {} samples of {}, {} are bad", predictions_.size(), samples, bad);
  }
  return &in_order();
}

void Evaluator::predict(const Batch& batch) {
  Context context = workspace_.context();
  model_.predict(context, workspace_.parameters(), batch, workspace_.logits(batch.size),
                 with_losses_ ? workspace_.row_losses(batch.size) : Tensor{});
}

Tensor Evaluator::on_host(const Tensor& result, std::vector<std::byte>& memory) const {
  if (result.device == DeviceKind::kCpu) return result;
  read_from(workspace_.device(), result, memory.data(), result.bytes());
  Tensor host = result;
  host.data = memory.data();
  host.device = DeviceKind::kCpu;
  return host;
}

void Evaluator::collect(const Batch& batch) {
  if (batch.size == 0) return;
  const Tensor labels = on_host(batch.labels, host_labels_);
  const Tensor logits = on_host(workspace_.logits(batch.size), host_logits_);
  const Tensor losses = with_losses_ ? on_host(workspace_.row_losses(batch.size), host_losses_) : Tensor{};
  for (std::int64_t i = 0; i < batch.size; ++i) {
    predictions_.samples.push_back(batch.samples[static_cast<std::size_t>(i)]);
    predictions_.labels.push_back(labels.as<std::int32_t>()[i]);
    if (with_losses_) predictions_.losses.push_back(read_back(losses, i));
  }
  for (std::int64_t i = 0; i < logits.elements(); ++i) predictions_.logits.push_back(read_back(logits, i));
}

/// All-gathers the predictions of one round of batches; `batch` is null if this rank has no more. Returns
/// false when no rank has more.
bool Evaluator::exchange(bool stop, const Batch* batch, bool& stopped) {
  // Message of each rank: stop flag, whether it had a batch, the number of samples; then sample, label, loss
  // and logits of each.
  constexpr std::size_t kHead = 3;
  const auto outputs = static_cast<std::size_t>(predictions_.outputs);
  const std::size_t stride = 3 + outputs;
  const auto size = batch != nullptr ? static_cast<std::size_t>(batch->size) : 0;
  const std::size_t length = kHead + static_cast<std::size_t>(source_.max_batch_size()) * stride;
  message_.assign(length, 0.0);
  message_[0] = stop ? 1 : 0;
  message_[1] = batch != nullptr ? 1 : 0;
  message_[2] = static_cast<double>(size);
  Tensor labels;
  Tensor logits;
  Tensor losses;
  if (size > 0) {
    labels = on_host(batch->labels, host_labels_);
    logits = on_host(workspace_.logits(batch->size), host_logits_);
    if (with_losses_) losses = on_host(workspace_.row_losses(batch->size), host_losses_);
  }
  for (std::size_t i = 0; i < size; ++i) {
    const auto row = static_cast<std::int64_t>(i);
    double* out = &message_[kHead + i * stride];
    *out++ = static_cast<double>(batch->samples[i]);
    *out++ = labels.as<std::int32_t>()[i];
    *out++ = with_losses_ ? read_back(losses, row) : 0.0;
    for (std::size_t k = 0; k < outputs; ++k)
      *out++ = read_back(logits, static_cast<std::int64_t>(i * outputs + k));
  }
  const std::vector<double> all = ranks_.main->all_gather_values("predictions", message_);
  bool more = false;
  for (std::size_t first = 0; first < all.size(); first += length) {
    stopped |= all[first] != 0;
    more |= all[first + 1] != 0;
    const auto rows = static_cast<std::size_t>(all[first + 2]);
    for (std::size_t i = 0; i < rows; ++i) {
      const double* in = &all[first + kHead + i * stride];
      predictions_.samples.push_back(static_cast<std::int64_t>(in[0]));
      predictions_.labels.push_back(static_cast<std::int32_t>(in[1]));
      if (with_losses_) predictions_.losses.push_back(in[2]);
      predictions_.logits.insert(predictions_.logits.end(), in + 3, in + stride);
    }
  }
  return more;
}

const Predictions& Evaluator::in_order() {
  const std::vector<std::int64_t>& samples = predictions_.samples;
  const Predictions* result = &predictions_;
  if (!std::is_sorted(samples.begin(), samples.end())) {
    order_.resize(samples.size());
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    std::sort(order_.begin(), order_.end(),
              [&](std::size_t a, std::size_t b) { return samples[a] < samples[b]; });
    permute_rows(order_, 1, predictions_.samples, sorted_.samples);
    permute_rows(order_, 1, predictions_.labels, sorted_.labels);
    permute_rows(order_, 1, predictions_.losses, sorted_.losses);
    permute_rows(order_, static_cast<std::size_t>(predictions_.outputs), predictions_.logits, sorted_.logits);
    result = &sorted_;
  }
  const auto twice = std::adjacent_find(result->samples.begin(), result->samples.end());
  if (twice != result->samples.end()) throw InternalError("evaluation: sample {} came twice", *twice);
  return *result;
}

}  // namespace voca::engine
