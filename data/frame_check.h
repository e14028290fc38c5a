#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "data/dataset.h"

namespace voca::data {

/// Whether a sample's frames can be used, told while they pass: with checksums in the file, that of the
/// sample's frames holds, and they are what `pack` wrote, all finite; without any, every number is finite.
class FrameCheck {
 public:
  /// `dataset` outlives it.
  FrameCheck(const Dataset& dataset, std::int64_t sample) : dataset_(dataset), sample_(sample) {}

  /// The next rows as stored: all visual rows, then all audio rows.
  void add(std::span<const std::byte> rows);
  /// Once all rows have passed.
  [[nodiscard]] bool good() const;

 private:
  const Dataset& dataset_;
  std::int64_t sample_;
  std::uint32_t crc_ = 0;
  bool finite_ = true;
};

}  // namespace voca::data
