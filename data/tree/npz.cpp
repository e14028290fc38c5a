#include "data/tree/npz.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <isa-l/crc.h>
#include <isa-l/igzip_lib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zip.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "data/tree/zip_input.h"
#include "engine/base/file_kind.h"
#include "engine/base/path_status.h"
#include "engine/base/text.h"

namespace voca::data {
namespace {

/// Deflate encodes at most 258 bytes in two bits (zlib, "Maximum expansion factor").
constexpr std::uint64_t kMaxExpansion = 1032;
constexpr std::size_t kChunk = std::size_t{256} << 10;
/// Size of the first read of compressed bytes, enough for a header: isa-l inflates all its input, and for
/// most files only the header is read at first.
constexpr std::size_t kFirstChunk = 1024;

struct ArchiveCloser {
  void operator()(zip_t* archive) const { zip_discard(archive); }
};
struct FileCloser {
  void operator()(zip_file_t* file) const { zip_fclose(file); }
};
using Archive = std::unique_ptr<zip_t, ArchiveCloser>;
using File = std::unique_ptr<zip_file_t, FileCloser>;

[[noreturn]] void damaged(const std::string& where, std::string_view what) {
  throw ArrayError(ArrayFault::kDamaged, fmt::format("{}: {}", where, what));
}

struct Entry {
  zip_uint64_t index = 0;
  std::uint64_t size = 0;
  std::uint64_t compressed = 0;
  std::uint32_t crc = 0;
  bool deflated = false;
};

/// Throws for an error of libzip: ReadError if the system failed, else ArrayError with libzip's message.
[[noreturn]] void refuse(const ZipInput& input, zip_error_t* error, const std::string& where,
                         std::string_view action) {
  if (input.error_number() != 0) {
    throw ReadError(input.error_number(),
                    fmt::format("{}: {}: {}", where, action, std::strerror(input.error_number())));
  }
  if (zip_error_code_zip(error) == ZIP_ER_MEMORY) throw std::bad_alloc();
  damaged(where, fmt::format("{}: {}", action, zip_error_strerror(error)));
}

/// Sequential bytes of one entry. libzip locates them; isa-l inflates them and computes the CRC, several
/// times faster than zlib.
class EntryStream {
 public:
  EntryStream(zip_t* archive, const ZipInput& file, const Entry& entry, const std::string& where)
      : archive_file_(file), entry_(entry), where_(where), input_left_(entry.compressed) {
    file_.reset(zip_fopen_index(archive, entry.index, ZIP_FL_COMPRESSED));
    if (!file_) refuse(file, zip_get_error(archive), where, "cannot be opened");
    if (!entry.deflated) return;
    input_ = Buffer(std::min<std::uint64_t>(entry.compressed, kChunk));
    inflater_ = std::make_unique_for_overwrite<inflate_state>();
    isal_inflate_init(inflater_.get());
    inflater_->avail_in = 0;
  }

  /// Reads the next `out.size()` bytes.
  void read(std::span<std::byte> out) {
    while (!out.empty()) {
      const std::span<std::byte> chunk = out.first(std::min(out.size(), kChunk));
      if (entry_.deflated) {
        if (inflate(chunk) != chunk.size()) damaged(where_, "is shorter than it declares");
      } else {
        fill(chunk);
      }
      crc_ = crc32_gzip_refl(crc_, reinterpret_cast<const std::uint8_t*>(chunk.data()), chunk.size());
      out = out.subspan(chunk.size());
    }
  }

  /// Checks after the last byte that the entry ends and that its CRC-32 matches.
  void finish() {
    std::array<std::byte, 1> beyond{};
    if (entry_.deflated && inflate(beyond) != 0) damaged(where_, "is longer than it declares");
    if (crc_ != entry_.crc) {
      throw ArrayError(ArrayFault::kChecksum,
                       fmt::format("{}: CRC error: its bytes sum to {:08x}, {:08x} was written", where_, crc_,
                                   entry_.crc));
    }
  }

