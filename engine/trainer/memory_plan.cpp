#include "engine/trainer/memory_plan.h"

#include <algorithm>
#include <utility>

#include "engine/base/error.h"
#include "engine/ops/ops.h"
#include "kernels/adamw.h"

namespace voca::engine {
namespace {

constexpr const char* kActivations = "activations";
constexpr const char* kRowLosses = "row losses";
constexpr const char* kLosses = "losses";
constexpr const char* kGradientNorm = "gradient norm";
constexpr const char* kOptimizerState = "optimizer state";
constexpr const char* kGemmWorkspace = "GEMM workspace";

RunResults lay_out_results(const Model& model, const MemoryRequest& request) {
  const DType statistics = statistics_type(request.compute_type);
  const std::int64_t largest = std::max(request.train_batch, request.eval_batch);
  RunResults results;
  for (const TensorSpec& spec : model.signature().outputs)
    results.outputs.push_back(spec.meta(largest, request.compute_type));
  if (request.eval_batch > 0)
    results.row_losses = {.shape = {request.eval_batch}, .dtype = statistics, .name = kRowLosses};
  if (request.train_batch > 0) {
    const auto losses = static_cast<std::int64_t>(model.signature().losses.size());
    results.losses = {.shape = {request.grad_accum, losses}, .dtype = statistics, .name = kLosses};
    results.gradient_norm = {.shape = {1}, .dtype = statistics, .name = kGradientNorm};
    results.optimizer_state = {
        .shape = {sizeof(kernels::OptimizerState)}, .dtype = DType::kU8, .name = kOptimizerState};
  }
  return results;
}

/// Arena size of the weight update.
ArenaPlan plan_update(const ParameterStore& parameters, const RunResults& results, const Backend& backend) {
  Arena arena(backend.device);
  Context context{arena};
  ops::gradient_norm(context, parameters.gradient_sums(), results.gradient_norm);
  ops::adamw(context, {.state = results.optimizer_state,
                       .norm = results.gradient_norm,
                       .losses = results.losses,
                       .gradient = parameters.gradient_sums(),
                       .master = parameters.masters(),
                       .exp_avg = parameters.exp_avgs(),
                       .exp_avg_sq = parameters.exp_avg_sqs(),
                       .weights = parameters.weights()});
  return {arena.high_water(), arena.peak_lines()};
}

/// Arena size of a run: training, update and evaluation use the arena one after another.
ArenaPlan plan_arena(const Model& model, const MemoryRequest& request, const ParameterStore& parameters,
                     const RunResults& results, const Backend& backend) {
  ArenaPlan largest;
  const auto consider = [&](ArenaPlan plan) {
    if (plan.bytes > largest.bytes) largest = std::move(plan);
  };
  if (request.train_batch > 0) {
    consider(plan_training(model, request.compute_type, request.train_batch, backend));
    consider(plan_update(parameters, results, backend));
  }
  if (request.eval_batch > 0)
    consider(plan_prediction(model, request.compute_type, request.eval_batch, backend));
  return largest;
}

/// Size of the GEMM workspace on a GPU; 0 on the CPU, where GEMMs are kernels.
std::size_t product_workspace_bytes(const Backend& backend) {
  if (backend.device != DeviceKind::kCuda) return 0;
  return backend.gemm_library != nullptr ? backend.gemm_library->workspace_bytes() : kGemmWorkspaceBytes;
}

/// Throws before anything is allocated: on the CPU, overcommitted memory fails only when it is touched.
const Model& check_fits(const Model& model, const MemoryRequest& request, Device& device) {
  const FreeMemory free = device.free_memory();
  const Backend backend{.device = device.kind(), .gemm_library = device.gemm_library()};
  const MemoryPlan plan = plan_memory(model, request, backend);
  if (!free.known() || plan.bytes() <= free.bytes) return model;
  const std::int64_t batch = std::max(request.train_batch, request.eval_batch);
  throw_out_of_memory({.where = std::string(name_of(device.kind())),
                       .lines = plan.lines,
                       .free = free,
                       .batch = batch,
                       .largest = largest_batch(model, request, free.bytes, {}, batch, backend)});
}

}  // namespace

std::vector<Tensor*> RunResults::tensors() {
  std::vector<Tensor*> tensors;
  for (Tensor& output : outputs) tensors.push_back(&output);
  for (Tensor* tensor : {&row_losses, &losses, &gradient_norm, &optimizer_state})
    if (*tensor) tensors.push_back(tensor);
  return tensors;
}

MemoryPlan plan_memory(const Model& model, const MemoryRequest& request, const Backend& backend) {
  VOCA_CHECK(request.train_batch > 0 || request.eval_batch > 0);
  const ParameterStore parameters(model.parameters(), request.compute_type, request.train_batch > 0, nullptr,
                                  request.wide_sums);
  RunResults results = lay_out_results(model, request);
  // No GEMM library is passed to the dry run, since the run may never execute these GEMMs.
  ArenaPlan arena = plan_arena(model, request, parameters, results,
                               {.device = backend.device, .world_size = request.world_size});
  MemoryPlan plan{.lines = parameters.lines(), .arena_lines = std::move(arena.lines)};
  plan.lines.push_back({kActivations, arena.bytes});
  if (const std::size_t bytes = product_workspace_bytes(backend); bytes > 0)
    plan.lines.push_back({kGemmWorkspace, bytes});
  for (const Tensor* tensor : results.tensors()) plan.lines.push_back({tensor->name, tensor->bytes()});
  return plan;
}

std::int64_t largest_batch(const Model& model, const MemoryRequest& request, std::size_t bytes,
                           const std::function<std::size_t(std::int64_t)>& source_bytes, std::int64_t limit,
                           const Backend& backend) {
  const auto fits = [&](std::int64_t batch) {
    MemoryRequest candidate = request;
    if (candidate.train_batch > 0) candidate.train_batch = batch;
    if (candidate.eval_batch > 0) candidate.eval_batch = batch;
    const std::size_t source = source_bytes ? source_bytes(batch) : 0;
    return source <= bytes && plan_memory(model, candidate, backend).bytes() <= bytes - source;
  };
  if (limit < 1 || !fits(1)) return 0;
  std::int64_t good = 1;  // doubled first: a dry run far beyond what fits could overflow a size
  while (good < limit && fits(std::min(2 * good, limit))) good = std::min(2 * good, limit);
  std::int64_t bad = std::min(2 * good, limit + 1);
  while (bad - good > 1) {
    const std::int64_t middle = good + (bad - good) / 2;
    (fits(middle) ? good : bad) = middle;
  }
  return good;
}

void throw_out_of_memory(const OutOfMemory& what) {
  const std::string limit = what.free.limit.empty() ? "" : fmt::format(" ({})", what.free.limit);
  const std::string sharers = what.ranks == 1 ? "" : fmt::format(" by each of {} ranks here", what.ranks);
  const std::string advice = what.largest > 0
                                 ? fmt::format("the largest --batch_size that fits is {}", what.largest)
                                 : "not even one sample fits: a smaller model, a shorter --seq_len, fewer "
                                   "--threads and --num_workers take less";
  throw Error(ExitCode::kIo,
              fmt::format("{}: out of memory: {} bytes are needed{} for --batch_size {}, {} are free{}; "
                          "{}:\n{}",
                          what.where, total_bytes(what.lines), sharers, what.batch, what.free.bytes, limit,
                          advice, format_memory(what.lines)));
}

Workspace::Workspace(const Model& model, const MemoryRequest& request, Device& device)
    : request_(request),
      device_(device),
      parameters_(check_fits(model, request, device).parameters(), request.compute_type,
                  request.train_batch > 0, &device, request.wide_sums),
      results_(lay_out_results(model, request)) {
  const auto take = [&](const char* name, std::size_t bytes) {
    blocks_.push_back(device.allocate(name, bytes));
    return blocks_.back().data();
  };
  const Backend backend{
      .device = device.kind(), .gemm_library = device.gemm_library(), .world_size = request.world_size};
  const std::size_t arena_bytes = plan_arena(model, request, parameters_, results_, backend).bytes;
  arena_ = Arena(take(kActivations, arena_bytes), arena_bytes, device.kind());
  std::byte* const activations = blocks_.back().data();
  if (const std::size_t bytes = product_workspace_bytes(backend); bytes > 0) {
    std::byte* const workspace = take(kGemmWorkspace, bytes);
    if (backend.gemm_library != nullptr) backend.gemm_library->tune(workspace, activations, arena_bytes);
  }
  for (Tensor* tensor : results_.tensors()) {
    tensor->data = take(tensor->name, tensor->bytes());
    tensor->device = device.kind();
  }
}

TensorList Workspace::outputs(std::int64_t size) const {
  TensorList outputs;
  for (const Tensor& tensor : results_.outputs) outputs.push_back(tensor.rows(0, size));
  return outputs;
}

Tensor Workspace::losses(std::int64_t batch_in_step) const {
  return losses().rows(batch_in_step, 1).view({losses().shape[1]});
}

Tensor Workspace::row_losses(std::int64_t size) const {
  return results_.row_losses.rows(0, size);
}

}  // namespace voca::engine
