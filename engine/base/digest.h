#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace voca::engine {

/// CRC-32C (Castagnoli) of `bytes`, continued from `crc`, the CRC of the preceding bytes (0 at the start), so
/// that crc32c(b, crc32c(a)) == crc32c(a ∥ b). Matches iSCSI, RFC 3720 B.4: "123456789" gives 0xE3069283.
[[nodiscard]] std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t crc = 0);

/// CRC-32 as stored in zip files (IEEE 802.3), continued from `crc`.
[[nodiscard]] std::uint32_t zip_crc32(std::span<const std::byte> bytes, std::uint32_t crc = 0);

/// Streaming SHA-256.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void update(std::span<const std::byte> bytes);
  void update(const std::string& text);
  /// Returns the digest as 64 lower-case hexadecimal digits. Ends the stream: call once.
  [[nodiscard]] std::string finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// SHA-256 of a text as 64 lower-case hexadecimal digits.
[[nodiscard]] std::string sha256_hex(const std::string& text);

}  // namespace voca::engine
