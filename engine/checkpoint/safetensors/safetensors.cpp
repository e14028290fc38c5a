#include "engine/checkpoint/safetensors/safetensors.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "engine/base/atomic_file.h"
#include "engine/base/digest.h"
#include "engine/base/error.h"
#include "engine/base/file_reader.h"
#include "engine/base/json.h"
#include "engine/base/little_endian.h"
#include "engine/base/text.h"

namespace voca::engine {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::uint64_t kLengthBytes = 8;
// The reference implementation accepts 100 MB. Parsed JSON takes several times the size of its text, and a
// thousand tensors need 0.1 MB.
constexpr std::uint64_t kMaxHeaderBytes = std::uint64_t{16} << 20;
constexpr std::size_t kMaxRank = 16;
constexpr std::size_t kMaxTensors = 100'000;
constexpr std::size_t kMaxItems = 64;  // maximum items of a JSON array; checked before values are created
constexpr std::uint64_t kAlignment = 64;
constexpr std::string_view kMetadataKey = "__metadata__";
// CRC-32C of the whole file, with the eight digits of the digest itself replaced by zeros.
constexpr std::string_view kDigestKey = "voca_crc32c";
constexpr std::string_view kWriterKey = "voca_writer";
constexpr std::string_view kWriter = "voca-engine";
constexpr std::string_view kNoDigest = "00000000";

constexpr auto kDTypes = std::to_array<Named<DType>>({{"F64", DType::kF64},
                                                      {"F32", DType::kF32},
                                                      {"F16", DType::kF16},
                                                      {"BF16", DType::kBF16},
                                                      {"I64", DType::kI64},
                                                      {"I32", DType::kI32},
                                                      {"I16", DType::kI16},
                                                      {"I8", DType::kI8},
                                                      {"U8", DType::kU8},
                                                      {"BOOL", DType::kBool}});
static_assert(kDTypes.size() == kNames<DType>.size());

std::string digest_text(std::string_view digits) {
  return fmt::format(R"("{}":"{}")", kDigestKey, digits);
}

Json parse_header(const std::filesystem::path& path, std::string_view text) {
  const std::string where = path.string() + ": header";
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos || text[first] != '{')
    throw DataError("{} is not a JSON object", where);
  return parse_json(text, where, {.keys = kMaxTensors, .items = kMaxItems});
}

std::uint64_t number(const Json& json) {
  if (!json.is_number_unsigned()) throw DataError("not a number from 0 on");
  return json.get<std::uint64_t>();
}

/// Parses a tensor's entry. Its data must begin at `next`, which advances, and lie within the file. Throws
/// DataError without the tensor's name.
NamedTensor read_entry(const std::string& name, const Json& entry, std::shared_ptr<const FileReader> file,
                       std::uint64_t data_offset, std::uint64_t& next) {
  if (!entry.is_object() || !entry.contains("dtype") || !entry["dtype"].is_string() ||
      !entry.contains("shape") || !entry["shape"].is_array() || !entry.contains("data_offsets") ||
      !entry["data_offsets"].is_array() || entry["data_offsets"].size() != 2)
    throw DataError("needs dtype, shape and data_offsets");
  const auto& dtype_name = entry["dtype"].get_ref<const std::string&>();
  const std::optional<DType> dtype = value_named<DType>(kDTypes, dtype_name);
  if (!dtype) {
    throw DataError("has dtype {}; F64, F32, F16, BF16, I64, I32, I16, I8, U8 and BOOL are read",
                    printable(dtype_name));
  }
  const std::uint64_t begin = number(entry["data_offsets"][0]);
  const std::uint64_t end = number(entry["data_offsets"][1]);
  const std::uint64_t available = file->size() - data_offset;
  if (begin != next)
    throw DataError("begins at {}, where {} was expected: data overlaps or leaves a hole", begin, next);
  if (end < begin || end > available) throw DataError("ends at {} of {} bytes of data", end, available);
  bool empty = false;
  std::uint64_t bytes = size_of(*dtype);  // without extents of 0, so that nothing below overflows
  if (entry["shape"].size() > kMaxRank)
    throw DataError("has {} dimensions; at most {} are read", entry["shape"].size(), kMaxRank);
  std::vector<std::int64_t> shape;
  for (const Json& extent : entry["shape"]) {
    const std::uint64_t count = number(extent);
    empty = empty || count == 0;
    if (count != 0 && (__builtin_mul_overflow(bytes, count, &bytes) || bytes >> 62U != 0))
      throw DataError("has a shape beyond any file");
    shape.push_back(static_cast<std::int64_t>(count));
  }
  if ((empty ? 0 : bytes) != end - begin)
    throw DataError("takes {} bytes where its shape needs {}", end - begin, empty ? 0 : bytes);
  next = end;
  return {name, contiguous_tensor(*dtype, std::move(shape),
                                  storage_in(std::move(file), data_offset + begin, end - begin))};
}

std::map<std::string, std::string> read_metadata(const std::filesystem::path& path, const Json& json) {
  std::map<std::string, std::string> metadata;
  if (json.is_null()) return metadata;
  if (!json.is_object()) throw DataError("{}: __metadata__ is not a map of strings", path.string());
  for (const auto& [key, text] : json.items()) {
    if (!text.is_string()) throw DataError("{}: __metadata__ is not a map of strings", path.string());
    metadata.emplace(key, text.get<std::string>());
  }
  return metadata;
}

