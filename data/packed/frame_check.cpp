#include "data/packed/frame_check.h"

#include "data/tree/convert.h"
#include "engine/base/digest.h"

namespace voca::data {

void FrameCheck::add(std::span<const std::byte> rows) {
  if (dataset_.has_checksums()) {
    crc_ = engine::crc32c(rows, crc_);
    return;
  }
  const auto count = static_cast<std::int64_t>(rows.size() / engine::size_of(dataset_.dtype()));
  finite_ = finite_ && first_not_finite(dataset_.dtype(), rows.data(), count) < 0;
}

bool FrameCheck::good() const {
  return dataset_.has_checksums() ? crc_ == dataset_.checksum(sample_) : finite_;
}

}  // namespace voca::data
