#include <algorithm>
#include <numeric>
#include <optional>

#include "engine/archive/zip_archive.h"
#include "engine/base/error.h"
#include "engine/base/little_endian.h"
#include "engine/base/text.h"

namespace voca::engine {
namespace {

constexpr std::uint32_t kLocalSignature = 0x04034B50;
constexpr std::uint32_t kCentralSignature = 0x02014B50;
constexpr std::uint32_t kEndSignature = 0x06054B50;
constexpr std::uint32_t kZip64EndSignature = 0x06064B50;
constexpr std::uint32_t kZip64LocatorSignature = 0x07064B50;
constexpr std::uint64_t kLocalHeaderSize = 30;
constexpr std::uint64_t kCentralHeaderSize = 46;
constexpr std::uint64_t kEndSize = 22;
constexpr std::uint64_t kZip64EndSize = 56;
constexpr std::uint64_t kZip64LocatorSize = 20;
constexpr std::uint64_t kMaxComment = 65535;
constexpr std::uint64_t kMaxDirectoryBytes = std::uint64_t{128} << 20;
constexpr std::uint64_t kMaxEntries = 1'000'000;
constexpr std::uint64_t kMaxDeflateRatio = 1032;  // zlib's technical notes: no stream expands further
constexpr std::uint32_t kSaturated32 = 0xFFFFFFFF;
constexpr std::uint16_t kSaturated16 = 0xFFFF;
constexpr std::uint16_t kEncryptionFlags = 0x2041;  // encrypted, strong encryption, masked headers
constexpr std::uint16_t kDescriptorFlag = 0x0008;
constexpr std::uint16_t kZip64Extra = 0x0001;
constexpr std::uint16_t kDeflated = 8;
constexpr std::size_t kPieceBytes = std::size_t{256} << 10;

/// Reads consecutive little-endian fields; throws past the end.
class Fields {
 public:
  Fields(std::span<const std::byte> bytes, const std::filesystem::path& path) : bytes_(bytes), path_(path) {}

  template <typename T>
  T take() {
    const auto field = take_bytes(sizeof(T));
    return leading_number<T>({reinterpret_cast<const char*>(field.data()), field.size()});
  }
  std::span<const std::byte> take_bytes(std::size_t count) {
    if (count > bytes_.size())
      throw DataError("{}: the zip directory is damaged: a field reaches beyond it", path_.string());
    const auto field = bytes_.first(count);
    bytes_ = bytes_.subspan(count);
    return field;
  }
  void skip(std::size_t count) { (void)take_bytes(count); }
  [[nodiscard]] bool empty() const { return bytes_.empty(); }