 private:
  /// Reads raw bytes of the archive.
  void fill(std::span<std::byte> out) {
    while (!out.empty()) {
      const zip_int64_t count = zip_fread(file_.get(), out.data(), out.size());
      if (count < 0) refuse(archive_file_, zip_file_get_error(file_.get()), where_, "cannot be read");
      if (count == 0) damaged(where_, "is truncated");
      out = out.subspan(static_cast<std::size_t>(count));
    }
  }

  /// Inflates until `out` is full or the stream ends; returns the number of bytes written.
  std::size_t inflate(std::span<std::byte> out) {
    inflate_state& state = *inflater_;
    state.next_out = reinterpret_cast<std::uint8_t*>(out.data());
    state.avail_out = static_cast<std::uint32_t>(out.size());
    while (state.avail_out > 0 && state.block_state != ISAL_BLOCK_FINISH) {
      const bool buffered = state.tmp_out_processed < state.tmp_out_valid;  // inflated but not returned yet
      const bool starved = state.avail_in == 0 && !buffered;
      if (starved && input_left_ > 0) {
        const auto count = std::min<std::uint64_t>(
            {input_left_, input_.size, input_left_ == entry_.compressed ? kFirstChunk : kChunk});
        fill(input_.span().first(count));
        input_left_ -= count;
        state.next_in = reinterpret_cast<std::uint8_t*>(input_.data());
        state.avail_in = static_cast<std::uint32_t>(count);
      }
      const std::uint32_t before = state.avail_out;
      if (isal_inflate(&state) != ISAL_DECOMP_OK) damaged(where_, "its compressed bytes are damaged");
      // Without input left and without output produced, the stream ends before its last block.
      if (starved && state.avail_in == 0 && input_left_ == 0 && state.avail_out == before &&
          state.block_state != ISAL_BLOCK_FINISH)
        damaged(where_, "its compressed bytes end too early");
    }
    return out.size() - state.avail_out;
  }

  const ZipInput& archive_file_;
  const Entry& entry_;
  const std::string& where_;
  File file_;
  Buffer input_;
  std::uint64_t input_left_ = 0;
  std::unique_ptr<inflate_state> inflater_;
  std::uint32_t crc_ = 0;
};

[[noreturn]] void unreadable(const std::string& path, int error_number) {
  const std::string message = fmt::format("{}: cannot open: {}", path, std::strerror(error_number));
  if (!engine::says_absent(error_number) && error_number != ELOOP) throw ReadError(error_number, message);
  throw ArrayError(ArrayFault::kUnreadable, message);
}

/// Opens regular files only: others might block forever.
int open_regular(const std::string& path, std::uint64_t& size) {
  const int descriptor =
      engine::uninterrupted([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); });
  struct stat status {};
  if (descriptor < 0 || ::fstat(descriptor, &status) != 0) {
    const int error_number = errno;
    if (descriptor >= 0) ::close(descriptor);
    unreadable(path, error_number);
  }
  if (!S_ISREG(status.st_mode)) {
    ::close(descriptor);
    throw ArrayError(ArrayFault::kUnreadable, fmt::format("{}: is not a regular file", path));
  }
  size = static_cast<std::uint64_t>(status.st_size);
  return descriptor;
}

}  // namespace

struct NpzReader::State {
  std::string path;
  std::uint64_t file_bytes = 0;
  std::unique_ptr<ZipInput> input;  // must outlive the archive
  Archive archive;
  std::vector<std::string> twice;  // names that occur more than once

  [[nodiscard]] std::string where(const std::string& key) const { return fmt::format("{}: {}", path, key); }

  /// Names of the archive's entries, in order.
  [[nodiscard]] std::vector<std::string> entries() const {
    std::vector<std::string> names;
    const zip_int64_t count = zip_get_num_entries(archive.get(), 0);
    for (zip_int64_t i = 0; i < count; ++i) {
      const char* const name = zip_get_name(archive.get(), static_cast<zip_uint64_t>(i), ZIP_FL_ENC_RAW);
      if (name != nullptr) names.emplace_back(name);
    }
    return names;
  }

