#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/core/arena.h"
#include "engine/core/device.h"
#include "engine/core/model.h"
#include "engine/core/parameters.h"
#include "model/crossmodal_transformer.h"
#include "model/tasks/detection.h"
#include "tests/model/support/golden.h"

namespace voca::model::testing {

[[nodiscard]] ModelConfig model_config(const golden::Config& config);
[[nodiscard]] LossConfig loss_config(const golden::Config& config);

/// What a step has beside its batch when it is one of several ranks', or is listened to.
struct Surroundings {
  engine::GradientListener* gradients = nullptr;
  engine::Communicator* communicator = nullptr;
  std::span<const std::int64_t> rows_by_rank{};
};

/// A network with its memory and one batch, in one compute type, as the trainer would hold them.
template <typename T>
class Network {
 public:
  /// `rows_by_rank`: the batches of all ranks, this one's among them, where there are several.
  Network(const ModelConfig& config, const LossConfig& losses, std::int64_t batch_size, int threads = 1,
          Activations activations = Activations::kKeep, std::span<const std::int64_t> rows_by_rank = {});

  /// Weights and batch of a golden file.
  static Network from(const golden::Golden& golden);

  /// Forward and backward; gradients start from zero. Returns total, classification and contrastive loss.
  std::vector<double> step(const engine::StepRandom& random = {}, double gradient_scale = 1,
                           const Surroundings& surroundings = {});
  /// Forward without dropout; row losses into row_losses().
  void predict();

  [[nodiscard]] const engine::Model& model() const { return *model_; }
  [[nodiscard]] engine::ParameterStore& parameters() { return *parameters_; }
  [[nodiscard]] engine::Context context() { return engine::Context{*arena_}; }
  [[nodiscard]] std::span<T> logits() { return logits_; }
  [[nodiscard]] std::span<T> row_losses() { return row_losses_; }
  [[nodiscard]] std::span<T> visual() { return visual_; }
  [[nodiscard]] std::span<T> audio() { return audio_; }
  [[nodiscard]] std::span<std::int32_t> labels() { return labels_; }
  [[nodiscard]] std::span<T> weight(int id) { return span_of(parameters_->weight(id)); }
  [[nodiscard]] std::span<T> gradients() { return span_of(parameters_->gradients()); }
  [[nodiscard]] std::span<T> gradient(int id) { return span_of(parameters_->gradient(id)); }
  [[nodiscard]] const engine::Arena& arena() const { return *arena_; }
  [[nodiscard]] std::size_t planned_bytes() const { return planned_bytes_; }

 private:
  static std::span<T> span_of(engine::Tensor tensor) {
    return {tensor.as<T>(), static_cast<std::size_t>(tensor.elements())};
  }
  [[nodiscard]] const engine::ModelSignature& signature() const { return model_->signature(); }
  [[nodiscard]] engine::Batch batch();
  [[nodiscard]] engine::TensorList outputs();

  std::unique_ptr<engine::Device> device_;
  std::unique_ptr<engine::Model> model_;
  std::unique_ptr<engine::ParameterStore> parameters_;
  std::int64_t batch_size_;
  std::size_t planned_bytes_ = 0;
  engine::Device::Block block_;
  std::unique_ptr<engine::Arena> arena_;
  std::vector<T> visual_;
  std::vector<T> audio_;
  std::vector<std::int32_t> labels_;
  std::vector<T> logits_;
  std::vector<T> row_losses_;
  std::vector<T> losses_;
};

extern template class Network<float>;
extern template class Network<double>;

}  // namespace voca::model::testing
