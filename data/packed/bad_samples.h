#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/packed/dataset.h"

namespace voca::data {

/// Samples that a source has skipped because their frames are damaged.
class BadSamples {
 public:
  /// `dataset` must outlive this object; `most` bad samples are tolerated.
  BadSamples(const Dataset& dataset, std::int64_t most)
      : dataset_(dataset), most_(most), noted_(static_cast<std::size_t>(dataset.size()), 0) {}

  /// Logs and counts a sample at its first occurrence.
  void note(std::int64_t sample);
  /// Throws DataError naming all bad samples when there are more than `most`.
  void check() const;
  /// In the order of their first occurrence.
  [[nodiscard]] const std::vector<std::string>& ids() const { return ids_; }

 private:
  const Dataset& dataset_;
  std::int64_t most_;
  std::vector<std::uint8_t> noted_;  // by sample
  std::vector<std::string> ids_;
};

}  // namespace voca::data
