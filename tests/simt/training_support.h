#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <set>

#include "data/batches/batch_source.h"
#include "data/packed/dataset.h"
#include "engine/core/device.h"
#include "engine/core/model.h"
#include "engine/trainer/trainer.h"
#include "model/config.h"
#include "tests/data/support/scratch.h"

// Small network and dataset for training runs on the tested device.

namespace voca::simt::host {

inline constexpr std::int64_t kSeqLen = 5;
inline constexpr std::int64_t kVisualDim = 12;
inline constexpr std::int64_t kAudioDim = 8;

/// Location of the frames: assembled on the host and copied, or resident on the device.
enum class Frames : std::uint8_t { kStaged, kPinned, kResident };

/// `videos` synthetic videos stored as `dtype` in scratch / "a.h5", 60 % for training and 40 % for
/// validation.
[[nodiscard]] std::shared_ptr<const data::Dataset> make_dataset(const data::testing::Scratch& scratch,
                                                                engine::DType dtype,
                                                                std::int64_t videos = 22);

/// Batches of one split on a device. In training, `batch_size` is per rank.
struct SourceSetup {
  Frames frames = Frames::kStaged;
  engine::DType compute_type = engine::DType::kF32;
  std::int64_t batch_size = 4;
  int rank = 0;
  int world_size = 1;
};
[[nodiscard]] data::BatchSourceOptions batch_options(bool training, const SourceSetup& setup = {});
[[nodiscard]] std::unique_ptr<engine::BatchSource> make_source(
    const std::shared_ptr<const data::Dataset>& dataset, data::Split split, engine::Device& device,
    const SourceSetup& setup);

/// Model that makes a gradient infinite, on the device, in some batches of the run (numbered by
/// StepRandom::step).
class Spoiled final : public engine::Model {
 public:
  Spoiled(std::unique_ptr<engine::Model> model, std::set<std::uint32_t> batches)
      : model_(std::move(model)), batches_(std::move(batches)) {}
  [[nodiscard]] const std::vector<engine::ParameterSpec>& parameters() const override {
    return model_->parameters();
  }
  [[nodiscard]] const engine::ModelSignature& signature() const override { return model_->signature(); }
  void forward_backward(engine::Context& context, const engine::ParameterStore& parameters,
                        const engine::Batch& batch, const engine::StepRandom& random,
                        const engine::GradientScale& gradient_scale, const engine::TensorList& outputs,
                        const engine::Tensor& losses) const override;
  void predict(engine::Context& context, const engine::ParameterStore& parameters, const engine::Batch& batch,
               const engine::TensorList& outputs, const engine::Tensor& row_losses) const override {
    model_->predict(context, parameters, batch, outputs, row_losses);
  }

  static constexpr engine::ParameterId kSpoiled = 2;

 private:
  std::unique_ptr<engine::Model> model_;
  std::set<std::uint32_t> batches_;
};

/// Options of a model with one layer of width 32 and both losses.
struct ModelSetup {
  std::set<std::uint32_t> spoiled{};
  model::ContrastiveScope scope = model::ContrastiveScope::kLocal;
  double dropout = 0.1;
};
[[nodiscard]] std::unique_ptr<engine::Model> make_model(const ModelSetup& setup = {});

/// Configuration of two epochs with two batches per step.
[[nodiscard]] engine::TrainerConfig two_epochs(engine::DType compute_type);

}  // namespace voca::simt::host
