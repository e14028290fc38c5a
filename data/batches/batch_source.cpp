#include "data/batches/batch_source.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <mutex>
#include <new>
#include <thread>
#include <utility>

#include "data/packed/bad_samples.h"
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

/// A batch that is being assembled or in use.
struct Slot {
  /// Allocates the buffer for input or labels `what`; ordinary memory if `pin_for` is null.
  std::byte* take(std::size_t what, std::size_t bytes, engine::Device* pin_for) {
    if (pin_for == nullptr) return (memory[what] = aligned_bytes(bytes)).get();
    pinned[what] = pin_for->allocate_pinned("batches", bytes);
    return pinned[what].data();
  }

  std::array<AlignedBytes, 3> memory;                 ///< inputs and labels
  std::array<engine::Device::PinnedBlock, 3> pinned;  ///< used instead of `memory` if options.pin_for is set
  std::array<std::byte*, 2> inputs{};
  std::span<std::int32_t> labels;
  std::vector<std::int64_t> samples;
  std::vector<std::uint8_t> good;  ///< by position in the batch: whether the sample's frames are intact
  std::int64_t number = -1;        ///< index of its batch in the epoch
  std::int64_t unfinished = 0;     ///< samples not assembled yet
  std::exception_ptr failure;
  std::int64_t failed_at = 0;  ///< lowest position of a failed sample, whose exception is kept
  engine::Batch batch;
};

enum class Verdict : std::uint8_t { kUnchecked, kGood, kBad };

/// Per-thread data.
struct Worker {
  std::vector<std::byte> scratch;
  std::atomic<std::int64_t> reading{-1};  ///< sample being read, for the stall warning
};

}  // namespace

struct PackedBatchSource::State {
  State(std::shared_ptr<const Dataset> dataset_in, std::vector<std::int64_t> samples,
        const BatchSourceOptions& options_in, std::unique_ptr<FrameReader> reader_in);
  ~State();
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  void make_slot(Slot& slot) const;
  void start_epoch(std::int64_t epoch_in, std::int64_t first_batch);
  const engine::Batch* next();

  // Assembly: by a worker, or by the caller if there are none.
  void run(Worker& worker);
  void end_workers();
  [[nodiscard]] bool can_claim() const;
  void open_slot(std::int64_t number);
  void assemble(Slot& slot, std::int64_t place, Worker& worker);
  [[nodiscard]] bool verified(std::int64_t sample, Worker& worker);
  template <typename T>
  void fill(Slot& slot, std::int64_t place, Stream stream, const kernels::FrameWindow& window) const;

  // Delivery: by the caller.
  [[nodiscard]] Slot& ready_slot();
  void wait_for(const Slot& slot, std::unique_lock<std::mutex>& lock);
  void warn_of_stall(double seconds) const;
  void note_bad(const Slot& slot);
  void deliver(Slot& slot) const;

  std::shared_ptr<const Dataset> dataset;
  BatchSourceOptions options;
  Sampler sampler;
  std::unique_ptr<FrameReader> reader;
  std::vector<Slot> slots;
  std::vector<std::atomic<Verdict>> verdicts;  ///< by sample
  BadSamples bad;

  std::mutex mutex;
  std::condition_variable work;      ///< there may be a sample to claim
  std::condition_variable finished;  ///< a slot is complete, or the last claim of an abandoned epoch
  bool stop = false;
  bool active = false;
  std::int64_t epoch = 0;
  std::int64_t claim_batch = 0;  ///< batch of the next sample to assemble
  std::int64_t claim_place = 0;  ///< position of that sample in its batch
  std::int64_t window_end = 0;   ///< batches below this index have a slot
  std::int64_t next_batch = 0;   ///< next batch to deliver
  bool holding = false;          ///< the caller is using the batch before next_batch
  std::int64_t in_flight = 0;
  std::vector<std::unique_ptr<Worker>> workers;
  std::vector<std::jthread> threads;  // last member: joined first
};

