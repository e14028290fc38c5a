#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "data/batches/batch_source.h"
#include "engine/core/batch.h"
#include "engine/core/device.h"

namespace voca::data {

/// Batches of `samples` where `device` computes, in `options.dtype`. On the CPU they are a
/// PackedBatchSource's; on a GPU they are assembled on the host and staged, or, with Residency::kGpu, cut out
/// of frames that the GPU holds. kAuto is for resolve_residency to decide and means assembled here. `pinned`
/// assembles in page-locked memory, from which copies overlap with the computation. The device outlives them.
/// Throws UsageError naming the option when `options` ask for a GPU's frames on the CPU.
[[nodiscard]] std::unique_ptr<engine::BatchSource> make_device_batches(
    const std::shared_ptr<const Dataset>& dataset, const std::vector<std::int64_t>& samples,
    const BatchSourceOptions& options, bool pinned, engine::Device& device);

/// Device memory that one takes on a GPU.
[[nodiscard]] std::size_t staged_batch_bytes(const BatchSourceOptions& options, std::int64_t visual_dim,
                                             std::int64_t audio_dim);

}  // namespace voca::data
