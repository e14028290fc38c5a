#include "model/crossmodal_transformer.h"

#include <array>
#include <numeric>
#include <utility>

#include "engine/comm/communicator.h"
#include "model/blocks.h"
#include "model/parameter_table.h"
#include "model/tasks/detection.h"

namespace voca::model {
namespace {

using engine::ArenaScope;
using engine::Batch;
using engine::Context;
using engine::GradientScale;
using engine::ParameterStore;
using engine::Shape;
using engine::StepRandom;
using engine::Tensor;
using engine::TensorList;
namespace ops = engine::ops;

// Inputs.
constexpr const char* kVisual = "visual";
constexpr const char* kAudio = "audio";

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

// Activations of the fusion of both streams, saved for backward.
struct FusionState {
  NormState v_norm;
  NormState a_norm;
  Tensor v;  // (B, T, H) projected
  Tensor a;
  Tensor v_positioned;  // with positions, or v itself
  Tensor a_positioned;
  AttentionState a2v;
  AttentionState v2a;
};

// Activations of an encoder layer, saved for backward.
struct LayerState {
  AttentionState attention;
  Tensor attended;  // (B, T, H) after self-attention
  FeedForwardState feed_forward;
};

struct HeadState {
  Tensor argmax;  // (B, H)
  Tensor pooled;  // (B, H)
  MlpState classifier;
};

// The contrastive head's activations for both streams: rows [0, B) visual, [B, 2B) audio.
struct ContrastState {
  Tensor pooled;  // (2B, H)
  MlpState head;
  Tensor z;     // (2B, 256), unit rows
  Tensor norm;  // (2B)
};

// Columns of this rank's similarity matrix, the negatives included: audio of its own batch, or of all ranks.
struct ContrastColumns {
  bool gathered = false;
  std::int64_t first = 0;  // column of the first sample of this rank
  Tensor za;               // (columns, 256)
  Tensor labels;           // (columns)
  Tensor dza;              // (columns, 256), contribution of this rank's rows
};

// Marks gradients as final up to and including `last`, in the order of backward.
void announce(const Pass& pass, engine::ParameterId last) {
  if (pass.context.gradients != nullptr) pass.context.gradients->final_until(pass.parameters.flat_end(last));
}

// One forward and backward pass.
struct TrainingPass {
  const Pass& pass;
  const Batch& batch;
  const GradientScale& gradient_scale;
  Tensor logits;
  Tensor classification_loss;
  Tensor contrastive_loss;
};

class CrossModalTransformer final : public engine::Model {
 public:
  CrossModalTransformer(const ModelConfig& config, const LossConfig& losses, Activations activations)
      : config_(config),
        losses_(losses),
        recompute_(activations == Activations::kRecompute),
        table_(make_parameter_table(config)),
        signature_{.batch = {.inputs = {{kVisual, {config.seq_len, config.visual_dim}, {}},
                                        {kAudio, {config.seq_len, config.audio_dim}, {}}},
                             .targets = {{kLabel, {}, engine::DType::kI32}}},
                   .outputs = {{kLogits, {config.num_classes}, {}}},
                   .losses = kLosses} {}

  [[nodiscard]] const std::vector<engine::ParameterSpec>& parameters() const override { return table_.specs; }
  [[nodiscard]] const engine::ModelSignature& signature() const override { return signature_; }

  void forward_backward(Context& context, const ParameterStore& parameters, const Batch& batch,
                        const StepRandom& random, const GradientScale& gradient_scale,
                        const TensorList& outputs, const Tensor& losses) const override;
  void predict(Context& context, const ParameterStore& parameters, const Batch& batch,
               const TensorList& outputs, const Tensor& row_losses) const override;

