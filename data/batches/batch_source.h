#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
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
  /// Uses `samples` of `dataset`, usually one split.
  PackedBatchSource(std::shared_ptr<const Dataset> dataset, std::vector<std::int64_t> samples,
                    const BatchSourceOptions& options);
  /// Overload that reads frames from `reader` instead of choosing one by options.residency.
  PackedBatchSource(std::shared_ptr<const Dataset> dataset, std::vector<std::int64_t> samples,
                    const BatchSourceOptions& options, std::unique_ptr<FrameReader> reader);
  ~PackedBatchSource() override;

  [[nodiscard]] std::int64_t samples_per_epoch() const override;
  [[nodiscard]] std::int64_t batches_per_epoch() const override;
  [[nodiscard]] std::int64_t max_batch_size() const override;
  void start_epoch(std::int64_t epoch, std::int64_t first_batch) override;
  const engine::Batch* next() override;
  [[nodiscard]] std::int64_t bad_samples() const override;
  /// Ids of the samples skipped so far, in the order of their first occurrence.
  [[nodiscard]] std::vector<std::string> bad_ids() const;
  /// Effective residency, with kAuto resolved.
  [[nodiscard]] Residency residency() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace voca::data
