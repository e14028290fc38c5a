#include "data/batches/device_batches.h"

#include "data/batches/resident_batch_source.h"
#include "engine/base/error.h"
#include "engine/trainer/staged_source.h"

namespace voca::data {

std::unique_ptr<engine::BatchSource> make_device_batches(const std::shared_ptr<const Dataset>& dataset,
                                                         const std::vector<std::int64_t>& samples,
                                                         const BatchSourceOptions& options, bool pinned,
                                                         engine::Device& device) {
  if (device.kind() == engine::DeviceKind::kCpu) {
    if (options.residency == Residency::kGpu)
      throw engine::UsageError("--data_residency gpu: the device is a CPU; use auto, host or disk");
    return std::make_unique<PackedBatchSource>(dataset, samples, options);
  }
  if (options.residency == Residency::kGpu)
    return std::make_unique<ResidentBatchSource>(dataset, samples, options, device);
  BatchSourceOptions on_host = options;
  on_host.dtype = engine::DType::kF32;
  if (pinned) on_host.pin_for = &device;
  return std::make_unique<engine::StagedBatchSource>(
      std::make_unique<PackedBatchSource>(dataset, samples, on_host), device,
      batch_spec(options, dataset->dim(Stream::kVisual), dataset->dim(Stream::kAudio)), options.dtype);
}

std::size_t staged_batch_bytes(const BatchSourceOptions& options, std::int64_t visual_dim,
                               std::int64_t audio_dim) {
  return engine::StagedBatchSource::device_bytes(batch_spec(options, visual_dim, audio_dim), options.dtype,
                                                 options.sampler.batch_size);
}

}  // namespace voca::data