 private:
  [[nodiscard]] Projection visual_projection() const {
    return {table_.v_proj, config_.dropout, kVisualProjection};
  }
  [[nodiscard]] Projection audio_projection() const {
    return {table_.a_proj, config_.dropout, kAudioProjection};
  }
  [[nodiscard]] AttentionBlock cross_attention(const AttentionParameters& parameters, Site site) const {
    return {.parameters = parameters,
            .self = false,
            .heads = config_.num_heads,
            .probability_dropout = config_.dropout,
            .probability_site = site};
  }
  [[nodiscard]] AttentionBlock self_attention(std::size_t layer) const {
    const auto site = static_cast<std::uint32_t>(kFirstLayer + kSitesPerLayer * layer);
    return {.parameters = table_.self_attention[layer],
            .self = true,
            .heads = config_.num_heads,
            .probability_dropout = config_.dropout,
            .residual_dropout = config_.dropout,
            .probability_site = site,
            .residual_site = site + 1};
  }
  [[nodiscard]] FeedForward feed_forward_block(std::size_t layer) const {
    const auto site = static_cast<std::uint32_t>(kFirstLayer + kSitesPerLayer * layer);
    return {table_.feed_forward[layer], config_.dropout, site + 2, site + 3};
  }
  [[nodiscard]] Mlp classifier() const {
    return {table_.classifier0, table_.classifier3, config_.dropout, kClassifier};
  }
  [[nodiscard]] Mlp contrast_head() const { return {.first = table_.contrast0, .second = table_.contrast2}; }
  [[nodiscard]] std::size_t layers() const { return static_cast<std::size_t>(config_.num_layers); }
  [[nodiscard]] bool bidirectional() const {
    return config_.cross_attention == CrossAttention::kBidirectional;
  }

  [[nodiscard]] FusionState fuse(const Pass& pass, const Batch& batch, const Tensor& x) const;
  void add_positions(const Pass& pass, FusionState& state) const;
  void cross(const Pass& pass, FusionState& state, const Tensor& x) const;
  [[nodiscard]] LayerState layer(const Pass& pass, std::size_t i, const Tensor& x, const Tensor& y) const;
  [[nodiscard]] HeadState head(const Pass& pass, const Tensor& x, const Tensor& logits) const;
  [[nodiscard]] ContrastState contrast(const Pass& pass, const FusionState& fusion) const;
  void classification_loss(const Pass& pass, const Batch& batch, const Tensor& logits,
                           const GradientScale& grad, const Tensor& loss, const Tensor& row_losses,
                           const Tensor& dlogits) const;

  void train_contrast(const TrainingPass& training, const FusionState& fusion, const Tensor& dpooled) const;
  void train_layers(const TrainingPass& training, std::size_t i, const Tensor& x, const Tensor& dx) const;
  void train_head(const TrainingPass& training, const Tensor& x, const Tensor& dx) const;
  void layer_backward(const Pass& pass, std::size_t i, const LayerState& state, const Tensor& x,
                      const Tensor& dx) const;
  void cross_backward(const Pass& pass, const FusionState& state, const Tensor& dx, const Tensor& dv,
                      const Tensor& da) const;
  [[nodiscard]] ContrastColumns contrast_columns(const Pass& pass, const Batch& batch,
                                                 const ContrastState& state, const Tensor& own_dza) const;
  void fuse_backward(const Pass& pass, const Batch& batch, const FusionState& state, const Tensor& dx,
                     const Tensor& dcontrast) const;

