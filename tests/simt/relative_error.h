#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

namespace voca::simt::host {

/// ‖got − want‖ / ‖want‖; infinite if got has a NaN.
inline double relative_error(const std::vector<double>& got, const std::vector<double>& want) {
  double difference = 0;
  double size = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    difference += (got[i] - want[i]) * (got[i] - want[i]);
    size += want[i] * want[i];
  }
  return std::isfinite(difference) ? std::sqrt(difference / size) : HUGE_VAL;
}

}  // namespace voca::simt::host
