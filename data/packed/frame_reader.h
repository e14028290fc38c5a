#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "data/packed/dataset.h"
#include "engine/base/memory_limits.h"
#include "engine/base/names.h"

namespace voca::data {

/// Where the frames of the samples in use are kept during training.
enum class Residency : std::uint8_t { kAuto, kGpu, kHost, kDisk };
constexpr auto names_of(Residency /*tag*/) {
  return std::to_array<engine::Named<Residency>>({{"auto", Residency::kAuto},
                                                  {"gpu", Residency::kGpu},
                                                  {"host", Residency::kHost},
                                                  {"disk", Residency::kDisk}});
}

/// Reads rows of samples; callable from any thread.
class FrameReader {
 public:
  FrameReader() = default;
  FrameReader(const FrameReader&) = delete;
  FrameReader& operator=(const FrameReader&) = delete;
  virtual ~FrameReader() = default;

  /// Reads rows [first, first + count) of the sample's stream as (count, dim) numbers of type kF32 or kF64.
  virtual void read(Stream stream, std::int64_t sample, std::int64_t first, std::int64_t count,
                    engine::DType dtype, void* out) const = 0;
  /// Whether the sample's frames are usable (FrameCheck); `scratch` as for Dataset::verify.
  [[nodiscard]] virtual bool verify(std::int64_t sample, std::span<std::byte> scratch) const = 0;
};

/// Reader that reads from the file on every call.
[[nodiscard]] std::unique_ptr<FrameReader> make_disk_reader(std::shared_ptr<const Dataset> dataset);
/// Reader that holds all frames of `samples` in memory, as stored; they are loaded and verified in this call
/// by `num_workers` threads. Samples with unusable frames (FrameCheck) are recorded as bad. Throws IoError;
/// UsageError with the size when the memory cannot be allocated.
[[nodiscard]] std::unique_ptr<FrameReader> make_host_reader(std::shared_ptr<const Dataset> dataset,
                                                            std::span<const std::int64_t> samples,
                                                            int num_workers);

/// Size of the frames of `samples` in bytes.
[[nodiscard]] std::int64_t frame_bytes(const Dataset& dataset, std::span<const std::int64_t> samples);
/// Resolves kAuto for a source in host memory: kHost if `copies` of the frames, one per rank on this node,
/// take at most half of the `free` bytes of memory, else kDisk. Other values are returned unchanged.
[[nodiscard]] Residency resolve_residency(Residency residency, std::int64_t bytes, int copies = 1,
                                          std::size_t free = engine::free_host_memory().bytes);

}  // namespace voca::data
