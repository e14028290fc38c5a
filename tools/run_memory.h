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
#include "engine/trainer/memory.h"
#include "engine/trainer/ranks.h"
#include "tools/options/train_options.h"

namespace voca::tools {

/// What the memory of a run, a training or a prediction, follows from.
struct RunNeeds {
  const engine::Model* network = nullptr;
  engine::MemoryRequest request;
  engine::Backend backend;
  data::BatchSourceOptions batches;  ///< `dtype` is the compute type; `batch_size` that of the request
  int sources = 1;                   ///< of batches, held at once
  bool pinned = false;               ///< a GPU's are assembled in page-locked memory
  std::int64_t visual_dim = 0;
  std::int64_t audio_dim = 0;
  std::int64_t frame_bytes = 0;  ///< of the splits in use, as stored
  std::int64_t predictions = 0;  ///< samples of which they are kept
  std::size_t bucket_bytes = 0;  ///< of gradients that ranks sum at a time
  /// Of a step on batches of that size, in all: what grows beyond counting before sizes do.
  std::function<double(std::int64_t)> operations;
};

/// What a training takes of the data that it is of.
struct DataSizes {
  std::int64_t visual_dim = 0;
  std::int64_t audio_dim = 0;
  std::int64_t frame_bytes = 0;  ///< of both splits
  std::int64_t val_samples = 0;
};
[[nodiscard]] RunNeeds training_needs(const TrainOptions& options, const engine::Model& network,
                                      const engine::Backend& backend, engine::DType compute_type,
                                      int world_size, const DataSizes& data);

/// Memory that a run may take. A node's is shared by its ranks, a GPU is one rank's.
struct Room {
  std::optional<engine::FreeMemory> device;  ///< nothing: not known; of a CPU the host's
  engine::FreeMemory host;
  int ranks_here = 1;
};

/// What a device that has so much `free` has, and the host beside it.
[[nodiscard]] Room room_of(engine::DeviceKind device, std::optional<engine::FreeMemory> free,
                           int ranks_here = 1);

/// What there is now on `device` and beside it. Waits for the other ranks, so that none has taken its part
/// before the last has looked.
[[nodiscard]] Room look_at_room(const engine::Device& device, const engine::Ranks& ranks, int ranks_here);

/// All that a rank takes, by name, before any of it is taken.
struct RunMemory {
  std::vector<engine::MemoryLine> device;              ///< of the device that computes; on a CPU all of it
  std::vector<engine::MemoryLine> host;                ///< beside a GPU's; empty on a CPU
  std::vector<engine::MemoryLine> activations;         ///< what is live in the line of that name at its peak
  std::vector<engine::MemoryLine> workspace;           ///< those of `device` that an engine::Workspace takes
  data::Residency residency = data::Residency::kDisk;  ///< where the frames lie
  std::string why;  ///< for people; empty where it was not for us to choose
};

/// What a run takes with its frames where `needs.batches.residency` says; kAuto is on a GPU where they fit
/// beside the rest, else in the host's memory where the copies of all ranks take at most half of it, else on
/// the disk, whose cached pages all ranks share. Throws UsageError when the sizes are beyond counting.
[[nodiscard]] RunMemory plan_run(const RunNeeds& needs, const Room& room);

/// The largest --batch_size that fits with the frames where `memory` has them; nothing where the room is not
/// known, 0 where not even one video fits.
[[nodiscard]] std::optional<std::int64_t> largest_batch(const RunNeeds& needs, const RunMemory& memory,
                                                        const Room& room);

/// plan_run(), compared with the room. Throws Error (exit 74) with the table and the largest batch that fits.
[[nodiscard]] RunMemory plan_run_that_fits(const RunNeeds& needs, const Room& room);

/// "takes 12.5 MiB of 19.5 GiB (cgroup limit 20.0 GiB of /job); frames in memory, 3.1 MiB"
[[nodiscard]] std::string memory_text(const RunMemory& memory, const Room& room);

[[nodiscard]] std::size_t bytes_of(const std::vector<engine::MemoryLine>& lines);

}  // namespace voca::tools
