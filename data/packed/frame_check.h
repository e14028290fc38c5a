#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "data/packed/dataset.h"

namespace voca::data {

/// Decides whether a sample's frames can be used, while they are read anyway. With checksums in the file, the
/// sample's must match (`pack` writes finite numbers only); without, every number must be finite.
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
