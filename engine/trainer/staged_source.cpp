#include "engine/trainer/staged_source.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "engine/core/context.h"
#include "engine/ops/ops.h"

namespace voca::engine {
namespace {

std::vector<Device::Block> allocate(Device& device, const std::vector<TensorSpec>& specs, std::int64_t size,
                                    DType dtype) {
  std::vector<Device::Block> blocks;
  for (const TensorSpec& spec : specs) blocks.push_back(device.allocate("batches", spec.bytes(size, dtype)));
  return blocks;
}

std::size_t bytes_of(const std::vector<TensorSpec>& specs, std::int64_t size, DType dtype) {
  std::size_t bytes = 0;
  for (const TensorSpec& spec : specs) bytes += spec.bytes(size, dtype);
  return bytes;
}

}  // namespace

StagedBatchSource::StagedBatchSource(std::unique_ptr<BatchSource> source, Device& device,
                                     const BatchSpec& spec, DType compute_type)
    : source_(std::move(source)),
      device_(device),
      compute_type_(compute_type),
      no_memory_(nullptr, 0, device.kind()) {
  const std::int64_t size = source_->max_batch_size();
  for (Slot& slot : slots_) {
    slot.inputs = allocate(device, spec.inputs, size, DType::kF32);
    slot.targets = allocate(device, spec.targets, size, DType::kF32);
    slot.samples.reserve(static_cast<std::size_t>(size));
    slot.copied = Device::Event(device);
    slot.consumed = Device::Event(device);
  }
  if (compute_type != DType::kF32) rounded_ = allocate(device, spec.inputs, size, compute_type);
}

StagedBatchSource::~StagedBatchSource() {
  try {
    device_.synchronize(device_.copy_stream());  // copies in flight read the source's memory
  } catch (const std::exception& error) {
    spdlog::error("batches: {}", error.what());
  }
}

std::size_t StagedBatchSource::device_bytes(const BatchSpec& spec, DType compute_type,
                                            std::int64_t batch_size) {
  const std::size_t staged =
      bytes_of(spec.inputs, batch_size, DType::kF32) + bytes_of(spec.targets, batch_size, DType::kF32);
  const std::size_t rounded =
      compute_type == DType::kF32 ? 0 : bytes_of(spec.inputs, batch_size, compute_type);
  return 2 * staged + rounded;
}

void StagedBatchSource::start_epoch(std::int64_t epoch, std::int64_t first_batch) {
  for (Slot& slot : slots_) {
    slot.copied.synchronize();  // the source is about to reuse the memory that these copies read
    slot.consumed.record(device_.compute_stream());
    slot.filled = false;
    slot.failure = nullptr;
  }
  source_->start_epoch(epoch, first_batch);
  front_ = 0;
  stage(slots_[front_]);
}

const Batch* StagedBatchSource::next() {
  Slot& slot = slots_[front_];
  Slot& other = slots_[1 - front_];
  if (slot.failure) std::rethrow_exception(slot.failure);
  if (!slot.filled) return nullptr;
  other.consumed.record(device_.compute_stream());
  slot.copied.wait_on(device_.compute_stream());
  if (compute_type_ != DType::kF32) round(slot);
  slot.copied.synchronize();  // afterwards the source may reuse its memory
  stage(other);
  front_ = 1 - front_;
  return &slot.batch;
}

// Queues the copy of the source's next batch into the slot.
void StagedBatchSource::stage(Slot& slot) {
  slot.filled = false;
  const Batch* batch = nullptr;
  try {
    batch = source_->next();
  } catch (...) {
    slot.failure = std::current_exception();
    return;
  }
  if (batch == nullptr) return;
  const Stream stream = device_.copy_stream();
  slot.consumed.wait_on(stream);
  slot.batch = *batch;
  slot.samples.assign(batch->samples.begin(), batch->samples.end());
  slot.batch.samples = slot.samples;
  const auto move = [&](const Device::Block& block, Tensor& tensor) {
    VOCA_CHECK(tensor.device == DeviceKind::kCpu && tensor.bytes() <= block.bytes());
    if (tensor.bytes() > 0) device_.copy_to_device(block.data(), tensor.data, tensor.bytes(), stream);
    tensor.data = block.data();
    tensor.device = device_.kind();
  };
  for (std::size_t i = 0; i < slot.inputs.size(); ++i) move(slot.inputs[i], slot.batch.inputs[i]);
  for (std::size_t i = 0; i < slot.targets.size(); ++i) move(slot.targets[i], slot.batch.targets[i]);
  slot.copied.record(stream);
  slot.filled = true;
}

// Runs in the order of the compute stream, so that one buffer for the rounded inputs is enough.
void StagedBatchSource::round(Slot& slot) {
  Context context{.arena = no_memory_, .stream = device_.compute_stream()};
  for (std::size_t i = 0; i < rounded_.size(); ++i) {
    Tensor& input = slot.batch.inputs[i];
    Tensor to = input;
    to.data = rounded_[i].data();
    to.dtype = compute_type_;
    if (input.elements() > 0) ops::cast(context, input, to);
    input = to;
  }
}

}  // namespace voca::engine