  /// Message that an array is missing, with the names that are present.
  [[nodiscard]] std::string missing(const std::string& key) const {
    constexpr std::size_t kNamed = 5;
    std::vector<std::string> names = entries();
    const std::size_t count = names.size();
    names.resize(std::min(count, kNamed));
    for (std::string& name : names) name = engine::printable(name);
    return fmt::format("has no array '{}' (found {}{})", key,
                       names.empty() ? "an empty archive" : fmt::format("{}", fmt::join(names, ", ")),
                       count > kNamed ? ", …" : "");
  }

  [[nodiscard]] Entry find(const std::string& key) const {
    const std::string name = key + ".npy";
    const zip_int64_t index = zip_name_locate(archive.get(), name.c_str(), 0);
    if (index < 0) throw ArrayError(ArrayFault::kMissing, fmt::format("{}: {}", path, missing(key)));
    // Readers differ in which of the duplicates they use, so neither can be accepted.
    if (std::count(twice.begin(), twice.end(), name) > 0)
      damaged(where(key), "is in the archive more than once; write the file again");
    zip_stat_t stat;
    constexpr zip_uint64_t kNeeded = ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_COMP_METHOD | ZIP_STAT_CRC;
    if (zip_stat_index(archive.get(), static_cast<zip_uint64_t>(index), 0, &stat) != 0 ||
        (stat.valid & kNeeded) != kNeeded)
      damaged(where(key), "the archive's directory does not describe it");
    if ((stat.valid & ZIP_STAT_ENCRYPTION_METHOD) != 0 && stat.encryption_method != ZIP_EM_NONE)
      damaged(where(key), "is encrypted");
    if (stat.comp_method != ZIP_CM_STORE && stat.comp_method != ZIP_CM_DEFLATE) {
      damaged(where(key), fmt::format("is compressed by method {}; stored and deflated entries are read",
                                      stat.comp_method));
    }
    const Entry entry{static_cast<zip_uint64_t>(index), stat.size, stat.comp_size, stat.crc,
                      stat.comp_method == ZIP_CM_DEFLATE};
    check(entry, key);
    return entry;
  }

  /// Checks that an entry's declared sizes are possible, before anything is allocated for them.
  void check(const Entry& entry, const std::string& key) const {
    if (entry.compressed > file_bytes)
      damaged(where(key), fmt::format("declares {} bytes in a file of {}", entry.compressed, file_bytes));
    const std::uint64_t most = entry.deflated ? entry.compressed * kMaxExpansion + 64 : entry.compressed;
    if (entry.size > most || (!entry.deflated && entry.size != entry.compressed)) {
      damaged(where(key), fmt::format("declares {} bytes, which {} bytes in the archive cannot hold",
                                      entry.size, entry.compressed));
    }
  }
};

namespace {

/// Throws for a fault of the archive as a whole.
[[noreturn]] void refuse_archive(const std::string& path, const ZipInput& input, zip_error_t* error) {
  if (input.error_number() == 0) {
    if (const std::string other = engine::mistaken_kind(path, engine::FileKind::kNpz); !other.empty())
      damaged(path, other);
    if (zip_error_code_zip(error) == ZIP_ER_NOZIP) damaged(path, "is not a zip archive, or a truncated one");
  }
  refuse(input, error, path, "cannot be read as a zip archive");
}

}  // namespace

NpzReader::NpzReader(const std::filesystem::path& path) : state_(std::make_unique<State>()) {
  state_->path = path.string();
  const int descriptor = open_regular(state_->path, state_->file_bytes);
  state_->input = std::make_unique<ZipInput>(descriptor, state_->file_bytes);
  zip_error_t error;
  zip_error_init(&error);
  // libzip accepts an empty file as an archive without entries.
  if (state_->file_bytes > 0) state_->archive.reset(state_->input->open_archive(&error));
  if (!state_->archive) {
    const std::unique_ptr<zip_error_t, void (*)(zip_error_t*)> freed(&error, zip_error_fini);
    refuse_archive(state_->path, *state_->input, &error);
  }
  std::vector<std::string> names = state_->entries();
  std::sort(names.begin(), names.end());
  for (auto at = names.begin(); (at = std::adjacent_find(at, names.end())) != names.end(); ++at) {
    if (state_->twice.empty() || state_->twice.back() != *at) state_->twice.push_back(*at);
  }
}

