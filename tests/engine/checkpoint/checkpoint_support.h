#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "engine/checkpoint/torch/value.h"
#include "tests/engine/support/files.h"

namespace voca::engine::test {

inline std::filesystem::path golden(const std::string& name) {
  return std::filesystem::path(VOCA_GOLDEN_DIR) / "checkpoint" / name;
}

/// The numbers in every golden tensor; see tests/golden/checkpoint/make_checkpoints.py.
inline std::vector<float> pattern(std::size_t k, std::size_t count) {
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<float>((7 * i + k) % 13) / 4 - 1;
  return values;
}

inline std::vector<float> floats(const TensorValue& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.elements()));
  tensor.copy_to(values);
  return values;
}

}  // namespace voca::engine::test
