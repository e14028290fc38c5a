#include "tests/simt/training_support.h"

#include "data/batches/device_batches.h"
#include "data/packed/pack.h"
#include "data/synth.h"
#include "engine/ops/ops.h"
#include "model/crossmodal_transformer.h"

namespace voca::simt::host {

std::shared_ptr<const data::Dataset> make_dataset(const data::testing::Scratch& scratch, engine::DType dtype,
                                                  std::int64_t videos) {
  data::SynthOptions tree;
  tree.out = scratch / "tree";
  tree.videos = videos;
  tree.frames_min = 4;
  tree.frames_max = 9;
  tree.visual_dim = kVisualDim;
  tree.audio_dim = kAudioDim;
  tree.dtype = dtype;
  (void)data::synthesize_features(tree);
  data::PackOptions options;
  options.features_root = scratch / "tree";
  options.out = scratch / "a.h5";
  options.split_ratios = data::SplitRatios{0.6, 0.4, 0.0};
  (void)data::pack_features(options);
  return std::make_shared<const data::Dataset>(scratch / "a.h5");
}

data::BatchSourceOptions batch_options(bool training, const SourceSetup& setup) {
  data::BatchSourceOptions options;
  options.sampler = {.seed = 9,
                     .training = training,
                     .batch_size = setup.batch_size,
                     .rank = setup.rank,
                     .world_size = setup.world_size};
  options.seq_len = kSeqLen;
  options.augment_prob = 0.7;
  options.residency = setup.frames == Frames::kResident ? data::Residency::kGpu : data::Residency::kDisk;
  options.dtype = setup.compute_type;
  options.num_workers = 2;
  return options;
}

std::unique_ptr<engine::BatchSource> make_source(const std::shared_ptr<const data::Dataset>& dataset,
                                                 data::Split split, engine::Device& device,
                                                 const SourceSetup& setup) {
  return data::make_device_batches(dataset, dataset->samples_of(split),
                                   batch_options(split == data::Split::kTrain, setup),
                                   setup.frames == Frames::kPinned, device);
}

namespace {

/// Makes the gradient of one parameter infinite once it is final, before the next listener is notified.
class Spoiler final : public engine::GradientListener {
 public:
  Spoiler(engine::Context& context, const engine::ParameterStore& parameters)
      : context_(context), parameters_(parameters), next_(context.gradients) {}
  void final_until(std::int64_t elements) override {
    if (!spoiled_ && elements >= parameters_.flat_end(Spoiled::kSpoiled)) {
      engine::ops::fill(context_, HUGE_VAL, parameters_.gradient(Spoiled::kSpoiled));
      spoiled_ = true;
    }
    if (next_ != nullptr) next_->final_until(elements);
  }

 private:
  engine::Context& context_;
  const engine::ParameterStore& parameters_;
  engine::GradientListener* next_;
  bool spoiled_ = false;
};

}  // namespace

void Spoiled::forward_backward(engine::Context& context, const engine::ParameterStore& parameters,
                               const engine::Batch& batch, const engine::StepRandom& random,
                               const engine::GradientScale& gradient_scale, const engine::TensorList& outputs,
                               const engine::Tensor& losses) const {
  engine::Context with_spoiler = context;
  Spoiler spoiler(context, parameters);
  if (batches_.contains(random.step)) with_spoiler.gradients = &spoiler;
  model_->forward_backward(with_spoiler, parameters, batch, random, gradient_scale, outputs, losses);
}

std::unique_ptr<engine::Model> make_model(const ModelSetup& setup) {
  model::ModelConfig config;
  config.visual_dim = kVisualDim;
  config.audio_dim = kAudioDim;
  config.hidden = 32;
  config.num_layers = 1;
  config.num_heads = 1;
  config.seq_len = kSeqLen;
  config.dropout = setup.dropout;
  return std::make_unique<Spoiled>(
      model::make_crossmodal_transformer(
          config, {.label_smoothing = 0.1, .use_contrastive = true, .contrastive_scope = setup.scope}),
      setup.spoiled);
}

engine::TrainerConfig two_epochs(engine::DType compute_type) {
  engine::TrainerConfig config;
  config.epochs = 2;
  config.lr = 1e-3;
  config.warmup_epochs = 0;
  config.log_every = 1;
  config.grad_accum = 2;
  config.select_by = "loss";
  config.seed = 5;
  config.compute_type = compute_type;
  return config;
}

}  // namespace voca::simt::host