 private:
  std::span<const std::byte> bytes_;
  const std::filesystem::path& path_;
};

struct Directory {
  std::uint64_t entries = 0;
  std::uint64_t offset = 0;
  std::uint64_t size = 0;
};

/// Offset of the end record: the last position whose comment reaches exactly to the end of the file.
std::optional<std::uint64_t> find_end_record(const FileReader& file) {
  if (file.size() < kEndSize) return std::nullopt;
  const std::uint64_t tail = std::min(file.size(), kEndSize + kMaxComment);
  const auto bytes = file.read(file.size() - tail, tail);
  for (std::uint64_t back = kEndSize; back <= tail; ++back) {
    const std::span<const std::byte> candidate(bytes);
    Fields fields(candidate.subspan(tail - back), file.path());
    if (fields.take<std::uint32_t>() != kEndSignature) continue;
    fields.skip(16);
    if (fields.take<std::uint16_t>() == back - kEndSize) return file.size() - back;
  }
  return std::nullopt;
}

[[noreturn]] void damaged(const FileReader& file, std::string_view what) {
  throw DataError("{}: the zip directory is damaged: {}", file.path().string(), what);
}

Directory read_end_records(const FileReader& file) {
  const auto end_offset = find_end_record(file);
  if (!end_offset) {
    throw DataError("{}: no zip end record; the file is truncated or not a zip archive",
                    file.path().string());
  }
  const auto bytes = file.read(*end_offset, kEndSize);
  Fields end(bytes, file.path());
  end.skip(4);
  const auto disk = end.take<std::uint16_t>();
  const auto directory_disk = end.take<std::uint16_t>();
  const auto entries_here = end.take<std::uint16_t>();
  const auto entries = end.take<std::uint16_t>();
  const auto size = end.take<std::uint32_t>();
  const auto offset = end.take<std::uint32_t>();
  Directory directory{entries, offset, size};
  std::uint64_t directory_end = *end_offset;

  std::vector<std::byte> locator_bytes;
  if (*end_offset >= kZip64LocatorSize)
    locator_bytes = file.read(*end_offset - kZip64LocatorSize, kZip64LocatorSize);
  Fields locator(locator_bytes, file.path());
  if (!locator.empty() && locator.take<std::uint32_t>() == kZip64LocatorSignature) {
    locator.skip(4);
    directory_end = locator.take<std::uint64_t>();
    if (directory_end > file.size() - kZip64EndSize)
      damaged(file, "its ZIP64 end record lies outside the file");
    const auto zip64_bytes = file.read(directory_end, kZip64EndSize);
    Fields zip64(zip64_bytes, file.path());
    if (zip64.take<std::uint32_t>() != kZip64EndSignature)
      damaged(file, "no ZIP64 end record where one should be");
    zip64.skip(8 + 2 + 2);
    if (zip64.take<std::uint32_t>() != 0 || zip64.take<std::uint32_t>() != 0)
      damaged(file, "it spans several disks");
    zip64.skip(8);
    directory = {zip64.take<std::uint64_t>(), 0, 0};
    directory.size = zip64.take<std::uint64_t>();
    directory.offset = zip64.take<std::uint64_t>();
    if ((entries != kSaturated16 && entries != directory.entries) ||
        (size != kSaturated32 && size != directory.size) ||
        (offset != kSaturated32 && offset != directory.offset))
      damaged(file, "its two end records disagree");
  } else if (entries == kSaturated16 || size == kSaturated32 || offset == kSaturated32) {
    damaged(file, "its ZIP64 end record is missing");
  }
  if ((disk != 0 && disk != kSaturated16) || (directory_disk != 0 && directory_disk != kSaturated16) ||
      entries_here != entries)
    damaged(file, "it spans several disks");
  if (directory.offset > directory_end || directory.size != directory_end - directory.offset)
    damaged(file, "it does not end where its end record begins");
  if (directory.size > kMaxDirectoryBytes || directory.entries > kMaxEntries ||
      directory.entries > directory.size / kCentralHeaderSize)
    damaged(file, "it names more records than it can hold");
  return directory;
}

/// Replaces the saturated fields of a central header by those of its ZIP64 extra field.
void apply_zip64(Fields extra, ZipEntry& entry, const FileReader& file) {
  const bool needs_size = entry.size == kSaturated32;
  const bool needs_stored = entry.stored_size == kSaturated32;
  const bool needs_offset = entry.header_offset == kSaturated32;
  if (!needs_size && !needs_stored && !needs_offset) return;
  while (!extra.empty()) {
    const auto id = extra.take<std::uint16_t>();
    const auto length = extra.take<std::uint16_t>();
    Fields field(extra.take_bytes(length), file.path());
    if (id != kZip64Extra) continue;
    if (needs_size) entry.size = field.take<std::uint64_t>();
    if (needs_stored) entry.stored_size = field.take<std::uint64_t>();
    if (needs_offset) entry.header_offset = field.take<std::uint64_t>();
    return;
  }
}

ZipEntry read_central_header(Fields& fields, const FileReader& file) {
  if (fields.take<std::uint32_t>() != kCentralSignature)
    damaged(file, "a record's entry does not begin as one");
  ZipEntry entry;
  fields.skip(2 + 2);
  const auto flags = fields.take<std::uint16_t>();
  const auto method = fields.take<std::uint16_t>();
  fields.skip(2 + 2);
  entry.crc32 = fields.take<std::uint32_t>();
  entry.stored_size = fields.take<std::uint32_t>();
  entry.size = fields.take<std::uint32_t>();
  const auto name_length = fields.take<std::uint16_t>();
  const auto extra_length = fields.take<std::uint16_t>();
  const auto comment_length = fields.take<std::uint16_t>();
  const auto disk = fields.take<std::uint16_t>();
  fields.skip(2 + 4);
  entry.header_offset = fields.take<std::uint32_t>();
  const auto name = fields.take_bytes(name_length);
  entry.name.assign(reinterpret_cast<const char*>(name.data()), name.size());
  apply_zip64(Fields(fields.take_bytes(extra_length), file.path()), entry, file);
  fields.skip(comment_length);

  const std::string shown = printable(entry.name);
  if (disk != 0 && disk != kSaturated16) damaged(file, "it spans several disks");
  if ((flags & kEncryptionFlags) != 0) {
    throw DataError("{}: record {} is encrypted; save the file without encryption", file.path().string(),
                    shown);
  }
  if (method != 0 && method != kDeflated) {
    throw DataError("{}: record {} is compressed by method {}; only stored and deflated ones are read",
                    file.path().string(), shown, method);
  }
  entry.deflated = method == kDeflated;
  if (!entry.deflated && entry.size != entry.stored_size)
    damaged(file, fmt::format("the two sizes of stored record {} differ", shown));
  if (entry.deflated && entry.size / kMaxDeflateRatio > entry.stored_size)
    damaged(file, fmt::format("record {} claims to expand further than deflate can", shown));
  return entry;
}

}  // namespace

ZipReader::ZipReader(FileReader file) : file_(std::move(file)) {
  const Directory directory = read_end_records(file_);
  directory_offset_ = directory.offset;
  const auto bytes = file_.read(directory.offset, directory.size);
  Fields fields(bytes, file_.path());
  entries_.reserve(directory.entries);
  for (std::uint64_t i = 0; i < directory.entries; ++i) {
    entries_.push_back(read_central_header(fields, file_));
    ZipEntry& entry = entries_.back();
    locate_data(entry);
    if (!index_.emplace(entry.name, entries_.size() - 1).second)
      damaged(file_, fmt::format("it has two records named {}", printable(entry.name)));
  }
  if (!fields.empty()) damaged(file_, "it holds more than its records");
  check_overlaps();
}

void ZipReader::locate_data(ZipEntry& entry) const {
  const auto bad = [&](std::string_view what) {
    damaged(file_, fmt::format("record {} {}", printable(entry.name), what));
  };
  if (entry.header_offset > directory_offset_ || directory_offset_ - entry.header_offset < kLocalHeaderSize)
    bad("begins outside the file");
  const auto bytes = file_.read(entry.header_offset, kLocalHeaderSize);
  Fields local(bytes, file_.path());
  if (local.take<std::uint32_t>() != kLocalSignature) bad("has no header where the directory says");
  local.skip(2);
  const auto flags = local.take<std::uint16_t>();
  const bool deflated = local.take<std::uint16_t>() == kDeflated;
  local.skip(2 + 2);
  const auto crc = local.take<std::uint32_t>();
  const auto stored_size = local.take<std::uint32_t>();
  const auto size = local.take<std::uint32_t>();
  const auto name_length = local.take<std::uint16_t>();
  const auto extra_length = local.take<std::uint16_t>();

  entry.data_offset = entry.header_offset + kLocalHeaderSize + name_length + extra_length;
  if (entry.data_offset > directory_offset_ || entry.stored_size > directory_offset_ - entry.data_offset) {
    bad(fmt::format("of {} bytes reaches beyond the {} bytes before the directory", entry.stored_size,
                    directory_offset_));
  }
  const auto name = file_.read(entry.header_offset + kLocalHeaderSize, name_length);
  const auto expected = std::as_bytes(std::span(entry.name));
  if (!std::equal(name.begin(), name.end(), expected.begin(), expected.end()) || deflated != entry.deflated)
    bad("has a header that disagrees with the directory");
  // With a data descriptor the values follow the data, and these fields may be zero.
  if ((flags & kDescriptorFlag) == 0 && (crc != entry.crc32 || (size != kSaturated32 && size != entry.size) ||
                                         (stored_size != kSaturated32 && stored_size != entry.stored_size)))
    bad("has a header that disagrees with the directory");
}

void ZipReader::check_overlaps() const {
  std::vector<std::size_t> order(entries_.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return entries_[a].header_offset < entries_[b].header_offset;
  });
  for (std::size_t i = 1; i < order.size(); ++i) {
    const ZipEntry& before = entries_[order[i - 1]];
    const ZipEntry& entry = entries_[order[i]];
    if (entry.header_offset < before.data_offset + before.stored_size)
      damaged(file_, fmt::format("records {} and {} overlap", printable(before.name), printable(entry.name)));
  }
}

