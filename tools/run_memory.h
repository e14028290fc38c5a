#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "data/batches/batch_source.h"
#include "engine/base/memory_limits.h"
#include "engine/core/device.h"
#include "engine/trainer/memory_plan.h"
#include "engine/trainer/ranks.h"
#include "tools/options/train_options.h"

namespace voca::tools {

/// What the memory plan of a run, a training or a prediction, depends on.
struct RunNeeds {
  const engine::Model* network = nullptr;
  engine::MemoryRequest request;
  engine::Backend backend;
  data::BatchSourceOptions batches;  ///< `dtype` is the compute type, `batch_size` that of the request
  int sources = 1;                   ///< number of batch sources that exist at once
  bool pinned = false;               ///< batches for a GPU are assembled in pinned memory
  std::int64_t visual_dim = 0;
  std::int64_t audio_dim = 0;
  std::int64_t frame_bytes = 0;  ///< stored frames of the splits in use
  std::int64_t predictions = 0;  ///< number of samples whose predictions are kept
  std::size_t bucket_bytes = 0;  ///< size of a gradient all-reduce bucket
  /// Operations of a step on a batch of the given size; exceeds its limit before any tensor size overflows.
  std::function<double(std::int64_t)> operations;
};

/// Sizes of the data that the memory of a training depends on.
struct DataSizes {
  std::int64_t visual_dim = 0;
  std::int64_t audio_dim = 0;
  std::int64_t frame_bytes = 0;  ///< stored frames of both splits
  std::int64_t val_samples = 0;
};
[[nodiscard]] RunNeeds training_needs(const TrainOptions& options, const engine::Model& network,
                                      const engine::Backend& backend, engine::DType compute_type,
                                      int world_size, const DataSizes& data);

/// Memory available to a run. Host memory is shared by the ranks of the node; a GPU belongs to one rank.
struct Room {
  std::optional<engine::FreeMemory> device;  ///< nullopt: unknown; on a CPU, that of the host
  engine::FreeMemory host;
  int ranks_here = 1;
};

/// The room on a device with `free` memory, and in the host's memory.
[[nodiscard]] Room room_of(engine::DeviceKind device, std::optional<engine::FreeMemory> free,
                           int ranks_here = 1);

/// The memory available now on `device` and the host. Waits for the other ranks, so that none allocates
/// before the last one has looked.
[[nodiscard]] Room look_at_room(const engine::Device& device, const engine::Ranks& ranks, int ranks_here);

/// Everything that a rank allocates, by name, before any of it is allocated.
struct RunMemory {
  std::vector<engine::MemoryLine> device;       ///< on the computing device; on a CPU, everything
  std::vector<engine::MemoryLine> host{};       ///< host memory beside a GPU; empty on a CPU
  std::vector<engine::MemoryLine> activations;  ///< what is live in the line "activations" at its peak
  std::vector<engine::MemoryLine> workspace;    ///< the lines of `device` that an engine::Workspace allocates
  data::Residency residency = data::Residency::kDisk;  ///< where the frames are stored
  std::string why{};  ///< reason for the residency, for people; empty if it was not chosen here
};

/// Plans the memory of a run, with its frames at `needs.batches.residency`. kAuto means the GPU if they fit
/// beside the rest, else the host's memory if the copies of all ranks take at most half of it, else the disk,
/// whose page cache all ranks share. Throws UsageError if the sizes would overflow.
[[nodiscard]] RunMemory plan_run(const RunNeeds& needs, const Room& room);

/// The largest --batch_size that fits with the frames where `memory` has them; nullopt if the available
/// memory is unknown, 0 if not even one video fits.
[[nodiscard]] std::optional<std::int64_t> largest_batch(const RunNeeds& needs, const RunMemory& memory,
                                                        const Room& room);

/// Whether a planned run fits the room.
[[nodiscard]] bool fits(const RunMemory& memory, const RunNeeds& needs, const Room& room);

/// plan_run(), checked against `room`. Throws Error (exit code 74) with the table and the largest batch that
/// fits.
[[nodiscard]] RunMemory plan_run_that_fits(const RunNeeds& needs, const Room& room);

/// "takes 12.5 MiB of 19.5 GiB (cgroup limit 20.0 GiB of /job); frames in memory, 3.1 MiB"
[[nodiscard]] std::string memory_text(const RunMemory& memory, const Room& room);

[[nodiscard]] std::size_t bytes_of(const std::vector<engine::MemoryLine>& lines);

}  // namespace voca::tools