PackedBatchSource::State::State(std::shared_ptr<const Dataset> dataset_in, std::vector<std::int64_t> samples,
                                const BatchSourceOptions& options_in, std::unique_ptr<FrameReader> reader_in)
    : dataset(std::move(dataset_in)),
      options(options_in),
      sampler(samples, options.sampler),
      reader(std::move(reader_in)),
      slots(options.num_workers > 0 ? kSlots : 1),
      verdicts(static_cast<std::size_t>(dataset->size())),
      bad(*dataset, options.max_bad_samples) {
  check_trainable(*dataset, samples, options);
  if (!reader) {
    options.residency = resolve_residency(options.residency, frame_bytes(*dataset, samples));
    reader = options.residency == Residency::kHost ? make_host_reader(dataset, samples, options.num_workers)
                                                   : make_disk_reader(dataset);
  }
  for (Slot& slot : slots) make_slot(slot);
  const std::size_t scratch =
      std::max({kVerifyScratch, dataset->row_bytes(Stream::kVisual), dataset->row_bytes(Stream::kAudio)});
  for (int i = 0; i < std::max(options.num_workers, 1); ++i) {
    workers.push_back(std::make_unique<Worker>());
    workers.back()->scratch.resize(scratch);
  }
  try {
    for (const auto& worker : workers) {
      if (options.num_workers == 0) break;
      threads.push_back(engine::start_thread("a data worker", [this, own = worker.get()] { run(*own); }));
    }
  } catch (...) {
    end_workers();  // threads already started wait for work and would never be joined
    throw;
  }
}

PackedBatchSource::State::~State() {
  end_workers();
}

void PackedBatchSource::State::end_workers() {
  {
    const std::scoped_lock lock(mutex);
    stop = true;
  }
  work.notify_all();
}

void PackedBatchSource::State::make_slot(Slot& slot) const {
  const auto size = static_cast<std::size_t>(options.sampler.batch_size);
  for (const Stream stream : kStreams) {
    const auto row = static_cast<std::size_t>(dataset->dim(stream)) * engine::size_of(options.dtype);
    const auto s = static_cast<std::size_t>(stream);
    const std::size_t bytes = size * static_cast<std::size_t>(options.seq_len) * row;
    slot.inputs[s] = slot.take(s, bytes, options.pin_for);
  }
  const std::size_t label_bytes = size * sizeof(std::int32_t);
  slot.labels = {reinterpret_cast<std::int32_t*>(slot.take(2, label_bytes, options.pin_for)), size};
  slot.samples.resize(size);
  slot.good.resize(size);
}

void PackedBatchSource::State::start_epoch(std::int64_t epoch_in, std::int64_t first_batch) {
  std::unique_lock lock(mutex);
  VOCA_CHECK(first_batch >= 0 && first_batch <= sampler.batches());
  active = false;
  finished.wait(lock, [&] { return in_flight == 0; });
  epoch = epoch_in;
  sampler.start_epoch(epoch);
  for (Slot& slot : slots) {
    slot.number = -1;
    slot.failure = nullptr;
  }
  claim_batch = next_batch = first_batch;
  claim_place = 0;
  window_end = first_batch + static_cast<std::int64_t>(slots.size());
  holding = false;
  active = true;
  lock.unlock();
  work.notify_all();
}

bool PackedBatchSource::State::can_claim() const {
  return active && claim_batch < sampler.batches() && claim_batch < window_end;
}

void PackedBatchSource::State::open_slot(std::int64_t number) {
  Slot& slot = slots[static_cast<std::size_t>(number) % slots.size()];
  const std::span<const std::int64_t> samples = sampler.batch(number);
  std::copy(samples.begin(), samples.end(), slot.samples.begin());
  slot.number = number;
  slot.unfinished = slot.batch.size = static_cast<std::int64_t>(samples.size());
  slot.batch.first_position = sampler.first_position(number);
  slot.failure = nullptr;
}

void PackedBatchSource::State::run(Worker& worker) {
  std::unique_lock lock(mutex);
  for (;;) {
    work.wait(lock, [&] { return stop || can_claim(); });
    if (stop) return;
    if (claim_place == 0) open_slot(claim_batch);
    Slot& slot = slots[static_cast<std::size_t>(claim_batch) % slots.size()];
    const std::int64_t place = claim_place++;
    if (claim_place == slot.batch.size) {
      claim_place = 0;
      ++claim_batch;
    }
    ++in_flight;
    lock.unlock();
    std::exception_ptr failure;
    try {
      assemble(slot, place, worker);
    } catch (...) {
      failure = std::current_exception();
    }
    worker.reading = -1;
    lock.lock();
    --in_flight;
    if (failure && (!slot.failure || place < slot.failed_at)) {
      slot.failure = failure;
      slot.failed_at = place;
    }
    if (--slot.unfinished == 0 || !active) finished.notify_all();
  }
}

