#include "engine/base/digest.h"

#include <isa-l/crc.h>
#include <openssl/evp.h>

#include <algorithm>

#include "engine/base/error.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace voca::engine {
namespace {

/// To be called after isa-l's checksums: they leave the upper halves of the AVX-512 registers in use, and
/// every SSE instruction after that has to preserve them. Arithmetic took three times as long (Zen 5,
/// isa-l 2.30).
#if defined(__x86_64__)
__attribute__((target("avx"))) void clear_upper_halves() {
  static const bool has_avx = __builtin_cpu_supports("avx") != 0;
  if (has_avx) _mm256_zeroupper();
}
#else
void clear_upper_halves() {}
#endif

}  // namespace

std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t crc) {
  // ISA-L takes and returns the register before the final inversion, and lengths that fit an int.
  constexpr std::size_t kMaxChunk = std::size_t{1} << 30;
  crc = ~crc;
  while (!bytes.empty()) {
    const auto chunk = bytes.first(std::min(bytes.size(), kMaxChunk));
    auto* data = reinterpret_cast<unsigned char*>(const_cast<std::byte*>(chunk.data()));  // read only
    crc = crc32_iscsi(data, static_cast<int>(chunk.size()), crc);
    bytes = bytes.subspan(chunk.size());
  }
  clear_upper_halves();
  return ~crc;
}

std::uint32_t zip_crc32(std::span<const std::byte> bytes, std::uint32_t crc) {
  crc = crc32_gzip_refl(crc, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  clear_upper_halves();
  return crc;
}

void Sha256::Traits::close(evp_md_ctx_st* context) {
  EVP_MD_CTX_free(context);
}

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  VOCA_CHECK(context_ && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
}

void Sha256::update(std::span<const std::byte> bytes) {
  VOCA_CHECK(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1);
}

void Sha256::update(const std::string& text) {
  update(std::as_bytes(std::span(text)));
}

std::string Sha256::finish() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int length = 0;
  VOCA_CHECK(EVP_DigestFinal_ex(context_.get(), digest.data(), &length) == 1);
  return fmt::format("{:02x}", fmt::join(digest.begin(), digest.begin() + length, ""));
}

std::string sha256_hex(const std::string& text) {
  Sha256 sha;
  sha.update(text);
  return sha.finish();
}

}  // namespace voca::engine
