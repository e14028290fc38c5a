#include "engine/checkpoint/torch/pt_file.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <unordered_map>

#include "engine/archive/zip_archive.h"
#include "engine/base/atomic_file.h"
#include "engine/base/digest.h"
#include "engine/base/error.h"
#include "engine/base/file_kind.h"
#include "engine/base/text.h"
#include "engine/checkpoint/torch/pickle_reader.h"
#include "engine/checkpoint/torch/pickle_writer.h"
#include "engine/checkpoint/torch/pt_digests.h"

namespace voca::engine {
namespace {

constexpr std::uint64_t kPieceBytes = std::uint64_t{1} << 20;
// Not derived from the file's name, so that renaming a file changes none of its bytes.
constexpr std::string_view kArchive = "archive";

struct Inflated {
  std::once_flag once;
  std::vector<std::byte> bytes;
};

/// One record of an open archive. `entry` is one of `zip`.
std::shared_ptr<const Storage> record_storage(std::shared_ptr<const ZipReader> zip, const ZipEntry& entry,
                                              bool big_endian) {
  const auto inflated = std::make_shared<Inflated>();
  const auto read = [zip = std::move(zip), &entry, inflated](std::uint64_t offset, std::span<std::byte> out) {
    if (!entry.deflated) return zip->file().read(entry.data_offset + offset, out);
    std::call_once(inflated->once, [&] { inflated->bytes = zip->read(entry, entry.size); });
    if (!out.empty()) std::memcpy(out.data(), inflated->bytes.data() + offset, out.size());
  };
  return std::make_shared<const Storage>(entry.size, read, big_endian);
}

/// Throws when the file is not a zip, naming the format that it has instead.
void check_magic(const std::filesystem::path& path) {
  const FileReader file(path);
  const auto start = file.read(0, std::min<std::uint64_t>(file.size(), 4));
  if (start.size() == 4 && std::memcmp(start.data(), "PK\x03\x04", 4) == 0) return;
  if (const std::string other = mistaken_kind(path, FileKind::kTorch); !other.empty())
    throw DataError("{}: {}", path.string(), other);
  if (start.size() < 4) throw DataError("{}: has {} bytes; not a PyTorch .pt", path.string(), start.size());
  throw DataError("{}: not a PyTorch .pt (a zip archive was expected)", path.string());
}

/// Folder of the archive: torch.save puts all records into one.
std::string find_folder(const ZipReader& zip) {
  constexpr std::string_view kPickle = "/data.pkl";
  std::string folder;
  for (const ZipEntry& entry : zip.entries()) {
    if (!entry.name.ends_with(kPickle) || std::count(entry.name.begin(), entry.name.end(), '/') != 1)
      continue;
    if (!folder.empty()) throw DataError("{}: has two data.pkl; not a PyTorch .pt", zip.path().string());
    folder = entry.name.substr(0, entry.name.size() - kPickle.size() + 1);
  }
  if (folder.empty()) {
    const std::string other = mistaken_kind(zip.path(), FileKind::kTorch);
    throw DataError("{}: {}", zip.path().string(),
                    other.empty() ? "a zip archive without data.pkl; not a PyTorch .pt" : other);
  }
  if (zip.find(folder + "constants.pkl") != nullptr) {
    throw DataError("{}: a TorchScript program; save model.state_dict() with torch.save instead",
                    zip.path().string());
  }
  return folder;
}

bool is_big_endian(const ZipReader& zip, const std::string& folder) {
  const ZipEntry* entry = zip.find(folder + "byteorder");
  if (entry == nullptr) return false;
  const auto bytes = zip.read(*entry, 16);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text != "little" && text != "big")
    throw DataError("{}: record {} is neither little nor big", zip.path().string(), printable(entry->name));
  return text == "big";
}

StorageResolver make_resolver(std::shared_ptr<const ZipReader> zip, std::string folder, bool big_endian) {
  auto known = std::make_shared<std::unordered_map<std::string, std::shared_ptr<const Storage>>>();
  return [zip = std::move(zip), folder = std::move(folder), big_endian,
          known](const StorageReference& reference) {
    std::shared_ptr<const Storage>& storage = (*known)[reference.key];
    if (storage == nullptr) {
      const ZipEntry* entry = zip->find(folder + "data/" + reference.key);
      if (entry == nullptr)
        throw DataError("{}: storage {} has no record", zip->path().string(), printable(reference.key));
      storage = record_storage(zip, *entry, big_endian);
    }
    if (reference.elements > storage->size() / reference.element_size ||
        reference.elements * reference.element_size != storage->size()) {
      throw DataError("{}: storage {} has {} bytes where {} elements of {} bytes were declared",
                      zip->path().string(), printable(reference.key), storage->size(), reference.elements,
                      reference.element_size);
    }
    return storage;
  };
}

/// Passes the bytes of a storage to `visit` in pieces, as they will be written.
template <typename Visit>
void visit_storage(const Pickle::StorageUse& use, const Visit& visit) {
  std::vector<std::byte> buffer(std::min(kPieceBytes, use.storage->size()));
  for (std::uint64_t done = 0; done < use.storage->size(); done += buffer.size()) {
    const auto part =
        std::span(buffer).first(std::min<std::uint64_t>(buffer.size(), use.storage->size() - done));
    read_little_endian(*use.storage, size_of(use.dtype), done, part);
    visit(std::span<const std::byte>(part));
  }
}

class PtWriter {
 public:
  explicit PtWriter(ZipWriter::Sink sink) : zip_(std::move(sink)) {}

