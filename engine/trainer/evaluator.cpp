#include "engine/trainer/evaluator.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/base/error.h"
#include "engine/core/element.h"
#include "engine/core/host_tensor.h"

namespace voca::engine {
namespace {

std::vector<PredictionColumn> columns_of(const std::vector<TensorSpec>& specs, std::size_t samples) {
  std::vector<PredictionColumn> columns;
  for (const TensorSpec& spec : specs) {
    columns.push_back({.name = spec.name, .width = spec.sample.elements(), .values = {}});
    columns.back().values.reserve(samples * static_cast<std::size_t>(columns.back().width));
  }
  return columns;
}

std::size_t width_of(const std::vector<TensorSpec>& specs) {
  std::size_t width = 0;
  for (const TensorSpec& spec : specs) width += static_cast<std::size_t>(spec.sample.elements());
  return width;
}

/// Numbers per sample that ranks exchange: its index, its loss, its outputs and targets.
std::size_t row_numbers(const ModelSignature& signature) {
  return 2 + width_of(signature.outputs) + width_of(signature.batch.targets);
}

Predictions empty_predictions(const ModelSignature& signature, std::size_t samples, bool losses) {
  Predictions predictions{.samples = {},
                          .outputs = columns_of(signature.outputs, samples),
                          .targets = columns_of(signature.batch.targets, samples),
                          .losses = {}};
  predictions.samples.reserve(samples);
  if (losses) predictions.losses.reserve(samples);
  return predictions;
}

/// Calls `visit` with the outputs' and the targets' columns of predictions of one model.
template <typename Visit, typename... P>
void for_each_column(const Visit& visit, P&... predictions) {
  const auto& first = std::get<0>(std::tie(predictions...));
  for (std::size_t c = 0; c < first.outputs.size(); ++c) visit(predictions.outputs[c]...);
  for (std::size_t c = 0; c < first.targets.size(); ++c) visit(predictions.targets[c]...);
}

/// Appends row `i` of `tensors` to `out`, which is advanced.
void put_row(const TensorList& tensors, std::int64_t i, double*& out) {
  for (const Tensor& tensor : tensors) {
    const std::int64_t width = tensor.elements() / tensor.shape[0];
    for (std::int64_t k = 0; k < width; ++k) *out++ = read_back(tensor, i * width + k);
  }
}

template <typename T>
void permute_rows(const std::vector<std::size_t>& order, std::size_t width, const std::vector<T>& from,
                  std::vector<T>& to) {
  to.clear();
  if (from.empty()) return;
  for (const std::size_t row : order)
    for (std::size_t column = 0; column < width; ++column) to.push_back(from[row * width + column]);
}

}  // namespace

void check_finite_outputs(const Predictions& validation, std::int64_t epoch) {
  std::int64_t bad = 0;
  std::size_t all = 0;
  for (const PredictionColumn& column : validation.outputs) {
    bad += std::count_if(column.values.begin(), column.values.end(),
                         [](double value) { return !std::isfinite(value); });
    all += column.values.size();
  }
  if (bad == 0) return;
  throw DataError(
      "training: after epoch {} {} of {} scores on the validation split are not finite: the run has "
      "diverged; lower --lr, or begin from other weights",
      epoch, bad, all);
}

Evaluator::Evaluator(const Model& model, BatchSource& source, Workspace& workspace, bool losses, Ranks ranks)
    : model_(model),
      source_(source),
      workspace_(workspace),
      with_losses_(losses),
      ranks_(std::move(ranks)),
      row_numbers_(row_numbers(model.signature())) {
  VOCA_CHECK(source.max_batch_size() <= workspace.request().eval_batch);
  const auto samples =
      static_cast<std::size_t>(sum_over_ranks(ranks_, "samples to evaluate", source.samples_per_epoch()));
  predictions_ = empty_predictions(model.signature(), samples, losses);
  sorted_ = empty_predictions(model.signature(), samples, losses);
  order_.reserve(samples);
  if (workspace.device().kind() == DeviceKind::kCpu) return;
  const std::int64_t batch = source.max_batch_size();
  const DType compute_type = workspace.request().compute_type;
  for (const std::vector<TensorSpec>* specs : {&model.signature().outputs, &model.signature().batch.targets})
    for (const TensorSpec& spec : *specs) host_.emplace_back(spec.bytes(batch, compute_type));
  host_.emplace_back(losses ? workspace.row_losses(batch).bytes() : 0);
}

std::size_t Evaluator::host_bytes(const ModelSignature& signature, std::int64_t samples,
                                  std::int64_t batch_size, int world_size) {
  const std::size_t row = row_numbers(signature) * sizeof(double);
  const std::size_t kept = static_cast<std::size_t>(samples) * (2 * row + sizeof(std::size_t));
  if (world_size == 1) return kept;
  return kept + static_cast<std::size_t>(batch_size) * row * static_cast<std::size_t>(2 + world_size);
}

const Predictions* Evaluator::run(const StopRequested& stop) {
  predictions_.samples.clear();
  predictions_.losses.clear();
  for_each_column([](PredictionColumn& column) { column.values.clear(); }, predictions_);
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
  model_.predict(context, workspace_.parameters(), batch, workspace_.outputs(batch.size),
                 with_losses_ ? workspace_.row_losses(batch.size) : Tensor{});
}

Tensor Evaluator::on_host(const Tensor& result, std::size_t buffer) {
  if (result.device == DeviceKind::kCpu) return result;
  std::vector<std::byte>& memory = host_[buffer];
  read_from(workspace_.device(), result, memory.data(), result.bytes());
  Tensor host = result;
  host.data = memory.data();
  host.device = DeviceKind::kCpu;
  return host;
}

Evaluator::BatchResults Evaluator::on_host(const Batch& batch) {
  BatchResults results;
  std::size_t buffer = 0;
  for (const Tensor& output : workspace_.outputs(batch.size))
    results.outputs.push_back(on_host(output, buffer++));
  for (const TensorSpec& spec : model_.signature().batch.targets)
    results.targets.push_back(on_host(batch.targets.at(spec.name), buffer++));
  if (with_losses_) results.losses = on_host(workspace_.row_losses(batch.size), buffer);
  return results;
}

void Evaluator::collect(const Batch& batch) {
  if (batch.size == 0) return;
  const BatchResults results = on_host(batch);
  predictions_.samples.insert(predictions_.samples.end(), batch.samples.begin(), batch.samples.end());
  for (std::int64_t i = 0; with_losses_ && i < batch.size; ++i)
    predictions_.losses.push_back(read_back(results.losses, i));
  const auto append = [](const TensorList& tensors, std::vector<PredictionColumn>& columns) {
    for (std::size_t c = 0; c < columns.size(); ++c)
      for (std::int64_t i = 0; i < tensors[c].elements(); ++i)
        columns[c].values.push_back(read_back(tensors[c], i));
  };
  append(results.outputs, predictions_.outputs);
  append(results.targets, predictions_.targets);
}

/// All-gathers the predictions of one round of batches; `batch` is null if this rank has no more. Returns
/// false when no rank has more.
bool Evaluator::exchange(bool stop, const Batch* batch, bool& stopped) {
  // Message of each rank: stop flag, whether it had a batch, the number of samples; then the samples' rows.
  constexpr std::size_t kHead = 3;
  const std::int64_t size = batch != nullptr ? batch->size : 0;
  const std::size_t length = kHead + static_cast<std::size_t>(source_.max_batch_size()) * row_numbers_;
  message_.assign(length, 0.0);
  message_[0] = stop ? 1 : 0;
  message_[1] = batch != nullptr ? 1 : 0;
  message_[2] = static_cast<double>(size);
  const BatchResults results = size > 0 ? on_host(*batch) : BatchResults{};
  double* out = &message_[kHead];
  for (std::int64_t i = 0; i < size; ++i) {
    *out++ = static_cast<double>(batch->samples[static_cast<std::size_t>(i)]);
    *out++ = with_losses_ ? read_back(results.losses, i) : 0.0;
    put_row(results.outputs, i, out);
    put_row(results.targets, i, out);
  }
  const std::vector<double> all = ranks_.main->all_gather_values("predictions", message_);
  bool more = false;
  for (std::size_t first = 0; first < all.size(); first += length) {
    stopped |= all[first] != 0;
    more |= all[first + 1] != 0;
    const double* in = &all[first + kHead];
    for (auto rows = static_cast<std::size_t>(all[first + 2]); rows > 0; --rows) {
      predictions_.samples.push_back(static_cast<std::int64_t>(*in++));
      if (with_losses_) predictions_.losses.push_back(*in);
      ++in;
      for_each_column(
          [&](PredictionColumn& column) {
            column.values.insert(column.values.end(), in, in + column.width);
            in += column.width;
          },
          predictions_);
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
    permute_rows(order_, 1, predictions_.losses, sorted_.losses);
    for_each_column(
        [&](const PredictionColumn& from, PredictionColumn& to) {
          permute_rows(order_, static_cast<std::size_t>(from.width), from.values, to.values);
        },
        predictions_, sorted_);
    result = &sorted_;
  }
  const auto twice = std::adjacent_find(result->samples.begin(), result->samples.end());
  if (twice != result->samples.end()) throw InternalError("evaluation: sample {} came twice", *twice);
  return *result;
}

}  // namespace voca::engine
