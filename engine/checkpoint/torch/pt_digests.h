#pragma once

// The engine's digests inside a .pt. PyTorch checks no CRC when it loads, and a zip's headers have none. The
// last record, voca_digests.json, covers every byte before it; the bytes after it are compared with what
// ZipWriter writes for these records.

#include <cstdint>
#include <string>
#include <vector>

#include "engine/archive/zip_archive.h"

namespace voca::engine {

inline constexpr std::string_view kDigestRecord = "voca_digests.json";

struct RecordDigest {
  std::string name;
  std::uint64_t size = 0;
  std::uint32_t crc32c = 0;
};

/// Content of the digest record; `prefix_crc32c` covers all bytes before its local header.
[[nodiscard]] std::string make_digests(const std::vector<RecordDigest>& records, std::uint32_t prefix_crc32c);

/// Verifies every byte of `zip`, which must contain `digests`. Throws DataError naming file and record.
void verify_digests(const ZipReader& zip, const ZipEntry& digests);

}  // namespace voca::engine