/// Sort key of the tensors; read_entry() rejects entries without offsets.
std::pair<std::uint64_t, std::uint64_t> offsets_of(const Json& entry) {
  if (!entry.is_object() || !entry.contains("data_offsets")) return {};
  const Json& offsets = entry["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned())
    return {};
  return {offsets[0].get<std::uint64_t>(), offsets[1].get<std::uint64_t>()};
}

void verify_digest(const FileReader& file, std::string start, const SafetensorsFile& result) {
  const auto writer = result.metadata.find(std::string(kWriterKey));
  const auto digest = result.metadata.find(std::string(kDigestKey));
  if (writer == result.metadata.end() && digest == result.metadata.end()) return;
  std::uint32_t crc = 0;
  std::string expected;
  if (digest != result.metadata.end() && digest->second.size() == kNoDigest.size()) {
    expected = digest->second;
    const std::size_t at = start.find(digest_text(expected));
    if (at != std::string::npos) start.replace(at, digest_text(kNoDigest).size(), digest_text(kNoDigest));
    crc = file.checksum(start.size(), file.size() - start.size(), crc32c(std::as_bytes(std::span(start))));
  }
  if (writer == result.metadata.end() || expected != fmt::format("{:08x}", crc))
    throw DataError(
        "{}: damaged, or saved again by another program with the digest of the old file; restore it from a copy, or "
        "save it without the metadata {} and {}",
        file.path().string(), kWriterKey, kDigestKey);
}

}  // namespace

SafetensorsFile read_safetensors(const std::filesystem::path& path, Verify verify) {
  const auto file = std::make_shared<const FileReader>(path);
  if (file->size() < kLengthBytes + 2)
    throw DataError("{}: has {} bytes; not a safetensors file", path.string(), file->size());
  std::uint64_t header_bytes = 0;
  file->read(0, std::as_writable_bytes(std::span(&header_bytes, 1)));
  if (header_bytes > kMaxHeaderBytes || header_bytes > file->size() - kLengthBytes) {
    throw DataError("{}: declares a header of {} bytes in a file of {}; truncated or no safetensors file",
                    path.string(), header_bytes, file->size());
  }
  const std::uint64_t data_offset = kLengthBytes + header_bytes;
  std::string start(data_offset, '\0');
  file->read(0, std::as_writable_bytes(std::span(start)));
  const Json header = parse_header(path, std::string_view(start).substr(kLengthBytes));

  SafetensorsFile result;
  std::vector<std::pair<std::string, const Json*>> entries;
  for (const auto& [name, entry] : header.items()) {
    if (name == kMetadataKey) {
      result.metadata = read_metadata(path, entry);
    } else {
      entries.emplace_back(name, &entry);
    }
  }
  std::stable_sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return offsets_of(*a.second) < offsets_of(*b.second);
  });
  std::uint64_t next = 0;
  for (const auto& [name, entry] : entries) {
    try {
      result.tensors.push_back(read_entry(name, *entry, file, data_offset, next));
    } catch (const DataError& error) {
      throw DataError("{}: tensor {} {}", path.string(), printable(name), error.what());
    }
  }
  if (next != file->size() - data_offset) {
    throw DataError("{}: its tensors take {} of {} bytes of data", path.string(), next,
                    file->size() - data_offset);
  }
  result.has_digest = result.metadata.contains(std::string(kWriterKey));
  if (verify == Verify::kEverything) verify_digest(*file, std::move(start), result);
  return result;
}

void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::map<std::string, std::string> texts = metadata;
  texts["format"] = "pt";
  texts[std::string(kWriterKey)] = kWriter;
  texts[std::string(kDigestKey)] = kNoDigest;
  Json header = Json::object();
  header[std::string(kMetadataKey)] = texts;
  std::uint64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    if (header.contains(name)) throw InternalError("{}: tensor {} given twice", path.string(), name);
    const std::uint64_t end = offset + static_cast<std::uint64_t>(tensor.elements()) * size_of(tensor.dtype);
    header[name] = {{"dtype", name_in<DType>(kDTypes, tensor.dtype)},
                    {"shape", tensor.shape},
                    {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = json_text(header);
  text.append((kAlignment - (kLengthBytes + text.size()) % kAlignment) % kAlignment, ' ');
  std::string start;
  append_number(start, std::uint64_t{text.size()});
  start += text;

  std::uint32_t crc = crc32c(std::as_bytes(std::span(start)));
  for (const NamedTensor& named : tensors)
    named.tensor.visit_bytes([&](std::span<const std::byte> piece) { crc = crc32c(piece, crc); });
  start.replace(start.find(digest_text(kNoDigest)), digest_text(kNoDigest).size(),
                digest_text(fmt::format("{:08x}", crc)));
  AtomicFile file(path);
  file.write(start);
  for (const NamedTensor& named : tensors)
    named.tensor.visit_bytes([&](std::span<const std::byte> piece) { file.write(piece); });
  file.commit([&](const std::filesystem::path& temporary) {
    try {
      (void)read_safetensors(temporary, Verify::kEverything);
    } catch (const DataError&) {
      throw IoError("{}: what was read back is not what was written; check the disk", path.string());
    }
  });
}

}  // namespace voca::engine
