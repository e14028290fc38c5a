#include "engine/core/model.h"

namespace voca::engine {
namespace {

TensorList meta_tensors(const std::vector<TensorSpec>& specs, std::int64_t size, DType compute_type) {
  TensorList tensors;
  for (const TensorSpec& spec : specs) tensors.push_back(spec.meta(size, compute_type));
  return tensors;
}

/// A batch without memory; `rows_by_rank` must outlive it.
Batch meta_batch(const Model& model, DType compute_type, std::int64_t batch_size,
                 std::span<const std::int64_t> rows_by_rank = {}) {
  Batch batch;
  batch.size = batch_size;
  batch.inputs = meta_tensors(model.signature().batch.inputs, batch_size, compute_type);
  batch.targets = meta_tensors(model.signature().batch.targets, batch_size, compute_type);
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
  const auto losses = static_cast<std::int64_t>(model.signature().losses.size());
  model.forward_backward(context, parameters, meta_batch(model, compute_type, batch_size, rows_by_rank), {},
                         {}, meta_tensors(model.signature().outputs, batch_size, compute_type),
                         meta_tensor("losses", {losses}, statistics_type(compute_type)));
  return {arena.high_water(), arena.peak_lines()};
}

ArenaPlan plan_prediction(const Model& model, DType compute_type, std::int64_t batch_size,
                          const Backend& backend) {
  const ParameterStore parameters(model.parameters(), compute_type, false, nullptr);
  Arena arena(backend.device);
  Context context{.arena = arena, .gemm_library = backend.gemm_library};
  model.predict(context, parameters, meta_batch(model, compute_type, batch_size),
                meta_tensors(model.signature().outputs, batch_size, compute_type),
                meta_tensor("row losses", {batch_size}, statistics_type(compute_type)));
  return {arena.high_water(), arena.peak_lines()};
}

}  // namespace voca::engine
