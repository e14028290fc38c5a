#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <iterator>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "data/batches/batch_options.h"
#include "data/packed/dataset.h"
#include "data/packed/frame_reader.h"
#include "engine/core/batch.h"

namespace voca::data {

/// Memory of a source's inputs in bytes, including batches in flight.
[[nodiscard]] std::size_t batch_buffer_bytes(const BatchSourceOptions& options, std::int64_t visual_dim,
                                             std::int64_t audio_dim);

/// Batches of a packed dataset (batch_spec()), with rows read directly into place. Bitwise identical for
/// every num_workers and residency. Each video's checksum is verified on its first use; a bad video is
/// skipped with a warning that names it, and counted. The prefetch depth is two batches. The destructor waits
/// for reads in flight.
class PackedBatchSource final : public engine::BatchSource {
 public:
  /// Uses `samples` of `dataset`, usually one split. Reads frames from `reader`, or if that is null from one
  /// chosen by options.residency.
  PackedBatchSource(std::shared_ptr<const Dataset> dataset, const std::vector<std::int64_t>& samples,
                    const BatchSourceOptions& options, std::unique_ptr<FrameReader> reader = nullptr);
  ~PackedBatchSource() override;

  [[nodiscard]] std::int64_t samples_per_epoch() const override { return sampler_.samples(); }
  [[nodiscard]] std::int64_t batches_per_epoch() const override { return sampler_.batches(); }
  [[nodiscard]] std::int64_t max_batch_size() const override { return options_.sampler.batch_size; }
  void start_epoch(std::int64_t epoch, std::int64_t first_batch) override;
  const engine::Batch* next() override;
  [[nodiscard]] std::int64_t bad_samples() const override { return std::ssize(bad_.ids()); }
  /// Ids of the samples skipped so far, in the order of their first occurrence.
  [[nodiscard]] const std::vector<std::string>& bad_ids() const { return bad_.ids(); }
  /// Effective residency, with kAuto resolved.
  [[nodiscard]] Residency residency() const { return options_.residency; }

 private:
  enum class Verdict : std::uint8_t { kUnchecked, kGood, kBad };
  struct Slot;
  struct Worker;

  void make_slot(Slot& slot) const;

  // Assembly: by a worker, or by the caller if there are none.
  void run(Worker& worker);
  void end_workers();
  [[nodiscard]] bool can_claim() const;
  void open_slot(std::int64_t number);
  void assemble(Slot& slot, std::int64_t place, Worker& worker);
  [[nodiscard]] bool verified(std::int64_t sample, Worker& worker);
  /// Writes the window of a sample's stream to `out`, input_bytes() long.
  void fill(std::int64_t sample, Stream stream, const kernels::FrameWindow& window, std::byte* out) const;
  /// Bytes of one sample's input.
  [[nodiscard]] std::size_t input_bytes(Stream stream) const;

  // Delivery: by the caller.
  [[nodiscard]] Slot& ready_slot();
  void wait_for(const Slot& slot, std::unique_lock<std::mutex>& lock);
  void warn_of_stall(double seconds) const;
  void note_bad(const Slot& slot);
  void deliver(Slot& slot) const;

  std::shared_ptr<const Dataset> dataset_;
  BatchSourceOptions options_;
  Sampler sampler_;
  std::unique_ptr<FrameReader> reader_;
  std::vector<Slot> slots_;
  std::vector<std::atomic<Verdict>> verdicts_;  ///< by sample
  BadSamples bad_;

  std::mutex mutex_;
  std::condition_variable work_;      ///< there may be a sample to claim
  std::condition_variable finished_;  ///< a slot is complete, or the last claim of an abandoned epoch
  bool stop_ = false;
  bool active_ = false;
  std::int64_t epoch_ = 0;
  std::int64_t claim_batch_ = 0;  ///< batch of the next sample to assemble
  std::int64_t claim_place_ = 0;  ///< position of that sample in its batch
  std::int64_t window_end_ = 0;   ///< batches below this index have a slot
  std::int64_t next_batch_ = 0;   ///< next batch to deliver
  bool holding_ = false;          ///< the caller is using the batch before next_batch_
  std::int64_t in_flight_ = 0;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<std::jthread> threads_;  // last member: joined first
};

}  // namespace voca::data
