#include "tools/run_memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "data/batches/device_batches.h"
#include "data/batches/resident_batch_source.h"
#include "data/packed/frame_reader.h"
#include "engine/base/error.h"
#include "engine/comm/gradient_buckets.h"
#include "engine/trainer/evaluator.h"
#include "model/registry.h"

namespace voca::tools {
namespace {

using data::Residency;
using engine::MemoryLine;

/// Each element of a step's tensors costs at least one operation: below this limit no tensor size overflows.
constexpr double kMaxOperations = 1152921504606846976.0;  // 2^60

bool on_gpu(const RunNeeds& needs) {
  return needs.backend.device == engine::DeviceKind::kCuda;
}

RunNeeds with_batch(RunNeeds needs, std::int64_t batch) {
  if (needs.request.train_batch > 0) needs.request.train_batch = batch;
  if (needs.request.eval_batch > 0) needs.request.eval_batch = batch;
  needs.batches.sampler.batch_size = batch;
  return needs;
}

std::int64_t batch_of(const RunNeeds& needs) {
  return std::max(needs.request.train_batch, needs.request.eval_batch);
}

double operations_of(const RunNeeds& needs) {
  return needs.operations(batch_of(needs)) * static_cast<double>(needs.request.grad_accum);
}

/// Host memory in which batches are assembled, in bytes.
std::size_t assembled_bytes(const RunNeeds& needs) {
  data::BatchSourceOptions batches = needs.batches;
  if (on_gpu(needs)) batches.dtype = engine::DType::kF32;
  return static_cast<std::size_t>(needs.sources) *
         data::batch_buffer_bytes(batches, needs.visual_dim, needs.audio_dim);
}

/// GPU memory for batches, in bytes.
std::size_t staged_bytes(const RunNeeds& needs, Residency residency) {
  const auto bytes =
      residency == Residency::kGpu ? data::ResidentBatchSource::batch_bytes : data::staged_batch_bytes;
  return static_cast<std::size_t>(needs.sources) * bytes(needs.batches, needs.visual_dim, needs.audio_dim);
}

void add(std::vector<MemoryLine>& lines, const char* name, std::size_t bytes) {
  if (bytes > 0) lines.push_back({name, bytes});
}

std::size_t bytes_named(const std::vector<MemoryLine>& lines, std::initializer_list<std::string_view> names) {
  std::size_t sum = 0;
  for (const MemoryLine& line : lines)
    if (std::ranges::find(names, line.name) != names.end()) sum += line.bytes;
  return sum;
}

/// Host memory of one gradient all-reduce in flight, in bytes: the first bucket.
std::size_t collective_bytes(const RunNeeds& needs, const std::vector<MemoryLine>& workspace) {
  if (needs.request.world_size == 1 || needs.request.train_batch == 0 || needs.bucket_bytes == 0) return 0;
  const std::size_t element = engine::size_of(needs.request.compute_type);
  const auto elements = static_cast<std::int64_t>(bytes_named(workspace, {"gradients"}) / element);
  const std::vector<engine::Bucket> buckets = engine::cut_buckets(elements, element, needs.bucket_bytes);
  return buckets.empty() ? 0 : static_cast<std::size_t>(buckets[0].end - buckets[0].begin) * element;
}

/// Adds everything that the run allocates beside its workspace. On a CPU, all of it is on the device.
void add_beside(const RunNeeds& needs, const std::vector<MemoryLine>& workspace, Residency residency,
                std::vector<MemoryLine>& device, std::vector<MemoryLine>& host) {
  const bool gpu = on_gpu(needs);
  std::vector<MemoryLine>& lines = gpu ? host : device;
  const auto frame_bytes = static_cast<std::size_t>(needs.frame_bytes);
  if (gpu) add(device, "batches", staged_bytes(needs, residency));
  if (gpu && residency == Residency::kGpu) add(device, "frames held on the device", frame_bytes);
  if (residency != Residency::kGpu)
    add(lines, gpu && needs.pinned ? "batches, page-locked" : "batches", assembled_bytes(needs));
  if (residency == Residency::kHost) add(lines, "frames held in memory", frame_bytes);
  add(lines, "predictions",
      engine::Evaluator::host_bytes(needs.network->signature(), needs.predictions, needs.request.eval_batch,
                                    needs.request.world_size));
  if (!gpu) {
    add(lines, "gradients on their way", collective_bytes(needs, workspace));
  } else if (needs.request.train_batch > 0) {
    const char* const masters =
        needs.request.compute_type == engine::DType::kF32 ? "weights" : "master weights";
    add(lines, "state to save", bytes_named(workspace, {masters, "first moments", "second moments"}));
  }
}

RunMemory lay_out(const RunNeeds& needs, Residency residency) {
  engine::MemoryPlan plan = engine::plan_memory(*needs.network, needs.request, needs.backend);
  RunMemory memory{.device = plan.lines,
                   .activations = std::move(plan.arena_lines),
                   .workspace = plan.lines,
                   .residency = residency};
  add_beside(needs, memory.workspace, residency, memory.device, memory.host);
  return memory;
}

/// A rank's share of the free memory, in bytes.
std::size_t share_of(const engine::FreeMemory& free, int ranks) {
  return free.known() ? free.bytes / static_cast<std::size_t>(ranks)
                      : std::numeric_limits<std::size_t>::max();
}

/// Chooses between host memory and the packed file for the frames.
RunMemory lay_out_on_host(const RunNeeds& needs, const Room& room) {
  const int ranks = room.ranks_here;
  const std::string copies = ranks == 1 ? "" : fmt::format(", a copy for each of {} ranks", ranks);
  const std::string size = engine::memory_text(static_cast<std::size_t>(needs.frame_bytes));
  const Residency chosen =
      data::resolve_residency(Residency::kAuto, needs.frame_bytes, ranks, room.host.bytes);
  if (chosen == Residency::kHost) {
    RunMemory memory = lay_out(needs, Residency::kHost);
    memory.why = fmt::format("frames in memory, {}{}", size, copies);
    if (fits(memory, needs, room)) return memory;
  }
  RunMemory memory = lay_out(needs, Residency::kDisk);
  memory.why = fmt::format(
      "frames read from the file: {}{} would fill more than half of the memory or leave too little", size,
      copies);
  return memory;
}

[[noreturn]] void throw_out_of_memory(const RunNeeds& needs, const RunMemory& memory, const Room& room) {
  const bool of_gpu = on_gpu(needs) && room.device && bytes_of(memory.device) > share_of(*room.device, 1);
  const bool beside = on_gpu(needs) && !of_gpu;
  engine::throw_out_of_memory({.where = beside ? "host" : std::string(engine::name_of(needs.backend.device)),
                               .lines = beside ? memory.host : memory.device,
                               .free = of_gpu ? *room.device : room.host,
                               .ranks = of_gpu ? 1 : room.ranks_here,
                               .batch = batch_of(needs),
                               .largest = largest_batch(needs, memory, room).value_or(0)});
}

}  // namespace

std::size_t bytes_of(const std::vector<MemoryLine>& lines) {
  std::size_t sum = 0;
  for (const MemoryLine& line : lines) sum += line.bytes;
  return sum;
}

RunNeeds training_needs(const TrainOptions& options, const engine::Model& network,
                        const engine::Backend& backend, engine::DType compute_type, int world_size,
                        const DataSizes& data) {
  data::BatchSourceOptions batches = batch_options(options, /*training=*/true);
  batches.dtype = compute_type;
  return {.network = &network,
          .request = {.compute_type = compute_type,
                      .train_batch = options.batches.sampler.batch_size,
                      .eval_batch = options.trainer.no_val ? 0 : options.batches.sampler.batch_size,
                      .grad_accum = options.trainer.grad_accum,
                      .world_size = world_size,
                      .wide_sums = sums_in_fp32(options, world_size)},
          .backend = backend,
          .batches = batches,
          .sources = options.trainer.no_val ? 1 : 2,
          .pinned = options.pin_memory,
          .visual_dim = data.visual_dim,
          .audio_dim = data.audio_dim,
          .frame_bytes = data.frame_bytes,
          .predictions = data.val_samples,
          .bucket_bytes = static_cast<std::size_t>(options.bucket_mb * 1048576),
          .operations = [=](std::int64_t batch) {
            return model::count_flops(model_config(options, data.visual_dim, data.audio_dim),
                                      loss_config(options, 1), batch, activations(options))
                .all();
          }};
}

Room room_of(engine::DeviceKind device, std::optional<engine::FreeMemory> free, int ranks_here) {
  if (free && !free->known()) free.reset();
  const bool is_host = device == engine::DeviceKind::kCpu;
  return {.device = free,
          .host = is_host ? free.value_or(engine::FreeMemory{}) : engine::free_host_memory(),
          .ranks_here = ranks_here};
}

Room look_at_room(const engine::Device& device, const engine::Ranks& ranks, int ranks_here) {
  Room room = room_of(device.kind(), device.free_memory(), ranks_here);
  if (!ranks.alone()) ranks.main->barrier("free memory");
  return room;
}

RunMemory plan_run(const RunNeeds& needs, const Room& room) {
  if (operations_of(needs) >= kMaxOperations) {
    throw engine::UsageError(
        "--batch_size {}, --seq_len {}: a step of {:.3g} operations is beyond counting, and so is its "
        "memory; take smaller numbers, of --hidden and --grad_accum too",
        batch_of(needs), needs.batches.seq_len, operations_of(needs));
  }
  if (needs.batches.residency != Residency::kAuto) return lay_out(needs, needs.batches.residency);
  if (needs.frame_bytes == 0) return lay_out(needs, Residency::kDisk);  // no dataset is given
  if (on_gpu(needs) && room.device) {
    RunMemory memory = lay_out(needs, Residency::kGpu);
    memory.why = fmt::format("frames on the GPU, {}",
                             engine::memory_text(static_cast<std::size_t>(needs.frame_bytes)));
    if (fits(memory, needs, room)) return memory;
  }
  return lay_out_on_host(needs, room);
}

std::optional<std::int64_t> largest_batch(const RunNeeds& needs, const RunMemory& memory, const Room& room) {
  constexpr std::int64_t kMax = std::int64_t{1} << 20;
  constexpr std::size_t kTooMuch = std::numeric_limits<std::size_t>::max();
  if (on_gpu(needs) ? !room.device : !room.host.known()) return std::nullopt;
  const std::size_t bytes = on_gpu(needs) ? room.device->bytes : share_of(room.host, room.ranks_here);
  const auto beside_workspace = [&](std::int64_t batch) {
    const RunNeeds of_batch = with_batch(needs, batch);
    if (operations_of(of_batch) >= kMaxOperations) return kTooMuch;
    std::vector<MemoryLine> device;
    std::vector<MemoryLine> host;
    add_beside(of_batch, memory.workspace, memory.residency, device, host);
    return bytes_of(host) > share_of(room.host, room.ranks_here) ? kTooMuch : bytes_of(device);
  };
  return engine::largest_batch(*needs.network, needs.request, bytes, beside_workspace, kMax, needs.backend);
}

std::string memory_text(const RunMemory& memory, const Room& room) {
  const auto of = [](const std::vector<MemoryLine>& lines, const engine::FreeMemory& free, int ranks) {
    const std::string limit = free.limit.empty() ? "" : fmt::format(" ({})", free.limit);
    const std::string each = ranks == 1 ? "" : fmt::format("{} x ", ranks);
    return fmt::format("{}{} of {}{}", each, engine::memory_text(bytes_of(lines)),
                       engine::memory_text(free.bytes), limit);
  };
  std::string text = "takes ";
  text += memory.host.empty() ? of(memory.device, room.host, room.ranks_here)
                              : of(memory.device, room.device.value_or(engine::FreeMemory{}), 1);
  if (!memory.host.empty()) text += "; of the host " + of(memory.host, room.host, room.ranks_here);
  return memory.why.empty() ? text : text + "; " + memory.why;
}

bool fits(const RunMemory& memory, const RunNeeds& needs, const Room& room) {
  if (!on_gpu(needs)) return bytes_of(memory.device) <= share_of(room.host, room.ranks_here);
  return (!room.device || bytes_of(memory.device) <= share_of(*room.device, 1)) &&
         bytes_of(memory.host) <= share_of(room.host, room.ranks_here);
}

RunMemory plan_run_that_fits(const RunNeeds& needs, const Room& room) {
  RunMemory memory = plan_run(needs, room);
  if (!fits(memory, needs, room)) throw_out_of_memory(needs, memory, room);
  return memory;
}

}  // namespace voca::tools
