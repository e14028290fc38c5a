#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "data/batches/batch_source.h"
#include "engine/core/batch.h"
#include "engine/core/device.h"

namespace voca::data {

/// Creates a source of batches of `samples` in the memory of `device`, in `options.dtype`. On the CPU it is a
/// PackedBatchSource. On a GPU, batches are assembled on the host and staged or, with Residency::kGpu, cut
/// from frames held by the GPU. kAuto is treated like host assembly; resolve it with resolve_residency first.
/// `pinned` assembles in page-locked memory, so that copies overlap with computation. `device` must outlive
/// the source. Throws UsageError naming the option when `options` request kGpu on the CPU.
[[nodiscard]] std::unique_ptr<engine::BatchSource> make_device_batches(
    const std::shared_ptr<const Dataset>& dataset, const std::vector<std::int64_t>& samples,
    const BatchSourceOptions& options, bool pinned, engine::Device& device);

/// Device memory of a staged source in bytes.
[[nodiscard]] std::size_t staged_batch_bytes(const BatchSourceOptions& options, std::int64_t visual_dim,
                                             std::int64_t audio_dim);

}  // namespace voca::data