const ZipEntry* ZipReader::find(std::string_view name) const {
  const auto found = index_.find(std::string(name));
  return found == index_.end() ? nullptr : &entries_[found->second];
}

std::vector<std::byte> ZipReader::read(const ZipEntry& entry, std::uint64_t max_bytes) const {
  if (entry.size > max_bytes) {
    throw DataError("{}: record {} has {} bytes; at most {} are read", path().string(), printable(entry.name),
                    entry.size, max_bytes);
  }
  std::vector<std::byte> bytes;
  bytes.reserve(entry.size);
  ZipStream stream(*this, entry);
  while (bytes.size() < entry.size) {
    const std::size_t done = bytes.size();
    bytes.resize(std::min<std::uint64_t>(done + kPieceBytes, entry.size));
    stream.read(std::span(bytes).subspan(done));
  }
  stream.finish();
  return bytes;
}

void ZipReader::verify(const ZipEntry& entry) const {
  std::vector<std::byte> buffer(std::min<std::uint64_t>(kPieceBytes, entry.size));
  ZipStream stream(*this, entry);
  for (std::uint64_t done = 0; done < entry.size; done += buffer.size())
    stream.read(std::span(buffer).first(std::min<std::uint64_t>(buffer.size(), entry.size - done)));
  stream.finish();
}

}  // namespace voca::engine
