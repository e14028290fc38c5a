#include "tests/engine/support/toy.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "engine/ops/ops.h"
#include "model/tasks/detection.h"

namespace voca::engine::test {
namespace {

constexpr std::uint32_t kDropoutSite = 1;
constexpr std::array kLosses{"loss", "cls", "con"};

ParameterSpec uniform(std::string name, const Shape& shape, std::int64_t inputs, int backward_rank) {
  return {.name = std::move(name),
          .shape = shape,
          .initializer = {.kind = Initializer::Kind::kUniform,
                          .value = 1 / std::sqrt(static_cast<double>(inputs))},
          .backward_rank = backward_rank};
}

}  // namespace

ToyModel::ToyModel(std::int64_t outputs, double dropout)
    : parameters_{uniform("hidden.weight", {kHidden, kFeatures}, kFeatures, 2),
                  uniform("hidden.bias", {kHidden}, kFeatures, 3),
                  uniform("output.weight", {outputs, kHidden}, kHidden, 0),
                  uniform("output.bias", {outputs}, kHidden, 1)},
      signature_{
          .batch = {.inputs = {{"features", {kFeatures}, {}}}, .targets = {{model::kLabel, {}, DType::kI32}}},
          .outputs = {{model::kLogits, {outputs}, {}}},
          .losses = kLosses},
      outputs_(outputs),
      dropout_(dropout) {}

ToyModel::Activations ToyModel::forward(Context& context, const ParameterStore& parameters,
                                        const Batch& batch, const kernels::Dropout& dropout,
                                        const Tensor& logits) const {
  const DType dtype = parameters.compute_type();
  Activations result{.hidden = context.allocate("hidden", {batch.size, kHidden}, dtype),
                     .active = context.allocate("active", {batch.size, kHidden}, dtype)};
  ops::linear(context, batch.inputs.at("features"), parameters.weight(kHiddenWeight), {}, result.hidden);
  ops::gelu(context, result.hidden, parameters.weight(kHiddenBias), dropout, result.active);
  ops::linear(context, result.active, parameters.weight(kOutputWeight), parameters.weight(kOutputBias),
              logits);
  return result;
}

void ToyModel::cross_entropy(Context& context, const Tensor& logits, const Tensor& labels,
                             const GradientScale& grad, const Tensor& loss, const Tensor& row_losses,
                             const Tensor& dlogits) const {
  const ops::CrossEntropy args{.logits = logits,
                               .labels = labels,
                               .grad = grad,
                               .loss = loss,
                               .row_losses = row_losses,
                               .dlogits = dlogits};
  if (outputs_ == 1) {
    ops::binary_cross_entropy(context, args);
  } else {
    ops::softmax_cross_entropy(context, args);
  }
}

void ToyModel::forward_backward(Context& context, const ParameterStore& parameters, const Batch& batch,
                                const StepRandom& random, const GradientScale& gradient_scale,
                                const TensorList& outputs, const Tensor& losses) const {
  const ArenaScope scope(context.arena);
  const Tensor& logits = outputs.at(model::kLogits);
  const DType dtype = parameters.compute_type();
  const kernels::Dropout dropout = random.dropout(kDropoutSite, dropout_, kHidden);
  const Activations activations = forward(context, parameters, batch, dropout, logits);
  const Tensor dlogits = context.allocate("dlogits", {batch.size, outputs_}, dtype);
  const Tensor dactive = context.allocate("dactive", {batch.size, kHidden}, dtype);
  const Tensor dhidden = context.allocate("dhidden", {batch.size, kHidden}, dtype);
  cross_entropy(context, logits, batch.targets.at(model::kLabel), gradient_scale, losses.rows(0, 1), {},
                dlogits);
  ops::weighted_sum(context, 1, losses.rows(0, 1), 0, {}, losses.rows(1, 1));
  ops::fill(context, 0, losses.rows(2, 1));
  ops::linear_backward(context, {.dy = dlogits,
                                 .x = activations.active,
                                 .weight = parameters.weight(kOutputWeight),
                                 .dx = dactive,
                                 .dweight = parameters.gradient(kOutputWeight),
                                 .dbias = parameters.gradient(kOutputBias)});
  ops::gelu_backward(context, dactive, activations.hidden, parameters.weight(kHiddenBias), dropout, dhidden,
                     parameters.gradient(kHiddenBias));
  ops::linear_backward(context, {.dy = dhidden,
                                 .x = batch.inputs.at("features"),
                                 .weight = parameters.weight(kHiddenWeight),
                                 .dweight = parameters.gradient(kHiddenWeight)});
  if (after_backward && context.device() == DeviceKind::kCpu) after_backward(parameters, random, losses);
}

void ToyModel::predict(Context& context, const ParameterStore& parameters, const Batch& batch,
                       const TensorList& outputs, const Tensor& row_losses) const {
  const ArenaScope scope(context.arena);
  const Tensor& logits = outputs.at(model::kLogits);
  (void)forward(context, parameters, batch, {}, logits);
  if (!row_losses) return;
  const Tensor loss = context.allocate("loss", {1}, row_losses.dtype);
  cross_entropy(context, logits, batch.targets.at(model::kLabel), {}, loss, row_losses, {});
}

ToySource::ToySource(Options options) : options_(std::move(options)) {
  const auto samples = static_cast<std::size_t>(options_.samples);
  const auto most = static_cast<std::size_t>(options_.batch_size);
  for (std::int64_t sample = 0; sample < options_.samples; ++sample) {
    RandomStream random(options_.seed, RandomPurpose::kSynthetic, static_cast<std::uint64_t>(sample));
    double sum = 0;
    for (std::int64_t i = 0; i < ToyModel::kFeatures; ++i) {
      features_.push_back(random.normal());
      sum += features_.back();
    }
    // Mostly where the sum of the features says, so that there is something to learn and something to get
    // wrong.
    const auto by_sum =
        std::clamp<std::int64_t>(static_cast<std::int64_t>(std::floor(sum / 2 + 1)), 0, options_.classes - 1);
    const auto drawn = random.uniform() < 0.2 ? random.below(options_.classes) : by_sum;
    labels_.push_back(options_.label ? options_.label(sample) : static_cast<std::int32_t>(drawn));
  }
  order_.resize(samples);
  taken_.reserve(most);
  input_.resize(most * static_cast<std::size_t>(ToyModel::kFeatures) * size_of(options_.compute_type));
  batch_labels_.resize(most);
}

ToySource::Part ToySource::part(std::int64_t batch) const {
  const std::int64_t ranks = options_.world_size;
  const std::int64_t size = options_.batch_size;
  if (!options_.shuffle) {
    const std::int64_t begin = std::min((batch * ranks + options_.rank) * size, options_.samples);
    return {begin, std::min(begin + size, options_.samples)};
  }
  const std::int64_t first = batch * size;
  const std::int64_t count = std::min(size, options_.samples - first);
  return {first + count * options_.rank / ranks, first + count * (options_.rank + 1) / ranks};
}

std::int64_t ToySource::samples_per_epoch() const {
  std::int64_t count = 0;
  for (std::int64_t batch = 0; batch < batches_per_epoch(); ++batch)
    count += part(batch).end - part(batch).begin;
  return count;
}

std::int64_t ToySource::batches_per_epoch() const {
  const std::int64_t all = (options_.samples + options_.batch_size - 1) / options_.batch_size;
  if (options_.shuffle) return all;
  return (all + options_.world_size - 1 - options_.rank) / options_.world_size;
}

void ToySource::start_epoch(std::int64_t epoch, std::int64_t first_batch) {
  std::iota(order_.begin(), order_.end(), 0);
  RandomStream random(options_.seed, RandomPurpose::kPermutation, static_cast<std::uint64_t>(epoch));
  for (std::size_t i = order_.size(); options_.shuffle && i > 1; --i)
    std::swap(order_[i - 1], order_[static_cast<std::size_t>(random.below(static_cast<std::int64_t>(i)))]);
  next_ = first_batch;
}

template <typename T>
void ToySource::fill(const std::vector<std::int64_t>& samples) {
  T* out = reinterpret_cast<T*>(input_.data());
  for (std::size_t i = 0; i < samples.size(); ++i) {
    const auto* const row = &features_[static_cast<std::size_t>(samples[i] * ToyModel::kFeatures)];
    for (std::int64_t j = 0; j < ToyModel::kFeatures; ++j) *out++ = static_cast<T>(row[j]);
    batch_labels_[i] = label(samples[i]);
  }
}

const Batch* ToySource::next() {
  if (next_ >= ToySource::batches_per_epoch()) return nullptr;
  const auto [begin, end] = part(next_++);
  batch_ = {};
  batch_.first_position = begin;
  taken_.clear();
  for (std::int64_t place = begin; place < end; ++place) {
    const std::int64_t in_order = order_[static_cast<std::size_t>(place)];
    const std::int64_t sample = replace ? replace(place, in_order) : in_order;
    if (std::find(bad.begin(), bad.end(), sample) == bad.end()) taken_.push_back(sample);
  }
  if (options_.compute_type == DType::kF64) {
    fill<double>(taken_);
  } else {
    fill<float>(taken_);
  }
  batch_.size = static_cast<std::int64_t>(taken_.size());
  batch_.inputs.push_back({.data = input_.data(),
                           .shape = {batch_.size, ToyModel::kFeatures},
                           .dtype = options_.compute_type,
                           .device = DeviceKind::kCpu,
                           .name = "features"});
  batch_.targets.push_back({.data = batch_labels_.data(),
                            .shape = {batch_.size},
                            .dtype = DType::kI32,
                            .device = DeviceKind::kCpu,
                            .name = model::kLabel});
  batch_.samples = taken_;
  return &batch_;
}

}  // namespace voca::engine::test
