#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "data/packed/dataset.h"
#include "engine/base/memory_limits.h"

namespace voca::data {

/// Where the frames of the samples in use lie while training.
enum class Residency : std::uint8_t { kAuto, kGpu, kHost, kDisk };
/// "auto", "gpu", "host", "disk"; throws UsageError naming --data_residency.
[[nodiscard]] Residency parse_residency(std::string_view text);

/// Reads rows of samples, from any thread. `T` below is the batch's type.
class FrameReader {
 public:
  FrameReader() = default;
  FrameReader(const FrameReader&) = delete;
  FrameReader& operator=(const FrameReader&) = delete;
  virtual ~FrameReader() = default;

  /// Rows [first, first + count) of the sample's stream as (count, dim) numbers.
  virtual void read(Stream stream, std::int64_t sample, std::int64_t first, std::int64_t count,
                    float* out) const = 0;
  virtual void read(Stream stream, std::int64_t sample, std::int64_t first, std::int64_t count,
                    double* out) const = 0;
  /// Whether the sample's frames can be used (FrameCheck); `scratch` as for Dataset::verify.
  [[nodiscard]] virtual bool verify(std::int64_t sample, std::span<std::byte> scratch) const = 0;
};

/// From the file at each read.
[[nodiscard]] std::unique_ptr<FrameReader> make_disk_reader(std::shared_ptr<const Dataset> dataset);
/// All frames of `samples`, as stored, loaded and verified now by `num_workers` threads; later reads touch
/// memory only. Samples whose frames cannot be used (FrameCheck) are remembered as bad. Throws IoError;
/// UsageError with the size when the memory cannot be had.
[[nodiscard]] std::unique_ptr<FrameReader> make_host_reader(std::shared_ptr<const Dataset> dataset,
                                                            std::span<const std::int64_t> samples,
                                                            int num_workers);

/// Bytes the frames of `samples` take.
[[nodiscard]] std::int64_t frame_bytes(const Dataset& dataset, std::span<const std::int64_t> samples);
/// kAuto resolved for a source in host memory: kHost when `copies` of the frames, one for each rank here,
/// take at most half of the `free` bytes of memory, else kDisk. Others unchanged.
[[nodiscard]] Residency resolve_residency(Residency residency, std::int64_t bytes, int copies = 1,
                                          std::size_t free = engine::free_host_memory().bytes);

}  // namespace voca::data
