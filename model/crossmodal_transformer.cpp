#include "model/crossmodal_transformer.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <unordered_set>

#include "engine/base/error.h"
#include "model/classifier.h"
#include "model/contrastive_head.h"
#include "model/encoder.h"
#include "model/fusion.h"
#include "model/parameter_table.h"
#include "model/tasks/detection.h"

namespace voca::model {
namespace {

using engine::ArenaScope;
using engine::Batch;
using engine::Context;
using engine::DataError;
using engine::GradientScale;
using engine::ParameterStore;
using engine::StepRandom;
using engine::Tensor;
using engine::TensorList;
using engine::UsageError;

// Inputs.
constexpr const char* kVisual = "visual";
constexpr const char* kAudio = "audio";

// Losses, and their indices.
constexpr std::array kLosses{"loss", "cls", "con"};
constexpr std::int64_t kTotalLoss = 0;
constexpr std::int64_t kClassificationLoss = 1;
constexpr std::int64_t kContrastiveLoss = 2;

// Dropout sites. Their numbers determine the random bits of a run.
enum Site : std::uint32_t {
  kVisualProjection = 0,
  kAudioProjection = 1,
  kAudioToVisual = 2,
  kVisualToAudio = 3,
  kClassifier = 4,
  kFirstLayer = 16,  // four sites per layer: probabilities, self-attention, activation, feed-forward
  kSitesPerLayer = 4,
};

engine::ModelSignature signature_of(const ModelConfig& config) {
  return {.batch = {.inputs = {{kVisual, {config.seq_len, config.visual_dim}, {}},
                               {kAudio, {config.seq_len, config.audio_dim}, {}}},
                    .targets = {{kLabel, {}, engine::DType::kI32}}},
          .outputs = {{kLogits, {config.num_classes}, {}}},
          .losses = kLosses};
}

Fusion fusion_of(const ModelConfig& config, const ParameterTable& table) {
  const auto cross = [&](const AttentionParameters& parameters, Site site) {
    return AttentionBlock{.parameters = parameters,
                          .self = false,
                          .heads = config.num_heads,
                          .probability_dropout = config.dropout,
                          .probability_site = site};
  };
  return {.visual = {table.v_proj, config.dropout, kVisualProjection},
          .audio = {table.a_proj, config.dropout, kAudioProjection},
          .positions = config.positional_encoding,
          .pos_embed = table.pos_embed,
          .a2v = cross(table.a2v, kAudioToVisual),
          .v2a = cross(table.v2a, kVisualToAudio),
          .bidirectional = config.cross_attention == CrossAttention::kBidirectional};
}

Encoder encoder_of(const ModelConfig& config, const ParameterTable& table, bool recompute) {
  std::vector<EncoderLayer> layers;
  for (std::size_t i = 0; i < static_cast<std::size_t>(config.num_layers); ++i) {
    const auto site = static_cast<std::uint32_t>(kFirstLayer + kSitesPerLayer * i);
    layers.push_back({.attention = {.parameters = table.self_attention[i],
                                    .self = true,
                                    .heads = config.num_heads,
                                    .probability_dropout = config.dropout,
                                    .residual_dropout = config.dropout,
                                    .probability_site = site,
                                    .residual_site = site + 1},
                      .feed_forward = {table.feed_forward[i], config.dropout, site + 2, site + 3}});
  }
  return {std::move(layers), recompute};
}

class CrossModalTransformer final : public engine::Model {
 public:
  CrossModalTransformer(const ModelConfig& config, const LossConfig& losses, Activations activations,
                        const ParameterTable& table)
      : config_(config),
        use_contrastive_(losses.use_contrastive),
        recompute_(activations == Activations::kRecompute),
        parameters_(table.specs),
        signature_(signature_of(config)),
        fusion_(fusion_of(config, table)),
        encoder_(encoder_of(config, table, recompute_)),
        classifier_{.mlp = {table.classifier0, table.classifier3, config.dropout, kClassifier},
                    .classes = config.num_classes,
                    .label_smoothing = losses.label_smoothing,
                    .pos_weight = losses.pos_weight},
        contrastive_{.mlp = {.first = table.contrast0, .second = table.contrast2},
                     .weight = losses.contrastive_weight,
                     .temperature = losses.temperature,
                     .scope = losses.contrastive_scope} {}

  [[nodiscard]] const std::vector<engine::ParameterSpec>& parameters() const override { return parameters_; }
  [[nodiscard]] const engine::ModelSignature& signature() const override { return signature_; }

  void forward_backward(Context& context, const ParameterStore& parameters, const Batch& batch,
                        const StepRandom& random, const GradientScale& gradient_scale,
                        const TensorList& outputs, const Tensor& losses) const override;
  void predict(Context& context, const ParameterStore& parameters, const Batch& batch,
               const TensorList& outputs, const Tensor& row_losses) const override;