bool PackedBatchSource::State::verified(std::int64_t sample, Worker& worker) {
  std::atomic<Verdict>& verdict = verdicts[static_cast<std::size_t>(sample)];
  if (verdict == Verdict::kUnchecked)
    verdict = reader->verify(sample, worker.scratch) ? Verdict::kGood : Verdict::kBad;
  return verdict == Verdict::kGood;
}

template <typename T>
void PackedBatchSource::State::fill(Slot& slot, std::int64_t place, Stream stream,
                                    const kernels::FrameWindow& window) const {
  const std::int64_t dim = dataset->dim(stream);
  const std::int64_t length = options.seq_len;
  T* const out = reinterpret_cast<T*>(slot.inputs[static_cast<std::size_t>(stream)]) + place * length * dim;
  const std::int64_t sample = slot.samples[static_cast<std::size_t>(place)];
  // With the shift, the window is at most two consecutive runs of rows in the file: up to the clip's end, and
  // on from its start.
  const std::int64_t rows = std::min(length, window.frames - window.start);
  const std::int64_t source = kernels::source_frame(window, 0);
  const std::int64_t first_run = std::min(rows, window.frames - source);
  reader->read(stream, sample, source, first_run, out);
  if (first_run < rows) reader->read(stream, sample, 0, rows - first_run, out + first_run * dim);
  for (std::int64_t row = rows; row < length; ++row)
    std::memcpy(out + row * dim, out + (rows - 1) * dim, static_cast<std::size_t>(dim) * sizeof(T));
}

void PackedBatchSource::State::assemble(Slot& slot, std::int64_t place, Worker& worker) {
  const auto p = static_cast<std::size_t>(place);
  const std::int64_t sample = slot.samples[p];
  worker.reading = sample;
  slot.labels[p] = dataset->label(sample);
  slot.good[p] = verified(sample, worker);
  if (slot.good[p] == 0) return;
  const SampleWindow window = sample_window(options, epoch, sample, dataset->frames(sample));
  if (options.dtype == DType::kF32) {
    fill<float>(slot, place, Stream::kVisual, window.visual);
    fill<float>(slot, place, Stream::kAudio, window.audio);
  } else {
    fill<double>(slot, place, Stream::kVisual, window.visual);
    fill<double>(slot, place, Stream::kAudio, window.audio);
  }
}

void PackedBatchSource::State::warn_of_stall(double seconds) const {
  std::string names;
  for (const auto& worker : workers) {
    const std::int64_t sample = worker->reading;
    if (sample >= 0) names += fmt::format("{}{}", names.empty() ? "" : ", ", dataset->id(sample));
  }
  spdlog::warn("{}: waited {:.1f} s for a batch; now reading {}", dataset->path().string(), seconds,
               names.empty() ? "nothing" : names);
}

void PackedBatchSource::State::wait_for(const Slot& slot, std::unique_lock<std::mutex>& lock) {
  const auto begin = std::chrono::steady_clock::now();
  const std::chrono::duration<double> timeout(options.stall_seconds);
  const auto ready = [&] { return slot.number == next_batch && slot.unfinished == 0; };
  while (!finished.wait_for(lock, timeout, ready)) {
    const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - begin;
    warn_of_stall(waited.count());
  }
}

/// Assembled slot of next_batch.
Slot& PackedBatchSource::State::ready_slot() {
  std::unique_lock lock(mutex);
  if (holding) {
    ++window_end;
    holding = false;
    work.notify_all();
  }
  Slot& slot = slots[static_cast<std::size_t>(next_batch) % slots.size()];
  if (!threads.empty()) {
    wait_for(slot, lock);
    return slot;
  }
  lock.unlock();
  open_slot(next_batch);
  const auto begin = std::chrono::steady_clock::now();
  for (std::int64_t place = 0; place < slot.batch.size; ++place) assemble(slot, place, *workers[0]);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  if (took.count() > options.stall_seconds) warn_of_stall(took.count());
  return slot;
}

