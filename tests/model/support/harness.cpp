#include "tests/model/support/harness.h"

#include <algorithm>

#include "engine/ops/ops.h"

namespace voca::model::testing {

using engine::DeviceKind;
using engine::Tensor;

ModelConfig model_config(const golden::Config& c) {
  return {.visual_dim = c.visual_dim,
          .audio_dim = c.audio_dim,
          .hidden = c.hidden,
          .num_layers = c.num_layers,
          .num_heads = c.num_heads,
          .seq_len = c.seq_len,
          .num_classes = c.num_classes,
          .dropout = 0,
          .cross_attention = engine::value_named<CrossAttention>(c.cross_attention).value(),
          .positional_encoding = engine::value_named<PositionalEncoding>(c.positional_encoding).value()};
}

LossConfig loss_config(const golden::Config& c) {
  return {.label_smoothing = c.label_smoothing,
          .pos_weight = c.pos_weight,
          .use_contrastive = c.use_contrastive,
          .contrastive_weight = c.contrastive_weight};
}

namespace {

template <typename T>
Tensor tensor_over(std::vector<T>& values, const engine::Shape& shape, const char* name) {
  return {.data = values.data(),
          .shape = shape,
          .dtype = engine::kDTypeOf<T>,
          .device = DeviceKind::kCpu,
          .name = name};
}

}  // namespace

template <typename T>
Network<T>::Network(const ModelConfig& config, const LossConfig& losses, std::int64_t batch_size, int threads,
                    Activations activations, std::span<const std::int64_t> rows_by_rank)
    : device_(engine::make_cpu_device(threads)),
      model_(make_crossmodal_transformer(config, losses, activations)),
      parameters_(std::make_unique<engine::ParameterStore>(model_->parameters(), engine::kDTypeOf<T>, true,
                                                           device_.get())),
      batch_size_(batch_size) {
  const std::int64_t largest =
      rows_by_rank.empty() ? batch_size : *std::max_element(rows_by_rank.begin(), rows_by_rank.end());
  const engine::Backend backend{.world_size = std::max(1, static_cast<int>(rows_by_rank.size()))};
  planned_bytes_ = std::max(plan_training(*model_, engine::kDTypeOf<T>, largest, backend).bytes,
                            plan_prediction(*model_, engine::kDTypeOf<T>, largest, backend).bytes);
  block_ = device_->allocate("activations", planned_bytes_);
  arena_ = std::make_unique<engine::Arena>(block_.data(), planned_bytes_, DeviceKind::kCpu);
  const auto size = [](const engine::Shape& shape) { return static_cast<std::size_t>(shape.elements()); };
  visual_.resize(size(signature().batch.inputs[0].of(batch_size)));
  audio_.resize(size(signature().batch.inputs[1].of(batch_size)));
  labels_.resize(static_cast<std::size_t>(batch_size));
  logits_.resize(size(signature().outputs[0].of(batch_size)));
  row_losses_.resize(static_cast<std::size_t>(batch_size));
  losses_.resize(signature().losses.size());
}

template <typename T>
Network<T> Network<T>::from(const golden::Golden& golden) {
  Network network(model_config(golden.config), loss_config(golden.config), golden.batch);
  const auto& specs = network.parameters().specs();
  if (specs.size() != golden.parameters.size())
    throw std::runtime_error("the golden file has other parameters");
  for (std::size_t id = 0; id < specs.size(); ++id) {
    if (specs[id].name != golden.parameters[id].name)
      throw std::runtime_error("parameter " + specs[id].name + " is registered where PyTorch registers " +
                               golden.parameters[id].name);
    const std::vector<float> values = golden.weights(golden.parameters[id]);
    const std::span<T> weight = network.weight(static_cast<int>(id));
    if (values.size() != weight.size())
      throw std::runtime_error("parameter " + specs[id].name + " has another size");
    std::copy(values.begin(), values.end(), weight.begin());
  }
  const auto fill = [](const auto& from, auto to) { std::copy(from.begin(), from.end(), to.begin()); };
  fill(golden.visual(), network.visual());
  fill(golden.audio(), network.audio());
  fill(golden.labels(), network.labels());
  return network;
}

template <typename T>
engine::Batch Network<T>::batch() {
  engine::Batch batch;
  batch.size = batch_size_;
  batch.inputs.push_back(tensor_over(visual_, signature().batch.inputs[0].of(batch_size_), "visual"));
  batch.inputs.push_back(tensor_over(audio_, signature().batch.inputs[1].of(batch_size_), "audio"));
  batch.targets.push_back(tensor_over(labels_, {batch_size_}, kLabel));
  return batch;
}

template <typename T>
engine::TensorList Network<T>::outputs() {
  engine::TensorList outputs;
  outputs.push_back(tensor_over(logits_, signature().outputs[0].of(batch_size_), kLogits));
  return outputs;
}

template <typename T>
std::vector<double> Network<T>::step(const engine::StepRandom& random, double gradient_scale,
                                     const Surroundings& surroundings) {
  engine::Context context{
      .arena = *arena_, .gradients = surroundings.gradients, .communicator = surroundings.communicator};
  engine::Batch rank_batch = batch();
  rank_batch.rows_by_rank = surroundings.rows_by_rank;
  engine::ops::fill(context, 0, parameters_->gradients());
  model_->forward_backward(context, *parameters_, rank_batch, random, {.factor = gradient_scale}, outputs(),
                           tensor_over(losses_, {static_cast<std::int64_t>(losses_.size())}, "losses"));
  return {losses_.begin(), losses_.end()};
}

template <typename T>
void Network<T>::predict() {
  engine::Context context{*arena_};
  model_->predict(context, *parameters_, batch(), outputs(),
                  tensor_over(row_losses_, {batch_size_}, "row losses"));
}

template class Network<float>;
template class Network<double>;

}  // namespace voca::model::testing
