#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "engine/base/unique_handle.h"

struct evp_md_ctx_st;  // OpenSSL's EVP_MD_CTX

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

  void update(std::span<const std::byte> bytes);
  void update(const std::string& text);
  /// Returns the digest as 64 lower-case hexadecimal digits. Ends the stream: call once.
  [[nodiscard]] std::string finish();

 private:
  struct Traits {
    static constexpr evp_md_ctx_st* kNone = nullptr;
    static void close(evp_md_ctx_st* context);
  };
  UniqueHandle<Traits> context_;
};

/// SHA-256 of a text as 64 lower-case hexadecimal digits.
[[nodiscard]] std::string sha256_hex(const std::string& text);

}  // namespace voca::engine