/// Logs and counts bad samples at their first occurrence, in the order of the epoch, which does not depend on
/// the number of workers.
void PackedBatchSource::State::note_bad(const Slot& slot) {
  for (std::size_t p = 0; p < static_cast<std::size_t>(slot.batch.size); ++p)
    if (slot.good[p] == 0) bad.note(slot.samples[p]);
  bad.check();
}

/// Closes the gaps of bad samples and sets the sizes of what remains.
void PackedBatchSource::State::deliver(Slot& slot) const {
  std::size_t kept = 0;
  std::array<std::size_t, 2> bytes{};
  for (const Stream stream : kStreams) {
    bytes[static_cast<std::size_t>(stream)] =
        static_cast<std::size_t>(options.seq_len * dataset->dim(stream)) * engine::size_of(options.dtype);
  }
  for (std::size_t p = 0; p < static_cast<std::size_t>(slot.batch.size); ++p) {
    if (slot.good[p] == 0) continue;
    if (kept != p) {
      for (std::size_t s = 0; s < 2; ++s)
        std::memcpy(slot.inputs[s] + kept * bytes[s], slot.inputs[s] + p * bytes[s], bytes[s]);
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
    batch.inputs.push_back({slot.inputs[static_cast<std::size_t>(stream)],
                            {batch.size, options.seq_len, dataset->dim(stream)},
                            options.dtype,
                            engine::DeviceKind::kCpu,
                            name_of(stream).data()});
  }
  batch.targets.clear();
  batch.targets.push_back(
      {slot.labels.data(), {batch.size}, DType::kI32, engine::DeviceKind::kCpu, kLabelTarget});
}

const engine::Batch* PackedBatchSource::State::next() {
  VOCA_CHECK(active);
  if (next_batch < sampler.batches()) {
    Slot& slot = ready_slot();
    if (slot.failure) std::rethrow_exception(slot.failure);
    note_bad(slot);
    deliver(slot);
    ++next_batch;
    holding = true;
    return &slot.batch;
  }
  return nullptr;
}

std::size_t batch_buffer_bytes(const BatchSourceOptions& options, std::int64_t visual_dim,
                               std::int64_t audio_dim) {
  const std::int64_t slots = options.num_workers > 0 ? kSlots : 1;
  const std::int64_t rows = slots * options.sampler.batch_size * options.seq_len;
  return static_cast<std::size_t>(rows * (visual_dim + audio_dim)) * engine::size_of(options.dtype);
}

PackedBatchSource::PackedBatchSource(std::shared_ptr<const Dataset> dataset,
                                     std::vector<std::int64_t> samples, const BatchSourceOptions& options)
    : PackedBatchSource(std::move(dataset), std::move(samples), options, nullptr) {}

PackedBatchSource::PackedBatchSource(std::shared_ptr<const Dataset> dataset,
                                     std::vector<std::int64_t> samples, const BatchSourceOptions& options,
                                     std::unique_ptr<FrameReader> reader) {
  check(options);
  VOCA_CHECK(options.dtype == DType::kF32 || options.dtype == DType::kF64);
  state_ = std::make_unique<State>(std::move(dataset), std::move(samples), options, std::move(reader));
}

PackedBatchSource::~PackedBatchSource() = default;

std::int64_t PackedBatchSource::samples_per_epoch() const {
  return state_->sampler.samples();
}
std::int64_t PackedBatchSource::batches_per_epoch() const {
  return state_->sampler.batches();
}
std::int64_t PackedBatchSource::max_batch_size() const {
  return state_->options.sampler.batch_size;
}
void PackedBatchSource::start_epoch(std::int64_t epoch, std::int64_t first_batch) {
  state_->start_epoch(epoch, first_batch);
}
const engine::Batch* PackedBatchSource::next() {
  return state_->next();
}
std::int64_t PackedBatchSource::bad_samples() const {
  return static_cast<std::int64_t>(state_->bad.ids().size());
}
std::vector<std::string> PackedBatchSource::bad_ids() const {
  return state_->bad.ids();
}
Residency PackedBatchSource::residency() const {
  return state_->options.residency;
}

}  // namespace voca::data
