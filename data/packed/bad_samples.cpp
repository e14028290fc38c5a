#include "data/packed/bad_samples.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "engine/base/error.h"

namespace voca::data {

void BadSamples::note(std::int64_t sample) {
  std::uint8_t& noted = noted_[static_cast<std::size_t>(sample)];
  if (noted != 0) return;
  noted = 1;
  ids_.push_back(dataset_.id(sample));
  spdlog::warn("{}: the frames of {} are damaged ({}); left out", dataset_.path().string(), ids_.back(),
               dataset_.has_checksums() ? "their checksum does not hold" : "not all numbers are finite");
}

void BadSamples::check() const {
  if (static_cast<std::int64_t>(ids_.size()) <= most_) return;
  throw engine::DataError("{}: {} samples are damaged, more than --max_bad_samples {}: {}; pack again",
                          dataset_.path().string(), ids_.size(), most_, fmt::join(ids_, ", "));
}

}  // namespace voca::data
