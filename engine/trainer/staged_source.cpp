#include "engine/trainer/staged_source.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "engine/core/context.h"
#include "engine/ops/ops.h"

namespace voca::engine {
namespace {

std::size_t sample_elements(const Shape& shape) {
  return shape.rank() == 0 ? 0 : static_cast<std::size_t>(shape.elements());
}

}  // namespace

StagedBatchSource::StagedBatchSource(std::unique_ptr<BatchSource> source, Device& device,
                                     const SampleShapes& inputs, DType compute_type)
    : source_(std::move(source)),
      device_(device),
      compute_type_(compute_type),
      no_memory_(nullptr, 0, device.kind()) {
  const auto most = static_cast<std::size_t>(source_->max_batch_size());
  for (Slot& slot : slots_) {
    for (std::size_t i = 0; i < kMaxInputs; ++i) {
      if (const std::size_t elements = most * sample_elements(inputs[i]); elements > 0)
        slot.inputs[i] = device.allocate("batches", elements * sizeof(float));
    }
    slot.labels = device.allocate("batches", most * sizeof(std::int32_t));
    slot.samples.reserve(most);
    slot.copied = Device::Event(device);
    slot.consumed = Device::Event(device);
  }
  if (compute_type == DType::kF32) return;
  for (std::size_t i = 0; i < kMaxInputs; ++i) {
    if (const std::size_t elements = most * sample_elements(inputs[i]); elements > 0)
      rounded_[i] = device.allocate("batches", elements * size_of(compute_type));
  }
}

StagedBatchSource::~StagedBatchSource() {
  try {
    device_.synchronize(device_.copy_stream());  // copies in flight read the source's memory
  } catch (const std::exception& error) {
    spdlog::error("batches: {}", error.what());
  }
}

std::size_t StagedBatchSource::device_bytes(const SampleShapes& inputs, DType compute_type,
                                            std::int64_t batch_size) {
  const auto most = static_cast<std::size_t>(batch_size);
  std::size_t bytes = 2 * most * sizeof(std::int32_t);
  for (const Shape& shape : inputs) {
    const std::size_t elements = most * sample_elements(shape);
    bytes += elements * (2 * sizeof(float) + (compute_type == DType::kF32 ? 0 : size_of(compute_type)));
  }
  return bytes;
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
    if (!tensor) return;
    VOCA_CHECK(tensor.device == DeviceKind::kCpu && tensor.bytes() <= block.bytes());
    if (tensor.bytes() > 0) device_.copy_to_device(block.data(), tensor.data, tensor.bytes(), stream);
    tensor.data = block.data();
    tensor.device = device_.kind();
  };
  for (std::size_t i = 0; i < kMaxInputs; ++i) move(slot.inputs[i], slot.batch.inputs[i]);
  move(slot.labels, slot.batch.labels);
  slot.copied.record(stream);
  slot.filled = true;
}

// Runs in the order of the compute stream, so that one buffer for the rounded inputs is enough.
void StagedBatchSource::round(Slot& slot) {
  Context context{.arena = no_memory_, .stream = device_.compute_stream()};
  for (std::size_t i = 0; i < kMaxInputs; ++i) {
    Tensor& input = slot.batch.inputs[i];
    if (!input) continue;
    Tensor to = input;
    to.data = rounded_[i].data();
    to.dtype = compute_type_;
    if (input.elements() > 0) ops::cast(context, input, to);
    input = to;
  }
}

}  // namespace voca::engine