 private:
  ModelConfig config_;
  bool use_contrastive_;
  bool recompute_;
  std::vector<engine::ParameterSpec> parameters_;
  engine::ModelSignature signature_;
  Fusion fusion_;
  Encoder encoder_;
  Classifier classifier_;
  ContrastiveHead contrastive_;
};

void CrossModalTransformer::forward_backward(Context& context, const ParameterStore& parameters,
                                             const Batch& batch, const StepRandom& random,
                                             const GradientScale& gradient_scale, const TensorList& outputs,
                                             const Tensor& losses) const {
  const ArenaScope scope(context.arena);
  const Pass pass{context, parameters, &random};
  const Tensor& visual = batch.inputs.at(kVisual);
  const Tensor& audio = batch.inputs.at(kAudio);
  const Tensor& labels = batch.targets.at(kLabel);
  const Tensor classification_loss = losses.rows(kClassificationLoss, 1);
  const Tensor contrastive_loss = losses.rows(kContrastiveLoss, 1);
  const engine::Shape sequence{batch.size, config_.seq_len, config_.hidden};
  const Tensor x = pass.allocate("x", sequence);
  const Tensor dx = pass.allocate("d x", sequence);
  Tensor dmeans;
  if (use_contrastive_) dmeans = pass.allocate("d contrast pooled", {2 * batch.size, config_.hidden});

  const std::size_t mark = context.arena.used();
  FusionState fused = fuse(pass, fusion_, visual, audio, x);
  if (use_contrastive_) {
    train_contrast(pass, contrastive_, fused.v, fused.a,
                   {labels, batch.rows_by_rank, gradient_scale, contrastive_loss}, dmeans);
  } else {
    engine::ops::fill(context, 0, contrastive_loss);
  }
  if (recompute_) context.arena.release(mark);
  const auto head = [&](const Tensor& encoded, Tensor dencoded) {
    train_classifier(pass, classifier_, encoded,
                     {labels, gradient_scale, outputs.at(kLogits), classification_loss}, dencoded);
  };
  encoder_.train(pass, x, dx, std::ref(head));
  engine::ops::weighted_sum(context, 1, classification_loss, contrastive_.weight, contrastive_loss,
                            losses.rows(kTotalLoss, 1));
  if (recompute_) fused = fuse(pass, fusion_, visual, audio, x);
  fuse_backward(pass, fusion_, fused, visual, audio, dx, dmeans);
}

void CrossModalTransformer::predict(Context& context, const ParameterStore& parameters, const Batch& batch,
                                    const TensorList& outputs, const Tensor& row_losses) const {
  const ArenaScope scope(context.arena);
  const Pass pass{context, parameters};
  const Tensor x = pass.allocate("x", {batch.size, config_.seq_len, config_.hidden});
  {
    const ArenaScope streams(context.arena);
    static_cast<void>(fuse(pass, fusion_, batch.inputs.at(kVisual), batch.inputs.at(kAudio), x));
  }
  encoder_.predict(pass, x);
  const Tensor& logits = outputs.at(kLogits);
  classify(pass, classifier_, x, logits);
  if (row_losses) classification_losses(pass, classifier_, logits, batch.targets.at(kLabel), row_losses);
}

StepFlops count_step_flops(const ModelConfig& config, const LossConfig& losses, std::int64_t batch_size,
                           Activations activations) {
  const auto b = static_cast<double>(batch_size);
  const auto rows = b * static_cast<double>(config.seq_len);
  const auto h = static_cast<double>(config.hidden);
  const auto length = static_cast<double>(config.seq_len);
  const double directions = config.cross_attention == CrossAttention::kBidirectional ? 2 : 1;
  const auto layers = static_cast<double>(config.num_layers);
  const auto features = static_cast<double>(config.visual_dim + config.audio_dim);

  // Multiply-adds of the forward GEMMs. Backward has two GEMMs for each, but none for the gradient of the
  // features.
  const double projections = rows * h * features;
  const double crossings = directions * rows * 4 * h * h;
  const double layer = rows * 12 * h * h;
  double products = projections + crossings + layers * layer;
  products += b * (h * h / 2 + h / 2 * static_cast<double>(config.num_classes));
  const auto width = static_cast<double>(kContrastiveWidth);
  if (losses.use_contrastive) products += 2 * b * (h * h + h * width) + b * b * width;

  // S = Q Kᵀ and P V forward; S again, dP, dV, dQ and dK backward.
  const double product = 2 * b * length * length * h;
  StepFlops flops{.gemm_forward = 2 * products,
                  .gemm_backward = 4 * products - 2 * projections,
                  .attention_forward = 2 * (directions + layers) * product,
                  .attention_backward = 5 * (directions + layers) * product};
  if (activations == Activations::kRecompute) {
    flops.gemm_recompute = 2 * (projections + crossings + (layers - 1) * layer);
    flops.attention_recompute = 2 * (directions + layers - 1) * product;
  }
  return flops;
}

const StateEntry* find(const std::vector<StateEntry>& state, std::string_view name) {
  const auto entry =
      std::find_if(state.begin(), state.end(), [&](const StateEntry& e) { return e.name == name; });
  return entry == state.end() ? nullptr : &*entry;
}

const StateEntry& require_matrix(const std::vector<StateEntry>& state, std::string_view name) {
  const StateEntry* entry = find(state, name);
  if (entry == nullptr) throw DataError("the weights hold no {}: not a state dict of this network", name);
  if (entry->shape.rank() != 2)
    throw DataError("{} has shape {}: expected a matrix", name, engine::to_string(entry->shape));
  return *entry;
}

constexpr std::string_view kLayerPrefix = "temporal_encoder.layers.";

// Number of encoder layers: the largest index that occurs, plus one.
std::int64_t count_layers(const std::vector<StateEntry>& state) {
  std::int64_t layers = 0;
  for (const StateEntry& entry : state) {
    if (!entry.name.starts_with(kLayerPrefix)) continue;
    std::int64_t index = -1;
    const char* end = entry.name.data() + entry.name.size();
    std::from_chars(entry.name.data() + kLayerPrefix.size(), end, index);
    layers = std::max(layers, index + 1);
  }
  return layers;
}

std::unordered_set<std::string> make_names() {
  std::unordered_set<std::string> names;
  for (const CrossAttention form : {CrossAttention::kA2v, CrossAttention::kBidirectional}) {
    const ModelConfig config{
        .num_layers = 1, .cross_attention = form, .positional_encoding = PositionalEncoding::kLearned};
    for (const engine::ParameterSpec& spec : make_parameter_table(config).specs) names.insert(spec.name);
  }
  return names;
}

bool has_parameter(std::string_view name) {
  constexpr std::string_view kDigits = "0123456789";
  static const std::unordered_set<std::string> names = make_names();
  std::string first_layer(name);
  if (name.starts_with(kLayerPrefix)) {
    const std::string_view rest = name.substr(kLayerPrefix.size());
    const std::size_t digits = std::min(rest.find_first_not_of(kDigits), rest.size());
    if (digits == 0) return false;
    first_layer.replace(kLayerPrefix.size(), digits, "0");
  }
  return names.contains(first_layer);
}

bool is_telling(std::string_view name) {
  return name == "v_proj.0.weight" || name == "a_proj.0.weight";
}

bool recognise(const std::vector<StateEntry>& state) {
  return find(state, "v_proj.0.weight") != nullptr && find(state, "a_proj.0.weight") != nullptr &&
         find(state, "classifier.3.weight") != nullptr;
}

ModelConfig infer(const std::vector<StateEntry>& state, const ModelConfig& hints) {
  ModelConfig config = hints;
  const StateEntry& v_proj = require_matrix(state, "v_proj.0.weight");
  config.hidden = v_proj.shape[0];
  config.visual_dim = v_proj.shape[1];
  config.audio_dim = require_matrix(state, "a_proj.0.weight").shape[1];
  config.num_classes = require_matrix(state, "classifier.3.weight").shape[0];
  config.num_layers = count_layers(state);
  const bool bidirectional = find(state, "v2a_attn.in_proj_weight") != nullptr;
  config.cross_attention = bidirectional ? CrossAttention::kBidirectional : CrossAttention::kA2v;
  if (find(state, "pos_embed") != nullptr) {
    config.positional_encoding = PositionalEncoding::kLearned;
    config.seq_len = require_matrix(state, "pos_embed").shape[0];
  } else if (config.positional_encoding == PositionalEncoding::kLearned) {
    throw DataError("the config says learned positions, but the weights hold no pos_embed");
  }
  try {
    validate(config);
  } catch (const UsageError& error) {
    throw DataError("the weights spell an architecture that does not hold: {}", error.what());
  }
  return config;
}

std::unique_ptr<engine::Task> make_task(const ModelConfig& config, const ThresholdRule& threshold_by) {
  return std::make_unique<DetectionTask>(config.num_classes, threshold_by);
}

}  // namespace

std::unique_ptr<engine::Model> make_crossmodal_transformer(const ModelConfig& config,
                                                           const LossConfig& losses,
                                                           Activations activations) {
  validate(config);
  validate(losses);
  return std::make_unique<CrossModalTransformer>(config, losses, activations, make_parameter_table(config));
}

const NetworkKind kCrossModalTransformer{.name = "crossmodal",
                                         .title = "CrossModalTransformer",
                                         .has_parameter = has_parameter,
                                         .is_telling = is_telling,
                                         .recognise = recognise,
                                         .infer = infer,
                                         .make = make_crossmodal_transformer,
                                         .make_task = make_task,
                                         .selecting_measures = selection_names,
                                         .count_flops = count_step_flops};

}  // namespace voca::model
