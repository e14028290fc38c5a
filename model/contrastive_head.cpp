#include "model/contrastive_head.h"

#include <numeric>

#include "engine/comm/communicator.h"

namespace voca::model {
namespace {

using engine::ArenaScope;
using engine::Shape;
using engine::Tensor;
namespace ops = engine::ops;

// Activations of both streams: rows [0, B) v, [B, 2B) a.
struct ContrastState {
  Tensor pooled;  // (2B, H)
  MlpState mlp;
  Tensor z;     // (2B, 256), unit rows
  Tensor norm;  // (2B)
};

// Columns of this rank's similarity matrix, the negatives included: a of its own batch, or of all ranks.
struct Columns {
  bool gathered = false;
  std::int64_t first = 0;  // column of the first sample of this rank
  Tensor za;               // (columns, 256)
  Tensor labels;           // (columns)
  Tensor dza;              // (columns, 256), contribution of this rank's rows
};

ContrastState forward(const Pass& pass, const ContrastiveHead& head, const Tensor& v, const Tensor& a) {
  const std::int64_t batch = v.shape[0];
  ContrastState state;
  state.pooled = pass.allocate("contrast pooled", {2 * batch, v.shape[2]});
  ops::pooling(pass.context, v, state.pooled.rows(0, batch), {});
  ops::pooling(pass.context, a, state.pooled.rows(batch, batch), {});
  const Tensor embedding = pass.allocate("contrast embedding", {2 * batch, kContrastiveWidth});
  state.mlp = mlp(pass, head.mlp, state.pooled, embedding);
  state.z = pass.allocate("contrast z", embedding.shape);
  state.norm = pass.allocate_statistics("contrast norm", {2 * batch});
  ops::l2_normalize(pass.context, embedding, state.z, state.norm);
  return state;
}

// own_dza (B, 256) receives the gradient of this rank's embeddings of a.
Columns columns_of(const Pass& pass, const ContrastiveHead& head, const ContrastiveStep& step,
                   const Tensor& own_za, Tensor own_dza) {
  const std::span<const std::int64_t> rows = step.rows_by_rank;
  if (head.scope == ContrastiveScope::kLocal || rows.size() <= 1)
    return {.za = own_za, .labels = step.labels, .dza = own_dza};
  const Shape all{std::accumulate(rows.begin(), rows.end(), std::int64_t{0}), kContrastiveWidth};
  Columns columns{.gathered = true,
                  .za = pass.allocate("contrast z of all ranks", all),
                  .labels = pass.context.allocate("labels of all ranks", {all[0]}, engine::DType::kI32),
                  .dza = pass.allocate("d contrast z of all ranks", all)};
  if (pass.context.device() == engine::DeviceKind::kMeta) return columns;
  engine::Communicator* const ranks = pass.context.communicator;
  VOCA_CHECK(ranks != nullptr && rows.size() == static_cast<std::size_t>(ranks->world_size()));
  const std::span<const std::int64_t> before = rows.first(static_cast<std::size_t>(ranks->rank()));
  columns.first = std::accumulate(before.begin(), before.end(), std::int64_t{0});
  ranks->all_gather_rows("contrastive embeddings", own_za, rows, columns.za, pass.context.stream);
  ranks->all_gather_rows("contrastive labels", step.labels, rows, columns.labels, pass.context.stream);
  return columns;
}

}  // namespace

void train_contrast(const Pass& pass, const ContrastiveHead& head, const Tensor& v, const Tensor& a,
                    const ContrastiveStep& step, Tensor dpooled) {
  const ArenaScope scope(pass.context.arena);
  const ContrastState state = forward(pass, head, v, a);
  const std::int64_t rows = v.shape[0];
  const Tensor dz = pass.allocate("d contrast z", state.z.shape);
  const Tensor own_dza = dz.rows(rows, rows);
  const Columns columns = columns_of(pass, head, step, state.z.rows(rows, rows), own_dza);
  ops::infonce(pass.context, {.zv = state.z.rows(0, rows),
                              .za = columns.za,
                              .row_labels = step.labels,
                              .column_labels = columns.labels,
                              .diagonal_offset = columns.first,
                              .temperature = head.temperature,
                              .grad = step.gradient_scale.times(head.weight),
                              .loss = step.loss,
                              .dzv = dz.rows(0, rows),
                              .dza = columns.dza});
  if (columns.gathered) {
    // Rows of every rank contribute to the gradient of this rank's a. A dry run has no other ranks.
    if (pass.context.device() != engine::DeviceKind::kMeta) {
      pass.context.communicator->all_reduce_sum("contrastive gradients", columns.dza, pass.context.stream);
    }
    ops::weighted_sum(pass.context, 1, columns.dza.rows(columns.first, rows), 0, {}, own_dza);
  }
  ops::l2_normalize_backward(pass.context, dz, state.z, state.norm, dz);
  mlp_backward(pass, head.mlp, state.mlp, state.pooled, dz, dpooled);
}

}  // namespace voca::model
