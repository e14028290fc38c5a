// A network with a target per frame, defined here alone: what a further network needs of the engine is its
// signature, its passes and its task.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "engine/base/error.h"
#include "engine/base/random.h"
#include "engine/ops/ops.h"
#include "engine/trainer/evaluator.h"
#include "engine/trainer/trainer.h"
#include "model/metrics/metrics.h"
#include "tests/engine/support/files.h"
#include "tests/engine/trainer/trainer_support.h"

namespace voca::model {
namespace {

using engine::Batch;
using engine::Context;
using engine::DType;
using engine::GradientScale;
using engine::ParameterStore;
using engine::StepRandom;
using engine::Tensor;
using engine::TensorList;
using engine::test::bits_of;
using engine::test::Recorder;
using engine::test::TemporaryFolder;
namespace ops = engine::ops;

constexpr std::int64_t kFrames = 6;
constexpr std::int64_t kWidth = 4;
constexpr std::array kLosses{"loss"};

/// Logistic regression of every frame: input "frames" (T, width), target "frame_label" (T), output
/// "frame_logit" (T).
class FrameNetwork final : public engine::Model {
 public:
  FrameNetwork() {
    const auto uniform = [](std::string name, const engine::Shape& shape, int rank) {
      return engine::ParameterSpec{.name = std::move(name),
                                   .shape = shape,
                                   .initializer = {.kind = engine::Initializer::Kind::kUniform, .value = 0.5},
                                   .backward_rank = rank};
    };
    parameters_ = {uniform("frame.weight", {1, kWidth}, 0), uniform("frame.bias", {1}, 1)};
    signature_ = {.batch = {.inputs = {{"frames", {kFrames, kWidth}, {}}},
                            .targets = {{"frame_label", {kFrames}, DType::kI32}}},
                  .outputs = {{"frame_logit", {kFrames}, {}}},
                  .losses = kLosses};
  }
  [[nodiscard]] const std::vector<engine::ParameterSpec>& parameters() const override { return parameters_; }
  [[nodiscard]] const engine::ModelSignature& signature() const override { return signature_; }

  void forward_backward(Context& context, const ParameterStore& parameters, const Batch& batch,
                        const StepRandom& /*random*/, const GradientScale& scale, const TensorList& outputs,
                        const Tensor& losses) const override {
    const engine::ArenaScope scope(context.arena);
    const std::int64_t rows = batch.size * kFrames;
    const Tensor x = batch.inputs.at("frames").view({rows, kWidth});
    const Tensor logits = outputs.at("frame_logit").view({rows, 1});
    const Tensor dlogits = context.allocate("d logits", logits.shape, logits.dtype);
    ops::linear(context, x, parameters.weight(0), parameters.weight(1), logits);
    ops::binary_cross_entropy(context, {.logits = logits,
                                        .labels = batch.targets.at("frame_label").view({rows}),
                                        .grad = scale,
                                        .loss = losses.rows(0, 1),
                                        .dlogits = dlogits});
    ops::linear_backward(context, {.dy = dlogits,
                                   .x = x,
                                   .weight = parameters.weight(0),
                                   .dweight = parameters.gradient(0),
                                   .dbias = parameters.gradient(1)});
  }

  void predict(Context& context, const ParameterStore& parameters, const Batch& batch,
               const TensorList& outputs, const Tensor& row_losses) const override {
    const engine::ArenaScope scope(context.arena);
    const std::int64_t rows = batch.size * kFrames;
    const Tensor logits = outputs.at("frame_logit").view({rows, 1});
    ops::linear(context, batch.inputs.at("frames").view({rows, kWidth}), parameters.weight(0),
                parameters.weight(1), logits);
    if (!row_losses) return;
    const Tensor of_frames = context.allocate("losses of frames", {rows}, row_losses.dtype);
    ops::binary_cross_entropy(context, {.logits = logits,
                                        .labels = batch.targets.at("frame_label").view({rows}),
                                        .loss = context.allocate("loss", {1}, row_losses.dtype),
                                        .row_losses = of_frames});
    ops::pooling(context, of_frames.view({batch.size, kFrames, 1}), row_losses.view({batch.size, 1}), {});
  }