  ModelConfig config_;
  LossConfig losses_;
  bool recompute_;
  ParameterTable table_;
  engine::ModelSignature signature_;
};

// Computes the encoder's input x (B, T, H), overwritten, from the features.
FusionState CrossModalTransformer::fuse(const Pass& pass, const Batch& batch, const Tensor& x) const {
  FusionState state;
  state.v = pass.allocate("v", x.shape);
  state.v_norm = project(pass, visual_projection(), batch.inputs.at(kVisual), state.v);
  state.a = pass.allocate("a", x.shape);
  state.a_norm = project(pass, audio_projection(), batch.inputs.at(kAudio), state.a);
  add_positions(pass, state);
  cross(pass, state, x);
  return state;
}

void CrossModalTransformer::add_positions(const Pass& pass, FusionState& state) const {
  state.v_positioned = state.v;
  state.a_positioned = state.a;
  if (config_.positional_encoding == PositionalEncoding::kNone) return;
  Tensor encoding;
  if (config_.positional_encoding == PositionalEncoding::kLearned) {
    encoding = pass.weight(table_.pos_embed);
  } else {
    encoding = pass.allocate("sinusoidal positions", {config_.seq_len, config_.hidden});
    ops::sinusoidal_encoding(pass.context, encoding);
  }
  // The contrastive head reads the projections without positions, so the sums need separate memory.
  state.v_positioned = pass.allocate("v with positions", state.v.shape);
  state.a_positioned = pass.allocate("a with positions", state.a.shape);
  ops::positional_encoding(pass.context, state.v, encoding, state.v_positioned);
  ops::positional_encoding(pass.context, state.a, encoding, state.a_positioned);
}

void CrossModalTransformer::cross(const Pass& pass, FusionState& state, const Tensor& x) const {
  const Tensor& v = state.v_positioned;
  const Tensor& a = state.a_positioned;
  state.a2v = attend(pass, cross_attention(table_.a2v, kAudioToVisual), a, v, x);
  if (!bidirectional()) return;
  const Tensor other = pass.allocate("x of visual to audio", x.shape);
  state.v2a = attend(pass, cross_attention(table_.v2a, kVisualToAudio), v, a, other);
  ops::weighted_sum(pass.context, 0.5, x, 0.5, other, x);
}

// x (B, T, H) → y, overwritten. In inference x and y may be the same array.
LayerState CrossModalTransformer::layer(const Pass& pass, std::size_t i, const Tensor& x,
                                        const Tensor& y) const {
  LayerState state;
  state.attended = pass.allocate("x after self-attention", x.shape);
  state.attention = attend(pass, self_attention(i), x, x, state.attended);
  state.feed_forward = feed_forward(pass, feed_forward_block(i), state.attended, y);
  return state;
}

HeadState CrossModalTransformer::head(const Pass& pass, const Tensor& x, const Tensor& logits) const {
  const Shape pooled{x.shape[0], config_.hidden};
  HeadState state;
  state.argmax = pass.context.allocate("argmax", pooled, engine::DType::kI32);
  state.pooled = pass.allocate("pooled", pooled);
  ops::pooling(pass.context, x, state.pooled, state.argmax);
  state.classifier = mlp(pass, classifier(), state.pooled, logits);
  return state;
}

ContrastState CrossModalTransformer::contrast(const Pass& pass, const FusionState& fusion) const {
  const std::int64_t batch = fusion.v.shape[0];
  ContrastState result;
  result.pooled = pass.allocate("contrast pooled", {2 * batch, config_.hidden});
  ops::pooling(pass.context, fusion.v, result.pooled.rows(0, batch), {});
  ops::pooling(pass.context, fusion.a, result.pooled.rows(batch, batch), {});
  const Tensor embedding = pass.allocate("contrast embedding", {2 * batch, kContrastiveWidth});
  result.head = mlp(pass, contrast_head(), result.pooled, embedding);
  result.z = pass.allocate("contrast z", embedding.shape);
  result.norm = pass.allocate_statistics("contrast norm", {2 * batch});
  ops::l2_normalize(pass.context, embedding, result.z, result.norm);
  return result;
}

void CrossModalTransformer::classification_loss(const Pass& pass, const Batch& batch, const Tensor& logits,
                                                const GradientScale& grad, const Tensor& loss,
                                                const Tensor& row_losses, const Tensor& dlogits) const {
  const ops::CrossEntropy args{.logits = logits,
                               .labels = batch.targets.at(kLabel),
                               .smoothing = losses_.label_smoothing,
                               .pos_weight = losses_.pos_weight,
                               .grad = grad,
                               .loss = loss,
                               .row_losses = row_losses,
                               .dlogits = dlogits};
  if (config_.num_classes == 1) {
    ops::binary_cross_entropy(pass.context, args);
  } else {
    ops::softmax_cross_entropy(pass.context, args);
  }
}

// On entry dx is the gradient of the layer's output, on return that of its input x.
void CrossModalTransformer::layer_backward(const Pass& pass, std::size_t i, const LayerState& state,
                                           const Tensor& x, const Tensor& dx) const {
  const ArenaScope scope(pass.context.arena);
  const Tensor dattended = pass.allocate("d x after self-attention", dx.shape);
  feed_forward_backward(pass, feed_forward_block(i), state.feed_forward, state.attended, dx, dattended);
  announce(pass, table_.feed_forward[i].linear1.bias);
  attend_backward(pass, self_attention(i), state.attention, x, x, dattended, {.dquery = dx, .dmemory = dx});
  announce(pass, table_.self_attention[i].in_proj.bias);
}

// Overwrites dv and da; scales dx in place.
void CrossModalTransformer::cross_backward(const Pass& pass, const FusionState& state, const Tensor& dx,
                                           const Tensor& dv, const Tensor& da) const {
  if (bidirectional()) ops::weighted_sum(pass.context, 0.5, dx, 0, {}, dx);
  attend_backward(pass, cross_attention(table_.a2v, kAudioToVisual), state.a2v, state.a_positioned,
                  state.v_positioned, dx, {.dquery = da, .dmemory = dv});
  announce(pass, table_.a2v.in_proj.bias);
  if (!bidirectional()) return;
  attend_backward(pass, cross_attention(table_.v2a, kVisualToAudio), state.v2a, state.v_positioned,
                  state.a_positioned, dx,
                  {.dquery = dv, .accumulate_dquery = true, .dmemory = da, .accumulate_dmemory = true});
  announce(pass, table_.v2a.in_proj.bias);
}

// own_dza (B, 256) receives the gradient of this rank's audio embeddings.
ContrastColumns CrossModalTransformer::contrast_columns(const Pass& pass, const Batch& batch,
                                                        const ContrastState& state,
                                                        const Tensor& own_dza) const {
  const Tensor own = state.z.rows(batch.size, batch.size);
  if (losses_.contrastive_scope == ContrastiveScope::kLocal || batch.rows_by_rank.size() <= 1)
    return {.za = own, .labels = batch.targets.at(kLabel), .dza = own_dza};
  const std::span<const std::int64_t> rows = batch.rows_by_rank;
  const Shape all{std::accumulate(rows.begin(), rows.end(), std::int64_t{0}), kContrastiveWidth};
  ContrastColumns columns{
      .gathered = true,
      .za = pass.allocate("contrast z of all ranks", all),
      .labels = pass.context.allocate("labels of all ranks", {all[0]}, engine::DType::kI32),
      .dza = pass.allocate("d contrast z of all ranks", all)};
  if (pass.context.device() == engine::DeviceKind::kMeta) return columns;
  engine::Communicator* const ranks = pass.context.communicator;
  VOCA_CHECK(ranks != nullptr && rows.size() == static_cast<std::size_t>(ranks->world_size()));
  const std::span<const std::int64_t> before = rows.first(static_cast<std::size_t>(ranks->rank()));
  columns.first = std::accumulate(before.begin(), before.end(), std::int64_t{0});
  ranks->all_gather_rows("contrastive embeddings", own, rows, columns.za, pass.context.stream);
  ranks->all_gather_rows("contrastive labels", batch.targets.at(kLabel), rows, columns.labels,
                         pass.context.stream);
  return columns;
}

void CrossModalTransformer::fuse_backward(const Pass& pass, const Batch& batch, const FusionState& state,
                                          const Tensor& dx, const Tensor& dcontrast) const {
  const Tensor dv = pass.allocate("d v", dx.shape);
  const Tensor da = pass.allocate("d a", dx.shape);
  cross_backward(pass, state, dx, dv, da);
  if (table_.pos_embed != kNoParameter) {
    ops::positional_encoding_backward(pass.context, dv, pass.gradient(table_.pos_embed));
    ops::positional_encoding_backward(pass.context, da, pass.gradient(table_.pos_embed));
    announce(pass, table_.pos_embed);
  }
  if (losses_.use_contrastive) {
    ops::pooling_backward(pass.context, dcontrast.rows(0, batch.size), {}, dv, true);
    ops::pooling_backward(pass.context, dcontrast.rows(batch.size, batch.size), {}, da, true);
  }
  project_backward(pass, audio_projection(), state.a_norm, batch.inputs.at(kAudio), da);
  announce(pass, table_.a_proj.linear.bias);
  project_backward(pass, visual_projection(), state.v_norm, batch.inputs.at(kVisual), dv);
  announce(pass, table_.v_proj.linear.bias);
}

// Computes the contrastive loss and its gradients; overwrites dpooled (2B, H), the gradient of the means of v
// and a.
void CrossModalTransformer::train_contrast(const TrainingPass& training, const FusionState& fusion,
                                           const Tensor& dpooled) const {
  const Pass& pass = training.pass;
  const ArenaScope scope(pass.context.arena);
  const ContrastState state = contrast(pass, fusion);
  const std::int64_t rows = training.batch.size;
  const Tensor dz = pass.allocate("d contrast z", state.z.shape);
  const Tensor own_dza = dz.rows(rows, rows);
  const ContrastColumns columns = contrast_columns(pass, training.batch, state, own_dza);
  ops::infonce(pass.context, {.zv = state.z.rows(0, rows),
                              .za = columns.za,
                              .row_labels = training.batch.targets.at(kLabel),
                              .column_labels = columns.labels,
                              .diagonal_offset = columns.first,
                              .temperature = losses_.temperature,
                              .grad = training.gradient_scale.times(losses_.contrastive_weight),
                              .loss = training.contrastive_loss,
                              .dzv = dz.rows(0, rows),
                              .dza = columns.dza});
  if (columns.gathered) {
    // Rows of every rank contribute to the gradient of this rank's audio. A dry run has no other ranks.
    if (pass.context.device() != engine::DeviceKind::kMeta) {
      pass.context.communicator->all_reduce_sum("contrastive gradients", columns.dza, pass.context.stream);
    }
    ops::weighted_sum(pass.context, 1, columns.dza.rows(columns.first, rows), 0, {}, own_dza);
  }
  ops::l2_normalize_backward(pass.context, dz, state.z, state.norm, dz);
  mlp_backward(pass, contrast_head(), state.head, state.pooled, dz, dpooled);
}

// Runs from the encoder's output x to the loss and back; overwrites dx.
void CrossModalTransformer::train_head(const TrainingPass& training, const Tensor& x,
                                       const Tensor& dx) const {
  const Pass& pass = training.pass;
  const ArenaScope scope(pass.context.arena);
  const HeadState state = head(pass, x, training.logits);
  const Tensor dlogits = pass.allocate("d logits", training.logits.shape);
  classification_loss(pass, training.batch, training.logits, training.gradient_scale,
                      training.classification_loss, {}, dlogits);
  const Tensor dpooled = pass.allocate("d pooled", state.pooled.shape);
  mlp_backward(pass, classifier(), state.classifier, state.pooled, dlogits, dpooled);
  announce(pass, table_.classifier0.bias);
  ops::pooling_backward(pass.context, dpooled, state.argmax, dx, false);
}

// Runs layer i and all following layers, forward then backward; the activations of a layer lie below those of
// the next on the arena's stack. Overwrites dx, the gradient of x.
void CrossModalTransformer::train_layers(const TrainingPass& training, std::size_t i, const Tensor& x,
                                         const Tensor& dx) const {
  if (i == layers()) {
    train_head(training, x, dx);
    return;
  }
  const Pass& pass = training.pass;
  const ArenaScope scope(pass.context.arena);
  const Tensor y = pass.allocate("x", x.shape);
  const std::size_t mark = pass.context.arena.used();
  LayerState state = layer(pass, i, x, y);
  // The last layer's backward comes first, so recomputing it would save nothing.
  const bool recompute = recompute_ && i + 1 < layers();
  if (recompute) pass.context.arena.release(mark);
  train_layers(training, i + 1, y, dx);
  if (recompute) state = layer(pass, i, x, y);
  layer_backward(pass, i, state, x, dx);
}

void CrossModalTransformer::forward_backward(Context& context, const ParameterStore& parameters,
                                             const Batch& batch, const StepRandom& random,
                                             const GradientScale& gradient_scale, const TensorList& outputs,
                                             const Tensor& losses) const {
  const ArenaScope scope(context.arena);
  const Pass pass{context, parameters, &random};
  const TrainingPass training{.pass = pass,
                              .batch = batch,
                              .gradient_scale = gradient_scale,
                              .logits = outputs.at(kLogits),
                              .classification_loss = losses.rows(kClassificationLoss, 1),
                              .contrastive_loss = losses.rows(kContrastiveLoss, 1)};
  const Shape sequence{batch.size, config_.seq_len, config_.hidden};
  const Tensor x = pass.allocate("x", sequence);
  const Tensor dx = pass.allocate("d x", sequence);
  Tensor dcontrast;
  if (losses_.use_contrastive)
    dcontrast = pass.allocate("d contrast pooled", {2 * batch.size, config_.hidden});

  const std::size_t mark = context.arena.used();
  FusionState fusion = fuse(pass, batch, x);
  if (losses_.use_contrastive) {
    train_contrast(training, fusion, dcontrast);
  } else {
    ops::fill(context, 0, training.contrastive_loss);
  }
  if (recompute_) context.arena.release(mark);
  train_layers(training, 0, x, dx);
  ops::weighted_sum(context, 1, training.classification_loss, losses_.contrastive_weight,
                    training.contrastive_loss, losses.rows(kTotalLoss, 1));
  if (recompute_) fusion = fuse(pass, batch, x);
  fuse_backward(pass, batch, fusion, dx, dcontrast);
}

void CrossModalTransformer::predict(Context& context, const ParameterStore& parameters, const Batch& batch,
                                    const TensorList& outputs, const Tensor& row_losses) const {
  const ArenaScope scope(context.arena);
  const Tensor& logits = outputs.at(kLogits);
  const Pass pass{context, parameters};
  const Tensor x = pass.allocate("x", {batch.size, config_.seq_len, config_.hidden});
  {
    const ArenaScope streams(context.arena);
    static_cast<void>(fuse(pass, batch, x));
  }
  for (std::size_t i = 0; i < layers(); ++i) {
    const ArenaScope of_layer(context.arena);
    static_cast<void>(layer(pass, i, x, x));
  }
  static_cast<void>(head(pass, x, logits));
  if (row_losses)
    classification_loss(pass, batch, logits, {}, pass.allocate_statistics("mean loss", {1}), row_losses, {});
}

}  // namespace

std::unique_ptr<engine::Model> make_crossmodal_transformer(const ModelConfig& config,
                                                           const LossConfig& losses,
                                                           Activations activations) {
  validate(config);
  validate(losses);
  return std::make_unique<CrossModalTransformer>(config, losses, activations);
}

StepFlops count_flops(const ModelConfig& config, const LossConfig& losses, std::int64_t batch_size,
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

}  // namespace voca::model
