#include "engine/checkpoint/torch/pt_digests.h"

#include <cstring>
#include <nlohmann/json.hpp>

#include "engine/base/error.h"
#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/checkpoint/torch/value.h"

namespace voca::engine {
namespace {

constexpr std::uint64_t kMaxDigestBytes = std::uint64_t{64} << 20;
constexpr std::int64_t kDigestVersion = 1;

struct Digests {
  std::vector<RecordDigest> records;
  std::uint32_t prefix_crc32c = 0;
};

Digests parse(const ZipReader& zip, const ZipEntry& entry) {
  const auto bytes = zip.read(entry, kMaxDigestBytes);
  const auto* text = reinterpret_cast<const char*>(bytes.data());
  Digests digests;
  try {
    const auto json = parse_json({text, bytes.size()},
                                 fmt::format("{}: record {}", zip.path().string(), printable(entry.name)));
    if (json.at("version").get<std::int64_t>() != kDigestVersion) {
      throw DataError("{}: record {} has version {}; this program knows {}", zip.path().string(),
                      printable(entry.name), json.at("version").get<std::int64_t>(), kDigestVersion);
    }
    digests.prefix_crc32c = json.at("prefix_crc32c").get<std::uint32_t>();
    for (const auto& record : json.at("records")) {
      digests.records.push_back({record.at("name").get<std::string>(), record.at("size").get<std::uint64_t>(),
                                 record.at("crc32c").get<std::uint32_t>()});
    }
  } catch (const nlohmann::json::exception&) {
    throw DataError("{}: record {} does not hold digests", zip.path().string(), printable(entry.name));
  }
  return digests;
}

[[noreturn]] void damaged(const ZipReader& zip, std::string_view what) {
  throw DataError("{}: {} damaged (our digest differs); restore the file from a copy", zip.path().string(),
                  what);
}

void compare(const ZipReader& zip, std::uint64_t offset, std::uint64_t available, const std::string& expected,
             std::string_view what) {
  if (expected.size() != available) damaged(zip, what);
  const auto found = zip.file().read(offset, available);
  if (std::memcmp(found.data(), expected.data(), expected.size()) != 0) damaged(zip, what);
}

}  // namespace

std::string make_digests(const std::vector<RecordDigest>& records, std::uint32_t prefix_crc32c) {
  nlohmann::ordered_json json;
  json["version"] = kDigestVersion;
  json["prefix_crc32c"] = prefix_crc32c;
  json["records"] = nlohmann::ordered_json::array();
  for (const RecordDigest& record : records)
    json["records"].push_back({{"name", record.name}, {"size", record.size}, {"crc32c", record.crc32c}});
  return json_text(json);
}

void verify_digests(const ZipReader& zip, const ZipEntry& digests) {
  const Digests expected = parse(zip, digests);
  const FileReader& file = zip.file();
  // Every record must be listed exactly once, so that none is read twice below.
  const std::vector<ZipEntry>& entries = zip.entries();
  if (&entries.back() != &digests || entries.size() != expected.records.size() + 1)
    damaged(zip, "the zip directory is");
  for (std::size_t i = 0; i < expected.records.size(); ++i) {
    if (entries[i].name != expected.records[i].name || entries[i].size != expected.records[i].size)
      damaged(zip, "the zip directory is");
  }
  if (file.checksum(0, digests.header_offset) != expected.prefix_crc32c) {
    for (const RecordDigest& record : expected.records) {
      const ZipEntry* entry = zip.find(record.name);
      if (entry == nullptr || entry->stored_size != record.size ||
          file.checksum(entry->data_offset, entry->stored_size) != record.crc32c)
        damaged(zip, fmt::format("record {} is", printable(record.name)));
    }
    damaged(zip, "a header between the records is");
  }
  compare(zip, digests.header_offset, digests.data_offset - digests.header_offset, zip_local_header(digests),
          "the header of voca_digests.json is");
  if (digests.data_offset + digests.stored_size != zip.directory_offset())
    damaged(zip, "the zip directory is");
  compare(zip, zip.directory_offset(), file.size() - zip.directory_offset(),
          zip_directory(entries, zip.directory_offset()), "the zip directory is");
}

}  // namespace voca::engine