  void write(const Pickle& pickle) {
    add("data.pkl", pickle.bytes);
    add("byteorder", "little");
    for (std::size_t i = 0; i < pickle.storages.size(); ++i)
      add_storage(fmt::format("data/{}", i), pickle.storages[i]);
    add("version", "3\n");
    const std::string digests = make_digests(records_, zip_.crc32c());
    zip_.add(full_name(kDigestRecord), std::as_bytes(std::span(digests)));
    zip_.finish();
  }
  [[nodiscard]] const ZipWriter& zip() const { return zip_; }

 private:
  static std::string full_name(std::string_view name) { return fmt::format("{}/{}", kArchive, name); }

  void add(std::string_view name, std::string_view content) {
    const auto bytes = std::as_bytes(std::span(content));
    zip_.add(full_name(name), bytes);
    records_.push_back({full_name(name), bytes.size(), crc32c(bytes)});
  }

  void add_storage(const std::string& name, const Pickle::StorageUse& use) {
    std::uint32_t zip_crc = 0;
    visit_storage(use, [&](std::span<const std::byte> piece) { zip_crc = zip_crc32(piece, zip_crc); });
    std::uint32_t crc = 0;
    zip_.add(full_name(name), use.storage->size(), zip_crc, [&](const ZipWriter::Sink& sink) {
      visit_storage(use, [&](std::span<const std::byte> piece) {
        crc = crc32c(piece, crc);
        sink(piece);
      });
    });
    records_.push_back({full_name(name), use.storage->size(), crc});
  }

  ZipWriter zip_;
  std::vector<RecordDigest> records_;
};

}  // namespace

PtFile read_pt(const std::filesystem::path& path, Verify verify) {
  check_magic(path);
  const auto zip = std::make_shared<const ZipReader>(path);
  const std::string folder = find_folder(*zip);
  const ZipEntry* digests = zip->find(folder + std::string(kDigestRecord));
  if (verify == Verify::kEverything) {
    if (digests != nullptr) {
      verify_digests(*zip, *digests);
    } else {
      for (const ZipEntry& entry : zip->entries()) zip->verify(entry);
    }
  }
  PtFile result;
  result.has_digests = digests != nullptr;
  for (const ZipEntry& entry : zip->entries()) result.records.push_back({entry.name, entry.size});
  const PickleLimits limits;
  const auto pickle = zip->read(*zip->find(folder + "data.pkl"), limits.max_bytes);
  result.value =
      read_pickle(pickle, path.string(), make_resolver(zip, folder, is_big_endian(*zip, folder)), limits);
  return result;
}

void write_pt(const std::filesystem::path& path, const Value& value) {
  const Pickle pickle = write_pickle(value);
  AtomicFile file(path);
  PtWriter writer([&](std::span<const std::byte> bytes) { file.write(bytes); });
  writer.write(pickle);
  file.commit([&](const std::filesystem::path& temporary) {
    const FileReader written(temporary);
    if (written.size() != writer.zip().position() ||
        written.checksum(0, written.size()) != writer.zip().crc32c())
      throw IoError("{}: what was read back is not what was written; check the disk", path.string());
  });
}

}  // namespace voca::engine