 private:
  std::vector<engine::ParameterSpec> parameters_;
  engine::ModelSignature signature_;
};

/// Frames that are forged where the first feature says so, but for one in ten.
class FrameSource final : public engine::BatchSource {
 public:
  FrameSource(std::int64_t samples, std::uint64_t seed, DType dtype = DType::kF32)
      : samples_(samples), dtype_(dtype) {
    engine::RandomStream random(seed, engine::RandomPurpose::kSynthetic, 0);
    for (std::int64_t frame = 0; frame < samples * kFrames; ++frame) {
      const std::size_t first = features_.size();
      for (std::int64_t i = 0; i < kWidth; ++i) features_.push_back(random.normal());
      const bool forged = features_[first] > 0.3;
      labels_.push_back(forged != (random.uniform() < 0.1) ? 1 : 0);
    }
    input_.resize(features_.size() * engine::size_of(dtype));
    for (std::size_t i = 0; i < features_.size(); ++i) {
      if (dtype == DType::kF64)
        reinterpret_cast<double*>(input_.data())[i] = features_[i];
      else
        reinterpret_cast<float*>(input_.data())[i] = static_cast<float>(features_[i]);
    }
    index_.resize(static_cast<std::size_t>(samples));
    std::iota(index_.begin(), index_.end(), 0);
  }
  [[nodiscard]] std::int64_t samples_per_epoch() const override { return samples_; }
  [[nodiscard]] std::int64_t batches_per_epoch() const override { return (samples_ + kBatch - 1) / kBatch; }
  [[nodiscard]] std::int64_t max_batch_size() const override { return kBatch; }
  void start_epoch(std::int64_t /*epoch*/, std::int64_t first_batch) override {
    next_ = first_batch * kBatch;
  }
  const Batch* next() override {
    if (next_ >= samples_) return nullptr;
    const std::int64_t size = std::min(kBatch, samples_ - next_);
    batch_ = {};
    batch_.size = size;
    batch_.first_position = next_;
    batch_.inputs.push_back(
        {.data = input_.data() + static_cast<std::size_t>(next_ * kFrames * kWidth) * engine::size_of(dtype_),
         .shape = {size, kFrames, kWidth},
         .dtype = dtype_,
         .device = engine::DeviceKind::kCpu,
         .name = "frames"});
    batch_.targets.push_back({.data = labels_.data() + next_ * kFrames,
                              .shape = {size, kFrames},
                              .dtype = DType::kI32,
                              .device = engine::DeviceKind::kCpu,
                              .name = "frame_label"});
    batch_.samples =
        std::span(index_).subspan(static_cast<std::size_t>(next_), static_cast<std::size_t>(size));
    next_ += size;
    return &batch_;
  }
  [[nodiscard]] std::int64_t bad_samples() const override { return 0; }
  [[nodiscard]] const std::vector<std::int32_t>& labels() const { return labels_; }

 private:
  static constexpr std::int64_t kBatch = 5;
  std::int64_t samples_;
  DType dtype_;
  std::vector<double> features_;
  std::vector<std::byte> input_;
  std::vector<std::int32_t> labels_;
  std::vector<std::int64_t> index_;
  std::int64_t next_ = 0;
  Batch batch_;
};

/// AUC over all frames.
class FrameTask final : public engine::Task {
 public:
  [[nodiscard]] const engine::Selection& selection(std::string_view name) const override {
    if (name != kFrameAuc.name) throw engine::UsageError("--select_by: \"{}\" is not frame_auc", name);
    return kFrameAuc;
  }
  void check_selection(std::string_view name,
                       std::span<const engine::PredictionColumn> /*targets*/) const override {
    static_cast<void>(selection(name));
  }
  [[nodiscard]] std::vector<engine::MeasuredValue> validate(const engine::Predictions& val) const override {
    std::vector<double> forged;
    for (const double logit : val.output("frame_logit").values) forged.push_back(1 / (1 + std::exp(-logit)));
    const std::vector<double>& targets = val.target("frame_label").values;
    const std::vector<int> labels(targets.begin(), targets.end());
    const double loss =
        std::accumulate(val.losses.begin(), val.losses.end(), 0.0) / static_cast<double>(val.size());
    return {{"frame_auc", "val_frame_auc", auc(roc_curve(forged, labels))}, {"", "val_loss", loss}};
  }

