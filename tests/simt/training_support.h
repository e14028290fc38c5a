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

// A small network and small data for whole trainings on the tested device.

namespace voca::simt::host {

inline constexpr std::int64_t kSeqLen = 5;
inline constexpr std::int64_t kVisualDim = 12;
inline constexpr std::int64_t kAudioDim = 8;

/// Where the frames lie: assembled on the host and copied, or held on the device.
enum class Frames : std::uint8_t { kStaged, kPinned, kResident };

/// `videos` synthetic videos stored as `dtype`, in scratch / "a.h5": three fifths to train on, the others to
/// validate on.
[[nodiscard]] std::shared_ptr<const data::Dataset> make_dataset(const data::testing::Scratch& scratch,
                                                                engine::DType dtype,
                                                                std::int64_t videos = 22);

/// The batches of one split on a device. In training the sampler's `batch_size` is that of a rank.
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

/// A model whose gradients of some batches of the run (numbered by StepRandom::step) are spoiled on the
/// device.
class Spoiled final : public engine::Model {
 public:
  Spoiled(std::unique_ptr<engine::Model> model, std::set<std::uint32_t> batches)
      : model_(std::move(model)), batches_(std::move(batches)) {}
  [[nodiscard]] const std::vector<engine::ParameterSpec>& parameters() const override {
    return model_->parameters();
  }
  [[nodiscard]] std::int64_t outputs() const override { return model_->outputs(); }
  [[nodiscard]] engine::Shape input_shape(int input, std::int64_t size) const override {
    return model_->input_shape(input, size);
  }
  void forward_backward(engine::Context& context, const engine::ParameterStore& parameters,
                        const engine::Batch& batch, const engine::StepRandom& random,
                        const engine::GradientScale& gradient_scale, const engine::Tensor& logits,
                        const engine::Tensor& losses) const override;
  void predict(engine::Context& context, const engine::ParameterStore& parameters, const engine::Batch& batch,
               const engine::Tensor& logits, const engine::Tensor& row_losses) const override {
    model_->predict(context, parameters, batch, logits, row_losses);
  }

  static constexpr engine::ParameterId kSpoiled = 2;

 private:
  std::unique_ptr<engine::Model> model_;
  std::set<std::uint32_t> batches_;
};

/// One layer, 32 wide, with both losses.
struct ModelSetup {
  std::set<std::uint32_t> spoiled{};
  model::ContrastiveScope scope = model::ContrastiveScope::kLocal;
  double dropout = 0.1;
};
[[nodiscard]] std::unique_ptr<engine::Model> make_model(const ModelSetup& setup = {});

/// Two epochs of steps of two batches.
[[nodiscard]] engine::TrainerConfig two_epochs(engine::DType compute_type);

}  // namespace voca::simt::host
