#include "model/crossmodal_transformer.h"

#include <array>
#include <numeric>
#include <utility>

#include "engine/distributed/communicator.h"
#include "model/blocks.h"
#include "model/parameter_table.h"

namespace voca::model {
namespace {

using engine::ArenaScope;
using engine::Batch;
using engine::Context;
using engine::ParameterStore;
using engine::Shape;
using engine::StepRandom;
using engine::Tensor;
namespace ops = engine::ops;

// The dropout sites. Their numbers are part of what a run's bits depend on.
enum Site : std::uint32_t {
  kVisualProjection = 0,
  kAudioProjection = 1,
  kAudioToVisual = 2,
  kVisualToAudio = 3,
  kClassifier = 4,
  kFirstLayer = 16,  // four sites a layer: probabilities, self-attention, activation, feed-forward
  kSitesPerLayer = 4,
};

// What forward leaves for backward.
struct Forward {
  NormState v_state;
  NormState a_state;
  Tensor v;  // (B, T, H) projected
  Tensor a;
  Tensor v_positioned;  // with positions, or the same as v
  Tensor a_positioned;
  AttentionState a2v;
  AttentionState v2a;
  std::array<AttentionState, kMaxLayers> attention;
  std::array<FeedForwardState, kMaxLayers> feed_forward;
  std::array<Tensor, kMaxLayers> attended;       // (B, T, H) after self-attention
  std::array<Tensor, kMaxLayers + 1> sequences;  // (B, T, H): [0] enters the encoder, [i + 1] leaves layer i
  Tensor argmax;                                 // (B, H)
  Tensor pooled;                                 // (B, H)
  MlpState classifier;
};

// The contrastive head's pass over both streams at once: rows [0, B) visual, [B, 2B) audio.
struct Contrast {
  Tensor pooled;  // (2B, H)
  MlpState head;
  Tensor z;     // (2B, 256), unit rows
  Tensor norm;  // (2B)
};

// What the rows of this rank's similarity matrix are told from: the audio of its own batch, or of all ranks'.
struct ContrastColumns {
  bool gathered = false;
  std::int64_t first = 0;  // column of this rank's first sample
  Tensor za;               // (columns, 256)
  Tensor labels;           // (columns)
  Tensor dza;              // (columns, 256), of this rank's rows alone
};

// The parameters before and with `last` in the order of backward have their gradients.
void announce(const Pass& pass, engine::ParameterId last) {
  if (pass.context.gradients != nullptr) pass.context.gradients->final_until(pass.parameters.flat_end(last));
}

class CrossModalTransformer final : public engine::Model {
 public:
  CrossModalTransformer(const ModelConfig& config, const LossConfig& losses)
      : config_(config), losses_(losses), table_(make_parameter_table(config)) {}

  [[nodiscard]] const std::vector<engine::ParameterSpec>& parameters() const override { return table_.specs; }
  [[nodiscard]] std::int64_t outputs() const override { return config_.num_classes; }
  [[nodiscard]] Shape input_shape(int input, std::int64_t size) const override {
    return {size, config_.seq_len, input == 0 ? config_.visual_dim : config_.audio_dim};
  }

  void forward_backward(Context& context, const ParameterStore& parameters, const Batch& batch,
                        const StepRandom& random, double gradient_scale, const Tensor& logits,
                        const Tensor& losses) const override;
  void predict(Context& context, const ParameterStore& parameters, const Batch& batch, const Tensor& logits,
               const Tensor& row_losses) const override;

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

  void forward(const Pass& pass, const Batch& batch, const Tensor& logits, Forward& state) const;
  void add_positions(const Pass& pass, Forward& state) const;
  void cross(const Pass& pass, Forward& state, const Tensor& x) const;
  [[nodiscard]] Contrast contrast(const Pass& pass, const Forward& state) const;
  void classification_loss(const Pass& pass, const Batch& batch, const Tensor& logits, double grad,
                           const Tensor& loss, const Tensor& row_losses, const Tensor& dlogits) const;