 private:
  static constexpr engine::Selection kFrameAuc{"frame_auc", engine::Better::kHigher};
};

engine::TrainerConfig frame_config() {
  engine::TrainerConfig config = engine::test::toy_config();
  config.epochs = 8;
  config.lr = 0.05;
  config.select_by = "frame_auc";
  return config;
}

struct FrameRun {
  explicit FrameRun(const engine::TrainerConfig& config)
      : trainer(config, network, task, train, &val, *device, recorder) {
    trainer.parameters().initialise(config.seed);
  }
  FrameNetwork network;
  FrameTask task;
  FrameSource train{40, 1};
  FrameSource val{17, 2};
  std::unique_ptr<engine::Device> device = engine::make_cpu_device(1);
  Recorder recorder;
  engine::Trainer trainer;
};

TEST(FrameNetwork, LearnsAndIsSelectedAndRecordedByItsOwnMeasure) {
  FrameRun run(frame_config());
  const engine::TrainingResult result = run.trainer.run();
  ASSERT_TRUE(result.best);
  EXPECT_GT(*result.best->measure("frame_auc"), 0.85);
  const nlohmann::ordered_json line = to_json(run.recorder.epochs.back());
  EXPECT_EQ(line["val_frame_auc"], *result.last->measure("frame_auc"));
  EXPECT_LT(line["loss"].get<double>(), to_json(run.recorder.epochs.front())["loss"].get<double>());
  EXPECT_FALSE(line.contains("cls"));
  EXPECT_FALSE(line.contains("val_auc"));
}

TEST(FrameNetwork, IsPredictedFrameByFrame) {
  FrameRun run(frame_config());
  const engine::Predictions predictions =
      *engine::Evaluator(run.network, run.val, run.trainer.workspace(), true).run();
  EXPECT_EQ(predictions.output("frame_logit").width, kFrames);
  ASSERT_EQ(predictions.output("frame_logit").values.size(), static_cast<std::size_t>(17 * kFrames));
  const std::vector<double>& labels = predictions.target("frame_label").values;
  EXPECT_TRUE(std::equal(labels.begin(), labels.end(), run.val.labels().begin(), run.val.labels().end()));
  for (std::size_t i = 0; i < 17; ++i) {
    double loss = 0;
    for (std::size_t t = i * kFrames; t < (i + 1) * kFrames; ++t) {
      const double sign = labels[t] == 1 ? -1 : 1;
      loss += std::log1p(std::exp(sign * predictions.output("frame_logit").values[t])) / kFrames;
    }
    EXPECT_NEAR(predictions.losses[i], loss, 1e-6);
  }
}

TEST(FrameNetwork, ResumesBitForBit) {
  FrameRun undisturbed(frame_config());
  (void)undisturbed.trainer.run();
  const TemporaryFolder folder;
  engine::TrainerConfig config = frame_config();
  config.checkpoint_folder = folder.path();
  config.max_steps = 11;  // within the second epoch
  {
    FrameRun first(config);
    (void)first.trainer.run();
  }
  config.max_steps = 0;
  FrameRun second(config);
  ASSERT_TRUE(second.trainer.resume_latest());
  const engine::TrainingResult result = second.trainer.run();
  EXPECT_EQ(bits_of(second.trainer.parameters()), bits_of(undisturbed.trainer.parameters()));
  EXPECT_EQ(result.best->measures, undisturbed.trainer.best()->measures);
}

TEST(FrameNetwork, GradientsAreTheDerivativesOfTheLoss) {
  const FrameNetwork network;
  FrameSource source(5, 3, DType::kF64);
  const auto device = engine::make_cpu_device(1);
  engine::Workspace workspace(network, {.compute_type = DType::kF64, .train_batch = 5}, *device);
  workspace.parameters().initialise(1);
  source.start_epoch(0, 0);
  const Batch batch = *source.next();
  const auto loss = [&] {
    Context context = workspace.context();
    ops::fill(context, 0, workspace.parameters().gradients());
    network.forward_backward(context, workspace.parameters(), batch, {}, {}, workspace.outputs(5),
                             workspace.losses(0));
    return workspace.losses(0).as<double>()[0];
  };
  for (const int id : {0, 1}) {
    double* const weight = workspace.parameters().weight(id).as<double>();
    for (std::int64_t i = 0; i < workspace.parameters().weight(id).elements(); ++i) {
      (void)loss();
      const double gradient = workspace.parameters().gradient(id).as<double>()[i];
      const double before = weight[i];
      weight[i] = before + 1e-5;
      const double above = loss();
      weight[i] = before - 1e-5;
      const double below = loss();
      weight[i] = before;
      EXPECT_NEAR(gradient, (above - below) / 2e-5, 1e-8) << id << "[" << i << "]";
    }
  }
}

}  // namespace
}  // namespace voca::model
