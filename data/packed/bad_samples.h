#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/packed/dataset.h"

namespace voca::data {

/// The samples that a source has left out because their frames are not the ones that were written.
class BadSamples {
 public:
  /// `dataset` outlives it.
  BadSamples(const Dataset& dataset, std::int64_t most)
      : dataset_(dataset), most_(most), noted_(static_cast<std::size_t>(dataset.size()), 0) {}

  /// Names and counts a sample that is met for the first time.
  void note(std::int64_t sample);
  /// Throws DataError naming all of them when there are more than `most`.
  void check() const;
  /// In the order they were met.
  [[nodiscard]] const std::vector<std::string>& ids() const { return ids_; }

 private:
  const Dataset& dataset_;
  std::int64_t most_;
  std::vector<std::uint8_t> noted_;  // by sample
  std::vector<std::string> ids_;
};

}  // namespace voca::data