  void encoder_backward(const Pass& pass, const Forward& state, const Tensor& dx) const;
  void cross_backward(const Pass& pass, const Forward& state, const Tensor& dx, const Tensor& dv,
                      const Tensor& da) const;
  [[nodiscard]] ContrastColumns contrast_columns(const Pass& pass, const Batch& batch, const Contrast& state,
                                                 const Tensor& own_dza) const;
  [[nodiscard]] Tensor contrast_backward(const Pass& pass, const Batch& batch, const Contrast& state,
                                         double gradient_scale, const Tensor& loss) const;

  ModelConfig config_;
  LossConfig losses_;
  ParameterTable table_;
};

// -- forward
// --------------------------------------------------------------------------------------------------------

void CrossModalTransformer::forward(const Pass& pass, const Batch& batch, const Tensor& logits,
                                    Forward& state) const {
  const Shape sequence{batch.size, config_.seq_len, config_.hidden};
  state.v = pass.allocate("v", sequence);
  state.v_state = project(pass, visual_projection(), batch.inputs[0], state.v);
  state.a = pass.allocate("a", sequence);
  state.a_state = project(pass, audio_projection(), batch.inputs[1], state.a);
  add_positions(pass, state);

  state.sequences[0] = pass.allocate("x", sequence);
  cross(pass, state, state.sequences[0]);
  // Training keeps every sequence; inference writes each layer over the last but one.
  const Tensor between = pass.allocate("x after self-attention", sequence);
  for (std::size_t i = 0; i < layers(); ++i) {
    const bool fresh = pass.training() && i > 0;
    state.attended[i] = fresh ? pass.allocate("x after self-attention", sequence) : between;
    state.sequences[i + 1] = pass.training() ? pass.allocate("x", sequence) : state.sequences[0];
    state.attention[i] =
        attend(pass, self_attention(i), state.sequences[i], state.sequences[i], state.attended[i]);
    state.feed_forward[i] =
        feed_forward(pass, feed_forward_block(i), state.attended[i], state.sequences[i + 1]);
  }

  const Shape pooled{batch.size, config_.hidden};
  if (pass.training()) state.argmax = pass.context.allocate("argmax", pooled, engine::DType::kI32);
  state.pooled = pass.allocate("pooled", pooled);
  const Tensor argmax =
      pass.training() ? state.argmax : pass.context.allocate("argmax", pooled, engine::DType::kI32);
  ops::pooling(pass.context, state.sequences[layers()], state.pooled, argmax);
  state.classifier = mlp(pass, classifier(), state.pooled, logits);
}

void CrossModalTransformer::add_positions(const Pass& pass, Forward& state) const {
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
  // The contrastive head sees the projections as they are, so the sums get memory of their own.
  state.v_positioned = pass.allocate("v with positions", state.v.shape);
  state.a_positioned = pass.allocate("a with positions", state.a.shape);
  ops::positional_encoding(pass.context, state.v, encoding, state.v_positioned);
  ops::positional_encoding(pass.context, state.a, encoding, state.a_positioned);
}

void CrossModalTransformer::cross(const Pass& pass, Forward& state, const Tensor& x) const {
  const Tensor& v = state.v_positioned;
  const Tensor& a = state.a_positioned;
  state.a2v = attend(pass, cross_attention(table_.a2v, kAudioToVisual), a, v, x);
  if (!bidirectional()) return;
  const Tensor other = pass.allocate("x of visual to audio", x.shape);
  state.v2a = attend(pass, cross_attention(table_.v2a, kVisualToAudio), v, a, other);
  ops::weighted_sum(pass.context, 0.5, x, 0.5, other, x);
}

Contrast CrossModalTransformer::contrast(const Pass& pass, const Forward& state) const {
  const std::int64_t batch = state.v.shape[0];
  Contrast result;
  result.pooled = pass.allocate("contrast pooled", {2 * batch, config_.hidden});
  ops::pooling(pass.context, state.v, result.pooled.rows(0, batch), {});
  ops::pooling(pass.context, state.a, result.pooled.rows(batch, batch), {});
  const Tensor embedding = pass.allocate("contrast embedding", {2 * batch, kContrastiveWidth});
  result.head = mlp(pass, contrast_head(), result.pooled, embedding);
  result.z = pass.allocate("contrast z", embedding.shape);
  result.norm = pass.allocate_statistics("contrast norm", {2 * batch});
  ops::l2_normalize(pass.context, embedding, result.z, result.norm);
  return result;
}

void CrossModalTransformer::classification_loss(const Pass& pass, const Batch& batch, const Tensor& logits,
                                                double grad, const Tensor& loss, const Tensor& row_losses,
                                                const Tensor& dlogits) const {
  const ops::CrossEntropy args{.logits = logits,
                               .labels = batch.labels,
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

// -- backward
// -------------------------------------------------------------------------------------------------------

// dx enters as the gradient of the encoder's output and leaves as that of its input.
void CrossModalTransformer::encoder_backward(const Pass& pass, const Forward& state, const Tensor& dx) const {
  const ArenaScope scope(pass.context.arena);
  const Tensor dattended = pass.allocate("d x after self-attention", dx.shape);
  for (std::size_t i = layers(); i-- > 0;) {
    feed_forward_backward(pass, feed_forward_block(i), state.feed_forward[i], state.attended[i], dx,
                          dattended);
    announce(pass, table_.feed_forward[i].linear1.bias);
    attend_backward(pass, self_attention(i), state.attention[i], state.sequences[i], state.sequences[i],
                    dattended, {.dquery = dx, .dmemory = dx});
    announce(pass, table_.self_attention[i].in_proj.bias);
  }
}

// dv and da are overwritten; dx is scaled on the way.
void CrossModalTransformer::cross_backward(const Pass& pass, const Forward& state, const Tensor& dx,
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

// own_dza (B, 256) is where the gradient of this rank's audio belongs.
ContrastColumns CrossModalTransformer::contrast_columns(const Pass& pass, const Batch& batch,
                                                        const Contrast& state, const Tensor& own_dza) const {
  const Tensor own = state.z.rows(batch.size, batch.size);
  if (losses_.contrastive_scope == ContrastiveScope::kLocal || batch.rows_by_rank.size() <= 1)
    return {.za = own, .labels = batch.labels, .dza = own_dza};
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
  ranks->all_gather_rows("contrastive labels", batch.labels, rows, columns.labels, pass.context.stream);
  return columns;
}

// Loss and gradients of the contrastive head; returns the gradient of its pooled input (2B, H).
Tensor CrossModalTransformer::contrast_backward(const Pass& pass, const Batch& batch, const Contrast& state,
                                                double gradient_scale, const Tensor& loss) const {
  const std::int64_t rows = batch.size;
  const Tensor dpooled = pass.allocate("d contrast pooled", state.pooled.shape);
  const ArenaScope scope(pass.context.arena);
  const Tensor dz = pass.allocate("d contrast z", state.z.shape);
  const Tensor own_dza = dz.rows(rows, rows);
  const ContrastColumns columns = contrast_columns(pass, batch, state, own_dza);
  ops::infonce(pass.context, {.zv = state.z.rows(0, rows),
                              .za = columns.za,
                              .row_labels = batch.labels,
                              .column_labels = columns.labels,
                              .diagonal_offset = columns.first,
                              .temperature = losses_.temperature,
                              .grad = gradient_scale * losses_.contrastive_weight,
                              .loss = loss,
                              .dzv = dz.rows(0, rows),
                              .dza = columns.dza});
  if (columns.gathered) {
    // Every rank's rows reach this rank's audio. In a dry run there is no one to add.
    if (pass.context.device() != engine::DeviceKind::kMeta) {
      pass.context.communicator->all_reduce_sum("contrastive gradients", columns.dza, pass.context.stream);
    }
    ops::weighted_sum(pass.context, 1, columns.dza.rows(columns.first, rows), 0, {}, own_dza);
  }
  ops::l2_normalize_backward(pass.context, dz, state.z, state.norm, dz);
  mlp_backward(pass, contrast_head(), state.head, state.pooled, dz, dpooled);
  return dpooled;
}

void CrossModalTransformer::forward_backward(Context& context, const ParameterStore& parameters,
                                             const Batch& batch, const StepRandom& random,
                                             double gradient_scale, const Tensor& logits,
                                             const Tensor& losses) const {
  const ArenaScope scope(context.arena);
  const Pass pass{context, parameters, &random};
  const Tensor total = losses.rows(engine::kTotalLoss, 1);
  const Tensor classification = losses.rows(engine::kClassificationLoss, 1);
  const Tensor contrastive = losses.rows(engine::kContrastiveLoss, 1);
  const bool with_contrast = losses_.use_contrastive;

  Forward state;
  forward(pass, batch, logits, state);
  const Tensor dlogits = pass.allocate("d logits", logits.shape);
  classification_loss(pass, batch, logits, gradient_scale, classification, {}, dlogits);
  Tensor dcontrast;
  if (with_contrast) {
    dcontrast = contrast_backward(pass, batch, contrast(pass, state), gradient_scale, contrastive);
  } else {
    ops::fill(context, 0, contrastive);
  }
  ops::weighted_sum(context, 1, classification, losses_.contrastive_weight, contrastive, total);

  const Tensor dpooled = pass.allocate("d pooled", state.pooled.shape);
  mlp_backward(pass, classifier(), state.classifier, state.pooled, dlogits, dpooled);
  announce(pass, table_.classifier0.bias);
  const Tensor dx = pass.allocate("d x", state.v.shape);
  ops::pooling_backward(context, dpooled, state.argmax, dx, false);
  encoder_backward(pass, state, dx);

  const Tensor dv = pass.allocate("d v", state.v.shape);
  const Tensor da = pass.allocate("d a", state.a.shape);
  cross_backward(pass, state, dx, dv, da);
  if (table_.pos_embed != kNoParameter) {
    ops::positional_encoding_backward(context, dv, pass.gradient(table_.pos_embed));
    ops::positional_encoding_backward(context, da, pass.gradient(table_.pos_embed));
    announce(pass, table_.pos_embed);
  }
  if (with_contrast) {
    ops::pooling_backward(context, dcontrast.rows(0, batch.size), {}, dv, true);
    ops::pooling_backward(context, dcontrast.rows(batch.size, batch.size), {}, da, true);
  }
  project_backward(pass, audio_projection(), state.a_state, batch.inputs[1], da);
  announce(pass, table_.a_proj.linear.bias);
  project_backward(pass, visual_projection(), state.v_state, batch.inputs[0], dv);
  announce(pass, table_.v_proj.linear.bias);
}

void CrossModalTransformer::predict(Context& context, const ParameterStore& parameters, const Batch& batch,
                                    const Tensor& logits, const Tensor& row_losses) const {
  const ArenaScope scope(context.arena);
  const Pass pass{context, parameters};
  Forward state;
  forward(pass, batch, logits, state);
  if (row_losses)
    classification_loss(pass, batch, logits, 0, pass.allocate_statistics("mean loss", {1}), row_losses, {});
}

}  // namespace

std::unique_ptr<engine::Model> make_crossmodal_transformer(const ModelConfig& config,
                                                           const LossConfig& losses) {
  validate(config);
  validate(losses);
  return std::make_unique<CrossModalTransformer>(config, losses);
}

StepFlops count_flops(const ModelConfig& config, const LossConfig& losses, std::int64_t batch_size) {
  const auto b = static_cast<double>(batch_size);
  const auto rows = b * static_cast<double>(config.seq_len);
  const auto h = static_cast<double>(config.hidden);
  const auto length = static_cast<double>(config.seq_len);
  const double directions = config.cross_attention == CrossAttention::kBidirectional ? 2 : 1;
  const auto layers = static_cast<double>(config.num_layers);
  const auto features = static_cast<double>(config.visual_dim + config.audio_dim);

  // Multiply-adds of the matrix products, forward. Backward has two for each, but none towards the features.
  double products = rows * h * features;
  products += (directions + layers) * rows * 4 * h * h;
  products += layers * rows * 8 * h * h;
  products += b * (h * h / 2 + h / 2 * static_cast<double>(config.num_classes));
  const auto width = static_cast<double>(kContrastiveWidth);
  if (losses.use_contrastive) products += 2 * b * (h * h + h * width) + b * b * width;

  // S = Q Kᵀ and P V forward; S again, dP, dV, dQ and dK backward.
  const double product = 2 * (directions + layers) * b * length * length * h;
  return {.gemm_forward = 2 * products,
          .gemm_backward = 4 * products - 2 * rows * h * features,
          .attention_forward = 2 * product,
          .attention_backward = 5 * product};
}

}  // namespace voca::model
