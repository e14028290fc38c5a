#include "engine/checkpoint/resume/earlier_state.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "engine/base/digest.h"
#include "engine/base/error.h"
#include "engine/base/file_reader.h"
#include "engine/base/json.h"
#include "engine/base/little_endian.h"
#include "engine/base/text.h"

namespace voca::engine {
namespace {

// The form:
//   0   8  "VOCARES" and the format version, one byte
//   8   8  size of the header in bytes, uint64
//   16  4  CRC-32C of the first 16 bytes and the header
//   20     header: JSON {"user": …, "sections": [{name, dtype, offset, bytes, crc32c}, …]}
// The sections, one per tensor, follow on 64-byte boundaries, with zeros between them and nothing after the
// last. Their offsets count from the first section. A dtype is the number of a DType.
constexpr std::string_view kMagic = "VOCARES";
constexpr char kVersion = 1;
constexpr std::uint64_t kPrefixBytes = 20;
constexpr std::uint64_t kCrcBytes = 4;
constexpr std::uint64_t kMaxHeaderBytes = std::uint64_t{64} << 20;

using Json = nlohmann::ordered_json;

std::uint64_t align(std::uint64_t offset) {
  constexpr std::uint64_t kAlignment = 64;
  return (offset + kAlignment - 1) / kAlignment * kAlignment;
}

[[noreturn]] void damaged(const FileReader& file, std::string_view what) {
  throw DataError("{}: damaged: {}", file.path().string(), what);
}

void check_zeros(const FileReader& file, std::uint64_t begin, std::uint64_t end) {
  const auto gap = file.read(begin, end - begin);
  if (std::any_of(gap.begin(), gap.end(), [](std::byte byte) { return byte != std::byte{0}; }))
    damaged(file, "bytes between its sections");
}

/// `end` is set to the end of the header.
Json read_header(const FileReader& file, std::uint64_t& end) {
  if (file.size() < kPrefixBytes) damaged(file, "too short");
  std::string start(kPrefixBytes, '\0');
  file.read(0, std::as_writable_bytes(std::span(start)));
  if (const char version = start[kMagic.size()]; version != kVersion) {
    throw DataError("{}: resume state of format {}; this program reads {}", file.path().string(),
                    static_cast<int>(version), static_cast<int>(kVersion));
  }
  const std::string_view view = start;
  const auto length = leading_number<std::uint64_t>(view.substr(kMagic.size() + 1));
  const auto expected = leading_number<std::uint32_t>(view.substr(kPrefixBytes - kCrcBytes));
  if (length > kMaxHeaderBytes || length > file.size() - kPrefixBytes) damaged(file, "its header's length");
  const auto text = file.read(kPrefixBytes, length);
  const std::uint32_t found =
      crc32c(text, crc32c(std::as_bytes(std::span(start).first(kPrefixBytes - kCrcBytes))));
  if (found != expected) damaged(file, "its header");
  end = kPrefixBytes + length;
  return parse_json({reinterpret_cast<const char*>(text.data()), text.size()},
                    file.path().string() + ": damaged: its header");
}

std::uint64_t number_of(const Json& section, const char* key, const FileReader& file) {
  const Json& number = section.at(key);
  if (!number.is_number_unsigned()) damaged(file, fmt::format("a section's {}", key));
  return number.get<std::uint64_t>();
}

ResumeState read(const std::shared_ptr<const FileReader>& file) {
  ResumeState state;
  state.path = file->path();
  state.earlier_form = true;
  std::uint64_t end = 0;
  Json header = read_header(*file, end);
  const std::uint64_t first = align(end);
  for (const Json& section : header.at("sections")) {
    const auto name = section.at("name").get<std::string>();
    const std::uint64_t type = number_of(section, "dtype", *file);
    if (type > static_cast<std::uint64_t>(DType::kBool)) damaged(*file, "a section's type");
    const auto dtype = static_cast<DType>(type);
    const std::uint64_t bytes = number_of(section, "bytes", *file);
    const std::uint64_t begin = align(end);
    if (number_of(section, "offset", *file) != begin - first) damaged(*file, "a section's place");
    if (begin > file->size() || bytes > file->size() - begin)
      damaged(*file, fmt::format("section {} is cut short", printable(name)));
    check_zeros(*file, end, begin);
    if (bytes % size_of(dtype) != 0 || file->checksum(begin, bytes) != number_of(section, "crc32c", *file))
      damaged(*file, fmt::format("section {}", printable(name)));
    state.tensors.push_back(
        {name, contiguous_tensor(dtype, {static_cast<std::int64_t>(bytes / size_of(dtype))},
                                 storage_in(file, begin, bytes))});
    end = begin + bytes;
  }
  if (end != file->size()) damaged(*file, "bytes behind its last section");
  state.header = std::move(header.at("user"));
  return state;
}

}  // namespace

std::optional<ResumeState> read_earlier_state(const std::filesystem::path& path) {
  const auto file = std::make_shared<const FileReader>(path);
  std::string start(std::min<std::uint64_t>(file->size(), kMagic.size()), '\0');
  file->read(0, std::as_writable_bytes(std::span(start)));
  if (start != kMagic) return std::nullopt;
  try {
    return read(file);
  } catch (const nlohmann::json::exception&) {
    damaged(*file, "its header");
  }
}

}  // namespace voca::engine
