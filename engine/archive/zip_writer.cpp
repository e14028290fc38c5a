#include "engine/archive/zip_archive.h"
#include "engine/base/digest.h"
#include "engine/base/error.h"
#include "engine/base/little_endian.h"

namespace voca::engine {
namespace {

constexpr std::uint64_t kAlignment = 64;  // as in torch, so that tensors can be memory-mapped in place
constexpr std::uint32_t kSaturated32 = 0xFFFFFFFF;
constexpr std::uint16_t kSaturated16 = 0xFFFF;
constexpr std::uint16_t kVersionPlain = 20;
constexpr std::uint16_t kVersionZip64 = 45;
constexpr std::uint16_t kFixedDate = 0x0021;  // 1980-01-01, the earliest date in a zip

std::uint32_t saturate(std::uint64_t value, std::uint64_t threshold) {
  return value >= threshold ? kSaturated32 : static_cast<std::uint32_t>(value);
}

/// The fields that a local header and one of the directory share.
void put_common(std::string& out, std::uint16_t version, const ZipEntry& entry, std::size_t extra_size,
                std::uint64_t threshold) {
  append_number(out, version);  // needed
  append_number(out, std::uint16_t{0});
  append_number(out, std::uint16_t{0});  // stored
  append_number(out, std::uint16_t{0});
  append_number(out, kFixedDate);
  append_number(out, entry.crc32);
  append_number(out, saturate(entry.size, threshold));
  append_number(out, saturate(entry.size, threshold));
  append_number(out, static_cast<std::uint16_t>(entry.name.size()));
  append_number(out, static_cast<std::uint16_t>(extra_size));
}

void put_central_header(std::string& out, const ZipEntry& entry, std::uint64_t threshold) {
  std::string zip64;
  if (entry.size >= threshold) {
    append_number(zip64, entry.size);
    append_number(zip64, entry.size);
  }
  if (entry.header_offset >= threshold) append_number(zip64, entry.header_offset);
  const std::uint16_t version = zip64.empty() ? kVersionPlain : kVersionZip64;
  append_number(out, std::uint32_t{0x02014B50});
  append_number(out, version);  // made by
  put_common(out, version, entry, zip64.empty() ? 0 : zip64.size() + 4, threshold);
  append_number(out, std::uint16_t{0});
  append_number(out, std::uint16_t{0});
  append_number(out, std::uint16_t{0});
  append_number(out, std::uint32_t{0});
  append_number(out, saturate(entry.header_offset, threshold));
  out += entry.name;
  if (!zip64.empty()) {
    append_number(out, std::uint16_t{1});
    append_number(out, static_cast<std::uint16_t>(zip64.size()));
    out += zip64;
  }
}

}  // namespace

std::string zip_local_header(const ZipEntry& entry, std::uint64_t zip64_threshold) {
  const bool zip64 = entry.size >= zip64_threshold;
  std::string extra;
  if (zip64) {
    append_number(extra, std::uint16_t{1});
    append_number(extra, std::uint16_t{16});
    append_number(extra, entry.size);
    append_number(extra, entry.size);
  }
  const std::uint64_t start = entry.header_offset + 30 + entry.name.size() + extra.size() + 4;
  const std::uint64_t padding = (kAlignment - start % kAlignment) % kAlignment;
  extra += "FB";
  append_number(extra, static_cast<std::uint16_t>(padding));
  extra.append(padding, 'Z');

  std::string out;
  append_number(out, std::uint32_t{0x04034B50});
  put_common(out, zip64 ? kVersionZip64 : kVersionPlain, entry, extra.size(), zip64_threshold);
  return out + entry.name + extra;
}

std::string zip_directory(std::span<const ZipEntry> entries, std::uint64_t directory_offset,
                          std::uint64_t zip64_threshold) {
  std::string out;
  for (const ZipEntry& entry : entries) put_central_header(out, entry, zip64_threshold);
  const std::uint64_t size = out.size();
  const bool many = entries.size() >= kSaturated16;
  if (many || size >= zip64_threshold || directory_offset >= zip64_threshold) {
    append_number(out, std::uint32_t{0x06064B50});
    append_number(out, std::uint64_t{44});  // bytes of this record that follow
    append_number(out, kVersionZip64);
    append_number(out, kVersionZip64);
    append_number(out, std::uint32_t{0});
    append_number(out, std::uint32_t{0});
    append_number(out, std::uint64_t{entries.size()});
    append_number(out, std::uint64_t{entries.size()});
    append_number(out, size);
    append_number(out, directory_offset);
    append_number(out, std::uint32_t{0x07064B50});
    append_number(out, std::uint32_t{0});
    append_number(out, directory_offset + size);
    append_number(out, std::uint32_t{1});
  }
  append_number(out, std::uint32_t{0x06054B50});
  append_number(out, std::uint16_t{0});
  append_number(out, std::uint16_t{0});
  append_number(out, many ? kSaturated16 : static_cast<std::uint16_t>(entries.size()));
  append_number(out, many ? kSaturated16 : static_cast<std::uint16_t>(entries.size()));
  append_number(out, saturate(size, zip64_threshold));
  append_number(out, saturate(directory_offset, zip64_threshold));
  append_number(out, std::uint16_t{0});
  return out;
}

ZipWriter::ZipWriter(Sink sink, std::uint64_t zip64_threshold)
    : sink_(std::move(sink)), zip64_threshold_(zip64_threshold) {}

void ZipWriter::emit(std::span<const std::byte> bytes) {
  sink_(bytes);
  crc32c_ = engine::crc32c(bytes, crc32c_);
  position_ += bytes.size();
}

void ZipWriter::add(const std::string& name, std::uint64_t size, std::uint32_t crc32,
                    const std::function<void(const Sink&)>& produce) {
  ZipEntry entry;
  entry.name = name;
  entry.size = entry.stored_size = size;
  entry.header_offset = position_;
  entry.crc32 = crc32;
  const std::string header = zip_local_header(entry, zip64_threshold_);
  emit(std::as_bytes(std::span(header)));
  entry.data_offset = position_;
  produce([this](std::span<const std::byte> bytes) { emit(bytes); });
  VOCA_CHECK(position_ - entry.data_offset == size);
  entries_.push_back(std::move(entry));
}

void ZipWriter::add(const std::string& name, std::span<const std::byte> content) {
  add(name, content.size(), zip_crc32(content), [&](const Sink& sink) { sink(content); });
}

void ZipWriter::finish() {
  const std::string directory = zip_directory(entries_, position_, zip64_threshold_);
  emit(std::as_bytes(std::span(directory)));
}

}  // namespace voca::engine
