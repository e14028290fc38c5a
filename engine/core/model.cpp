#include "engine/core/model.h"

namespace voca::engine {
namespace {

/// A batch without memory; `rows_by_rank` must outlive it.
Batch meta_batch(const Model& model, DType compute_type, std::int64_t batch_size,
                 std::span<const std::int64_t> rows_by_rank = {}) {
  Batch batch;
  batch.size = batch_size;
  for (int input = 0; input < kMaxInputs; ++input) {
    batch.inputs[static_cast<std::size_t>(input)] = {
        .shape = model.input_shape(input, batch_size), .dtype = compute_type, .name = "input"};
  }
  batch.labels = {.shape = {batch_size}, .dtype = DType::kI32, .name = "labels"};
  batch.rows_by_rank = rows_by_rank;
  return batch;
}

Tensor meta_tensor(const char* name, const Shape& shape, DType dtype) {
  return {.shape = shape, .dtype = dtype, .name = name};
}

}  // namespace

ArenaPlan plan_training(const Model& model, DType compute_type, std::int64_t batch_size,
                        const Backend& backend) {
  const ParameterStore parameters(model.parameters(), compute_type, true, nullptr);
  Arena arena(backend.device);
  Context context{.arena = arena, .gemm_library = backend.gemm_library};
  const std::vector<std::int64_t> rows_by_rank(static_cast<std::size_t>(backend.world_size), batch_size);
  model.forward_backward(context, parameters, meta_batch(model, compute_type, batch_size, rows_by_rank), {},
                         {}, meta_tensor("logits", {batch_size, model.outputs()}, compute_type),
                         meta_tensor("losses", {kLossCount}, statistics_type(compute_type)));
  return {arena.high_water(), arena.peak_lines()};
}

ArenaPlan plan_prediction(const Model& model, DType compute_type, std::int64_t batch_size,
                          const Backend& backend) {
  const ParameterStore parameters(model.parameters(), compute_type, false, nullptr);
  Arena arena(backend.device);
  Context context{.arena = arena, .gemm_library = backend.gemm_library};
  model.predict(context, parameters, meta_batch(model, compute_type, batch_size),
                meta_tensor("logits", {batch_size, model.outputs()}, compute_type),
                meta_tensor("row losses", {batch_size}, statistics_type(compute_type)));
  return {arena.high_water(), arena.peak_lines()};
}

}  // namespace voca::engine
