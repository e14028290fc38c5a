#include "data/batches/batch_source.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <exception>
#include <new>
#include <utility>

#include "engine/base/error.h"
#include "engine/base/thread.h"

namespace voca::data {
namespace {

using engine::DType;

/// The batch in use and two prefetched ones.
constexpr std::int64_t kSlots = 3;
constexpr std::size_t kCacheLine = 64;
constexpr std::size_t kVerifyScratch = std::size_t{256} << 10;

struct AlignedDelete {
  void operator()(std::byte* bytes) const { ::operator delete[](bytes, std::align_val_t{kCacheLine}); }
};
using AlignedBytes = std::unique_ptr<std::byte[], AlignedDelete>;

AlignedBytes aligned_bytes(std::size_t count) {
  void* const bytes = ::operator new[](count, std::align_val_t{kCacheLine}, std::nothrow);
  if (bytes == nullptr) {
    throw engine::IoError("out of memory: failed to allocate {} bytes for batches, {}; lower --batch_size",
                          count, engine::free_host_memory().text());
  }
  return AlignedBytes(static_cast<std::byte*>(bytes));
}

}  // namespace

/// A batch that is being assembled or in use.
struct PackedBatchSource::Slot {
  /// Allocates the buffer for input or labels `what`; ordinary memory if `pin_for` is null.
  std::byte* take(std::size_t what, std::size_t bytes, engine::Device* pin_for) {
    if (pin_for == nullptr) return (memory[what] = aligned_bytes(bytes)).get();
    pinned[what] = pin_for->allocate_pinned("batches", bytes);
    return pinned[what].data();
  }

