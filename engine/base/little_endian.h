#pragma once

#include <bit>
#include <cstring>
#include <string>
#include <string_view>

namespace voca::engine {

static_assert(std::endian::native == std::endian::little,
              "files and messages are little-endian, and so is memory");

/// Appends the bytes of a number, little-endian.
template <typename T>
void append_number(std::string& bytes, T number) {
  bytes.append(reinterpret_cast<const char*>(&number), sizeof number);
}

/// The little-endian number that `bytes` begin with, of which there are enough.
template <typename T>
[[nodiscard]] T leading_number(std::string_view bytes) {
  T number;
  std::memcpy(&number, bytes.data(), sizeof number);
  return number;
}

}  // namespace voca::engine
