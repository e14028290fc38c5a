#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "data/packed/dataset.h"

namespace voca::data {

/// Decides whether a sample's frames are usable, while they are being read. If the file has checksums, the
/// sample's must match (`pack` writes only finite numbers); otherwise every number must be finite.
class FrameCheck {
 public:
  /// `dataset` must outlive this object.
  FrameCheck(const Dataset& dataset, std::int64_t sample) : dataset_(dataset), sample_(sample) {}

  /// Adds the next rows as stored: all visual rows, then all audio rows.
  void add(std::span<const std::byte> rows);
  /// Valid once all rows have been added.
  [[nodiscard]] bool good() const;

 private:
  const Dataset& dataset_;
  std::int64_t sample_;
  std::uint32_t crc_ = 0;
  bool finite_ = true;
};

}  // namespace voca::data
