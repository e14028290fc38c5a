#include "data/tree/npz.h"

#include <fmt/format.h>
#include <zip.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <string_view>
#include <utility>

#include "engine/base/digest.h"
#include "engine/base/file_kind.h"
#include "engine/base/path_status.h"
#include "engine/base/text.h"
#include "engine/base/unique_handle.h"

namespace voca::data {
namespace {

struct ArchiveTraits {
  static constexpr zip_t* kNone = nullptr;
  static void close(zip_t* archive) { zip_discard(archive); }
};
using Archive = engine::UniqueHandle<ArchiveTraits>;

/// Calls `read` and throws what it finds wrong with the file as an ArrayError.
template <typename Read>
auto reading(const Read& read) {
  try {
    return read();
  } catch (const ArrayError&) {
    throw;
  } catch (const engine::ZipChecksumError& error) {
    throw ArrayError(ArrayFault::kChecksum, "{}", error.what());
  } catch (const engine::DataError& error) {
    throw ArrayError(ArrayFault::kDamaged, "{}", error.what());
  }
}

engine::FileReader open_file(const std::filesystem::path& path) {
  try {
    return engine::FileReader(path);
  } catch (const ReadError& error) {
    if (!engine::says_absent(error.error_number()) && error.error_number() != ELOOP) throw;
    throw ArrayError(ArrayFault::kUnreadable, "{}", error.what());
  } catch (const engine::DataError& error) {
    throw ArrayError(ArrayFault::kUnreadable, "{}", error.what());  // not a regular file
  }
}

engine::ZipReader open_archive(const std::filesystem::path& path) {
  engine::FileReader file = open_file(path);
  return reading([&] {
    try {
      return engine::ZipReader(std::move(file));
    } catch (const engine::DataError&) {
      const std::string other = engine::mistaken_kind(path, engine::FileKind::kNpz);
      if (other.empty()) throw;
      throw engine::DataError("{}: {}", path.string(), other);
    }
  });
}

constexpr std::string_view kSuffix = ".npy";

[[noreturn]] void damaged(const std::string& where, std::string_view what) {
  throw ArrayError(ArrayFault::kDamaged, "{}: {}", where, what);
}

NpyHeader read_header(engine::ZipStream& stream, std::uint64_t size, const std::string& where) {
  std::vector<std::byte> bytes(12);
  if (size < bytes.size()) damaged(where, "is too short for a NumPy array");
  stream.read(bytes);
  const std::size_t length = npy_header_bytes(bytes, where);
  if (length < bytes.size() || length > size) damaged(where, "its header is longer than the array");
  const std::size_t have = bytes.size();
  bytes.resize(length);
  stream.read(std::span(bytes).subspan(have));
  NpyHeader header = parse_npy_header(bytes, where);
  if (header.data_bytes() != size - length) {
    throw ArrayError(ArrayFault::kShape, "{}: its shape needs {} bytes, {} are there", where,
                     header.data_bytes(), size - length);
  }
  return header;
}

}  // namespace

NpzReader::NpzReader(const std::filesystem::path& path) : zip_(open_archive(path)) {}

bool NpzReader::has(const std::string& key) const {
  return zip_.find(key + ".npy") != nullptr;
}

std::vector<std::string> NpzReader::keys() const {
  std::vector<std::string> keys;
  for (const engine::ZipEntry& entry : zip_.entries()) {
    if (entry.name.ends_with(kSuffix))
      keys.push_back(entry.name.substr(0, entry.name.size() - kSuffix.size()));
  }
  return keys;
}

const engine::ZipEntry& NpzReader::find(const std::string& key) const {
  const engine::ZipEntry* const entry = zip_.find(key + ".npy");
  if (entry != nullptr) return *entry;
  constexpr std::size_t kNamed = 5;
  std::vector<std::string> names;
  for (const engine::ZipEntry& other : zip_.entries())
    if (names.size() < kNamed) names.push_back(engine::printable(other.name));
  throw ArrayError(ArrayFault::kMissing, "{}: has no array '{}' (found {}{})", zip_.path().string(), key,
                   names.empty() ? "an empty archive" : fmt::format("{}", fmt::join(names, ", ")),
                   zip_.entries().size() > kNamed ? ", …" : "");
}

std::string NpzReader::where(const std::string& key) const {
  return fmt::format("{}: {}", zip_.path().string(), key);
}

NpyHeader NpzReader::header(const std::string& key) const {
  return reading([&] {
    const engine::ZipEntry& entry = find(key);
    engine::ZipStream stream(zip_, entry);
    return read_header(stream, entry.size, where(key));
  });
}

Array NpzReader::read(const std::string& key) const {
  return reading([&] {
    const engine::ZipEntry& entry = find(key);
    engine::ZipStream stream(zip_, entry);
    const NpyHeader header = read_header(stream, entry.size, where(key));
    Buffer data(header.data_bytes());
    stream.read(data.span());
    stream.finish();
    return make_array(header, std::move(data));
  });
}

namespace {

/// The header of an array's .npy, which its bytes follow.
std::string npy_header(const NamedArray& array) {
  return npy_header_text(array.dtype, array.shape);
}

void write_stored(const std::filesystem::path& path, std::span<const NamedArray> arrays) {
  errno = 0;
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  const auto check = [&](const char* what) {
    if (!file) throw engine::IoError("{}: {}: {}", path.string(), what, std::strerror(errno));
  };
  check("cannot create");
  engine::ZipWriter zip([&](std::span<const std::byte> bytes) {
    file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    check("cannot write");
  });
  for (const NamedArray& array : arrays) {
    const std::string header = npy_header(array);
    const auto start = std::as_bytes(std::span(header));
    zip.add(array.name + std::string(kSuffix), start.size() + array.bytes.size(),
            engine::zip_crc32(array.bytes, engine::zip_crc32(start)),
            [&](const engine::ZipWriter::Sink& sink) {
              sink(start);
              sink(array.bytes);
            });
  }
  zip.finish();
  file.close();
  check("cannot write");
}

void write_deflated(const std::filesystem::path& path, std::span<const NamedArray> arrays) {
  int error = 0;
  Archive archive(zip_open(path.c_str(), ZIP_CREATE | ZIP_TRUNCATE, &error));
  if (!archive) throw engine::IoError("{}: cannot create: {}", path.string(), std::strerror(errno));
  const auto check = [&](bool good) {
    if (!good) throw engine::IoError("{}: cannot write: {}", path.string(), zip_strerror(archive.get()));
  };
  std::vector<Buffer> contents;  // must stay valid until zip_close() reads them
  for (const NamedArray& array : arrays) {
    const std::string header = npy_header(array);
    Buffer& content = contents.emplace_back(header.size() + array.bytes.size());
    std::memcpy(content.data(), header.data(), header.size());
    if (!array.bytes.empty())
      std::memcpy(content.data() + header.size(), array.bytes.data(), array.bytes.size());
    zip_source_t* const source = zip_source_buffer(archive.get(), content.data(), content.size, 0);
    check(source != nullptr);
    const zip_int64_t index =
        zip_file_add(archive.get(), (array.name + std::string(kSuffix)).c_str(), source, ZIP_FL_ENC_UTF_8);
    if (index < 0) zip_source_free(source);
    check(index >= 0);
    const auto entry = static_cast<zip_uint64_t>(index);
    check(zip_set_file_compression(archive.get(), entry, ZIP_CM_DEFLATE, 0) == 0);
    constexpr zip_uint16_t kFirstOfJanuary1980 = 0x21;  // the format's earliest date, as in np.savez
    check(zip_file_set_dostime(archive.get(), entry, 0, kFirstOfJanuary1980, 0) == 0);
  }
  if (zip_close(archive.get()) != 0) check(false);
  static_cast<void>(archive.release());  // zip_close() freed it
}

}  // namespace

void write_npz(const std::filesystem::path& path, std::span<const NamedArray> arrays, bool compressed) {
  compressed ? write_deflated(path, arrays) : write_stored(path, arrays);
}

}  // namespace voca::data