  std::array<AlignedBytes, 3> memory;                 ///< inputs and labels
  std::array<engine::Device::PinnedBlock, 3> pinned;  ///< used instead of `memory` if options.pin_for is set
  PerStream<std::byte*> inputs{};
  std::span<std::int32_t> labels;
  std::vector<std::int64_t> samples;
  std::vector<std::uint8_t> good;  ///< by position in the batch: whether the sample's frames are intact
  std::int64_t number = -1;        ///< index of its batch in the epoch
  std::int64_t unfinished = 0;     ///< samples not assembled yet
  std::exception_ptr failure;
  std::int64_t failed_at = 0;  ///< lowest position of a failed sample, whose exception is kept
  engine::Batch batch;
};

/// Per-thread data.
struct PackedBatchSource::Worker {
  std::vector<std::byte> scratch;
  std::atomic<std::int64_t> reading{-1};  ///< sample being read, for the stall warning
};

PackedBatchSource::PackedBatchSource(std::shared_ptr<const Dataset> dataset,
                                     const std::vector<std::int64_t>& samples,
                                     const BatchSourceOptions& options, std::unique_ptr<FrameReader> reader)
    : dataset_(std::move(dataset)),
      options_(options),
      sampler_(samples, options.sampler),
      reader_(std::move(reader)),
      slots_(options.num_workers > 0 ? kSlots : 1),
      verdicts_(static_cast<std::size_t>(dataset_->size())),
      bad_(*dataset_, options.max_bad_samples) {
  check(options);
  VOCA_CHECK(options.dtype == DType::kF32 || options.dtype == DType::kF64);
  check_trainable(*dataset_, samples, options);
  if (!reader_) {
    options_.residency = resolve_residency(options_.residency, frame_bytes(*dataset_, samples));
    reader_ = options_.residency == Residency::kHost
                  ? make_host_reader(dataset_, samples, options_.num_workers)
                  : make_disk_reader(dataset_);
  }
  for (Slot& slot : slots_) make_slot(slot);
  const std::size_t scratch =
      std::max({kVerifyScratch, dataset_->row_bytes(Stream::kVisual), dataset_->row_bytes(Stream::kAudio)});
  for (int i = 0; i < std::max(options_.num_workers, 1); ++i) {
    workers_.push_back(std::make_unique<Worker>());
    workers_.back()->scratch.resize(scratch);
  }
  try {
    for (const auto& worker : workers_) {
      if (options_.num_workers == 0) break;
      threads_.push_back(engine::start_thread("a data worker", [this, own = worker.get()] { run(*own); }));
    }
  } catch (...) {
    end_workers();  // threads already started wait for work and would never be joined
    throw;
  }
}

PackedBatchSource::~PackedBatchSource() {
  end_workers();
}

void PackedBatchSource::end_workers() {
  {
    const std::scoped_lock lock(mutex_);
    stop_ = true;
  }
  work_.notify_all();
}

void PackedBatchSource::make_slot(Slot& slot) const {
  const auto size = static_cast<std::size_t>(options_.sampler.batch_size);
  for (const Stream stream : kStreams) {
    slot.inputs[stream] =
        slot.take(static_cast<std::size_t>(stream), size * input_bytes(stream), options_.pin_for);
  }
  const std::size_t label_bytes = size * sizeof(std::int32_t);
  slot.labels = {reinterpret_cast<std::int32_t*>(slot.take(2, label_bytes, options_.pin_for)), size};
  slot.samples.resize(size);
  slot.good.resize(size);
}

void PackedBatchSource::start_epoch(std::int64_t epoch, std::int64_t first_batch) {
  std::unique_lock lock(mutex_);
  VOCA_CHECK(first_batch >= 0 && first_batch <= sampler_.batches());
  active_ = false;
  finished_.wait(lock, [&] { return in_flight_ == 0; });
  epoch_ = epoch;
  sampler_.start_epoch(epoch);
  for (Slot& slot : slots_) {
    slot.number = -1;
    slot.failure = nullptr;
  }
  claim_batch_ = next_batch_ = first_batch;
  claim_place_ = 0;
  window_end_ = first_batch + static_cast<std::int64_t>(slots_.size());
  holding_ = false;
  active_ = true;
  lock.unlock();
  work_.notify_all();
}

bool PackedBatchSource::can_claim() const {
  return active_ && claim_batch_ < sampler_.batches() && claim_batch_ < window_end_;
}

void PackedBatchSource::open_slot(std::int64_t number) {
  Slot& slot = slots_[static_cast<std::size_t>(number) % slots_.size()];
  const std::span<const std::int64_t> samples = sampler_.batch(number);
  std::ranges::copy(samples, slot.samples.begin());
  slot.number = number;
  slot.unfinished = slot.batch.size = static_cast<std::int64_t>(samples.size());
  slot.batch.first_position = sampler_.first_position(number);
  slot.failure = nullptr;
}

void PackedBatchSource::run(Worker& worker) {
  std::unique_lock lock(mutex_);
  for (;;) {
    work_.wait(lock, [&] { return stop_ || can_claim(); });
    if (stop_) return;
    if (claim_place_ == 0) open_slot(claim_batch_);
    Slot& slot = slots_[static_cast<std::size_t>(claim_batch_) % slots_.size()];
    const std::int64_t place = claim_place_++;
    if (claim_place_ == slot.batch.size) {
      claim_place_ = 0;
      ++claim_batch_;
    }
    ++in_flight_;
    lock.unlock();
    std::exception_ptr failure;
    try {
      assemble(slot, place, worker);
    } catch (...) {
      failure = std::current_exception();
    }
    worker.reading = -1;
    lock.lock();
    --in_flight_;
    if (failure && (!slot.failure || place < slot.failed_at)) {
      slot.failure = failure;
      slot.failed_at = place;
    }
    if (--slot.unfinished == 0 || !active_) finished_.notify_all();
  }
}

bool PackedBatchSource::verified(std::int64_t sample, Worker& worker) {
  std::atomic<Verdict>& verdict = verdicts_[static_cast<std::size_t>(sample)];
  if (verdict == Verdict::kUnchecked)
    verdict = reader_->verify(sample, worker.scratch) ? Verdict::kGood : Verdict::kBad;
  return verdict == Verdict::kGood;
}

void PackedBatchSource::fill(std::int64_t sample, Stream stream, const kernels::FrameWindow& window,
                             std::byte* out) const {
  const std::int64_t length = options_.seq_len;
  const std::size_t row_bytes = input_bytes(stream) / static_cast<std::size_t>(length);
  const auto at = [&](std::int64_t row) { return out + static_cast<std::size_t>(row) * row_bytes; };
  // With the shift, the window is at most two consecutive runs of rows in the file: up to the clip's end, and
  // on from its start.
  const std::int64_t rows = std::min(length, window.frames - window.start);
  const std::int64_t source = kernels::source_frame(window, 0);
  const std::int64_t first_run = std::min(rows, window.frames - source);
  reader_->read(stream, sample, source, first_run, options_.dtype, out);
  if (first_run < rows) reader_->read(stream, sample, 0, rows - first_run, options_.dtype, at(first_run));
  for (std::int64_t row = rows; row < length; ++row) std::memcpy(at(row), at(rows - 1), row_bytes);
}

void PackedBatchSource::assemble(Slot& slot, std::int64_t place, Worker& worker) {
  const auto p = static_cast<std::size_t>(place);
  const std::int64_t sample = slot.samples[p];
  worker.reading = sample;
  slot.labels[p] = dataset_->label(sample);
  slot.good[p] = verified(sample, worker);
  if (slot.good[p] == 0) return;
  const auto windows = sample_windows(options_, epoch_, sample, dataset_->frames(sample));
  for (const Stream stream : kStreams)
    fill(sample, stream, windows[stream], slot.inputs[stream] + p * input_bytes(stream));
}

void PackedBatchSource::warn_of_stall(double seconds) const {
  std::string names;
  for (const auto& worker : workers_) {
    const std::int64_t sample = worker->reading;
    if (sample >= 0) names += fmt::format("{}{}", names.empty() ? "" : ", ", dataset_->id(sample));
  }
  spdlog::warn("{}: waited {:.1f} s for a batch; now reading {}", dataset_->path().string(), seconds,
               names.empty() ? "nothing" : names);
}

void PackedBatchSource::wait_for(const Slot& slot, std::unique_lock<std::mutex>& lock) {
  const auto begin = std::chrono::steady_clock::now();
  const std::chrono::duration<double> timeout(options_.stall_seconds);
  const auto ready = [&] { return slot.number == next_batch_ && slot.unfinished == 0; };
  while (!finished_.wait_for(lock, timeout, ready)) {
    const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - begin;
    warn_of_stall(waited.count());
  }
}

/// Assembled slot of the next batch.
PackedBatchSource::Slot& PackedBatchSource::ready_slot() {
  std::unique_lock lock(mutex_);
  if (holding_) {
    ++window_end_;
    holding_ = false;
    work_.notify_all();
  }
  Slot& slot = slots_[static_cast<std::size_t>(next_batch_) % slots_.size()];
  if (!threads_.empty()) {
    wait_for(slot, lock);
    return slot;
  }
  lock.unlock();
  open_slot(next_batch_);
  const auto begin = std::chrono::steady_clock::now();
  for (std::int64_t place = 0; place < slot.batch.size; ++place) assemble(slot, place, *workers_[0]);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  if (took.count() > options_.stall_seconds) warn_of_stall(took.count());
  return slot;
}

/// Logs and counts bad samples at their first occurrence, in the order of the epoch, which does not depend on
/// the number of workers.
void PackedBatchSource::note_bad(const Slot& slot) {
  for (std::size_t p = 0; p < static_cast<std::size_t>(slot.batch.size); ++p)
    if (slot.good[p] == 0) bad_.note(slot.samples[p]);
  bad_.check();
}

/// Closes the gaps of bad samples and sets the sizes of what remains.
void PackedBatchSource::deliver(Slot& slot) const {
  std::size_t kept = 0;
  for (std::size_t p = 0; p < static_cast<std::size_t>(slot.batch.size); ++p) {
    if (slot.good[p] == 0) continue;
    if (kept != p) {
      for (const Stream stream : kStreams) {
        const std::size_t bytes = input_bytes(stream);
        std::memcpy(slot.inputs[stream] + kept * bytes, slot.inputs[stream] + p * bytes, bytes);
      }
      slot.labels[kept] = slot.labels[p];
      slot.samples[kept] = slot.samples[p];
    }
    ++kept;
  }
  engine::Batch& batch = slot.batch;
  batch.size = static_cast<std::int64_t>(kept);
  batch.samples = std::span(slot.samples).first(kept);
  batch.inputs.clear();
  for (const Stream stream : kStreams) {
    batch.inputs.push_back({slot.inputs[stream],
                            {batch.size, options_.seq_len, dataset_->dim(stream)},
                            options_.dtype,
                            engine::DeviceKind::kCpu,
                            name_of(stream).data()});
  }
  batch.targets.clear();
  batch.targets.push_back(
      {slot.labels.data(), {batch.size}, DType::kI32, engine::DeviceKind::kCpu, kLabelTarget});
}

const engine::Batch* PackedBatchSource::next() {
  VOCA_CHECK(active_);
  if (next_batch_ == sampler_.batches()) return nullptr;
  Slot& slot = ready_slot();
  if (slot.failure) std::rethrow_exception(slot.failure);
  note_bad(slot);
  deliver(slot);
  ++next_batch_;
  holding_ = true;
  return &slot.batch;
}

std::size_t PackedBatchSource::input_bytes(Stream stream) const {
  return static_cast<std::size_t>(options_.seq_len * dataset_->dim(stream)) * engine::size_of(options_.dtype);
}

std::size_t batch_buffer_bytes(const BatchSourceOptions& options, std::int64_t visual_dim,
                               std::int64_t audio_dim) {
  const std::int64_t slots = options.num_workers > 0 ? kSlots : 1;
  const std::int64_t rows = slots * options.sampler.batch_size * options.seq_len;
  return static_cast<std::size_t>(rows * (visual_dim + audio_dim)) * engine::size_of(options.dtype);
}

}  // namespace voca::data