NpzReader::~NpzReader() = default;

bool NpzReader::has(const std::string& key) const {
  return zip_name_locate(state_->archive.get(), (key + ".npy").c_str(), 0) >= 0;
}

namespace {

NpyHeader read_header(EntryStream& stream, const Entry& entry, const std::string& where) {
  std::vector<std::byte> bytes(12);
  if (entry.size < bytes.size()) damaged(where, "is too short for a NumPy array");
  stream.read(bytes);
  const std::size_t length = npy_header_bytes(bytes, where);
  if (length < bytes.size() || length > entry.size) damaged(where, "its header is longer than the array");
  const std::size_t have = bytes.size();
  bytes.resize(length);
  stream.read(std::span(bytes).subspan(have));
  NpyHeader header = parse_npy_header(bytes, where);
  if (header.data_bytes() != entry.size - length) {
    throw ArrayError(ArrayFault::kShape, fmt::format("{}: its shape needs {} bytes, {} are there", where,
                                                     header.data_bytes(), entry.size - length));
  }
  return header;
}

}  // namespace

std::vector<std::string> NpzReader::keys() const {
  std::vector<std::string> keys = state_->entries();
  std::erase_if(keys, [](const std::string& name) { return !name.ends_with(".npy"); });
  for (std::string& key : keys) key.resize(key.size() - std::string_view(".npy").size());
  return keys;
}

NpyHeader NpzReader::header(const std::string& key) const {
  const Entry entry = state_->find(key);
  const std::string where = state_->where(key);
  EntryStream stream(state_->archive.get(), *state_->input, entry, where);
  return read_header(stream, entry, where);
}

Array NpzReader::read(const std::string& key) const {
  const Entry entry = state_->find(key);
  const std::string where = state_->where(key);
  EntryStream stream(state_->archive.get(), *state_->input, entry, where);
  const NpyHeader header = read_header(stream, entry, where);
  Buffer data(header.data_bytes());
  stream.read(data.span());
  stream.finish();
  return make_array(header, std::move(data));
}

void write_npz(const std::filesystem::path& path, std::span<const NamedArray> arrays, bool compressed) {
  int error = 0;
  Archive archive(zip_open(path.c_str(), ZIP_CREATE | ZIP_TRUNCATE, &error));
  if (!archive) throw engine::IoError("{}: cannot create: {}", path.string(), std::strerror(errno));
  const auto check = [&](bool good) {
    if (!good) throw engine::IoError("{}: cannot write: {}", path.string(), zip_strerror(archive.get()));
  };
  std::vector<Buffer> contents;  // must stay valid until zip_close() reads them
  for (const NamedArray& array : arrays) {
    const std::string header = npy_header_text(array.dtype, array.shape);
    Buffer& content = contents.emplace_back(header.size() + array.bytes.size());
    std::memcpy(content.data(), header.data(), header.size());
    if (!array.bytes.empty())
      std::memcpy(content.data() + header.size(), array.bytes.data(), array.bytes.size());
    zip_source_t* const source = zip_source_buffer(archive.get(), content.data(), content.size, 0);
    check(source != nullptr);
    const zip_int64_t index =
        zip_file_add(archive.get(), (array.name + ".npy").c_str(), source, ZIP_FL_ENC_UTF_8);
    if (index < 0) zip_source_free(source);
    check(index >= 0);
    const auto entry = static_cast<zip_uint64_t>(index);
    check(zip_set_file_compression(archive.get(), entry, compressed ? ZIP_CM_DEFLATE : ZIP_CM_STORE, 0) == 0);
    constexpr zip_uint16_t kFirstOfJanuary1980 = 0x21;  // the format's earliest date, as in np.savez
    check(zip_file_set_dostime(archive.get(), entry, 0, kFirstOfJanuary1980, 0) == 0);
  }
  if (zip_close(archive.get()) != 0) check(false);
  static_cast<void>(archive.release());  // zip_close() freed it
}

}  // namespace voca::data
