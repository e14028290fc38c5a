#include "engine/checkpoint/resume/resume_state.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "engine/base/atomic_file.h"
#include "engine/base/digest.h"
#include "engine/base/error.h"
#include "engine/base/file_kind.h"
#include "engine/base/json.h"
#include "engine/base/path_status.h"
#include "engine/base/text.h"
#include "engine/checkpoint/file_reader.h"
#include "engine/checkpoint/torch/value.h"

namespace voca::engine {
namespace {

// Format of state-<sequence>.resume:
//   0   8  "VOCARES" and the format version, one byte
//   8   8  size of the header in bytes, uint64
//   16  4  CRC-32C of the first 16 bytes and the header
//   20     header: JSON {"user": …, "sections": [{name, dtype, offset, bytes, crc32c}, …]}
// The sections follow on 64-byte boundaries, with zeros between them and nothing after the last.
constexpr std::array<char, 8> kMagic = {'V', 'O', 'C', 'A', 'R', 'E', 'S', 1};
constexpr std::uint64_t kPrefixBytes = 20;
constexpr std::uint64_t kMaxHeaderBytes = std::uint64_t{64} << 20;
constexpr std::uint64_t kAlignment = 64;
constexpr std::string_view kPrefix = "state-";
constexpr std::string_view kSuffix = ".resume";
constexpr std::size_t kDigits = 10;
constexpr std::string_view kLock = ".lock";

using Json = nlohmann::ordered_json;

std::uint64_t align(std::uint64_t offset) {
  return (offset + kAlignment - 1) / kAlignment * kAlignment;
}

std::string file_name(std::uint64_t sequence) {
  return fmt::format("{}{:0{}}{}", kPrefix, sequence, kDigits, kSuffix);
}

/// Sequence number in a state's file name.
std::optional<std::uint64_t> sequence_of(const std::string& name) {
  if (name.size() != kPrefix.size() + kDigits + kSuffix.size() || !name.starts_with(kPrefix) ||
      !name.ends_with(kSuffix))
    return std::nullopt;
  std::uint64_t sequence = 0;
  for (const char c : name.substr(kPrefix.size(), kDigits)) {
    if (c < '0' || c > '9') return std::nullopt;
    sequence = sequence * 10 + static_cast<std::uint64_t>(c - '0');
  }
  return sequence;
}

/// Names of the folder's files; empty if there is no such folder.
std::vector<std::string> names_in(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error))
    names.push_back(entry->path().filename().string());
  if (error && error != std::errc::no_such_file_or_directory && error != std::errc::not_a_directory)
    throw IoError("{}: cannot read the folder: {}", folder.string(), error.message());
  return names;
}

/// Sequence numbers of the folder's states, newest first.
std::vector<std::uint64_t> sequences_in(const std::filesystem::path& folder) {
  std::vector<std::uint64_t> sequences;
  for (const std::string& name : names_in(folder))
    if (const auto sequence = sequence_of(name)) sequences.push_back(*sequence);
  std::sort(sequences.rbegin(), sequences.rend());
  return sequences;
}

struct Layout {
  std::string start;                   // everything before the first section
  std::vector<std::uint64_t> offsets;  // file offsets of the sections
};

/// Section offsets in the header are relative to the first section, because the header's length depends on
/// them.
Layout lay_out(const Json& user, std::span<const ResumeSection> sections) {
  Layout layout;
  Json header;
  header["user"] = user;
  header["sections"] = Json::array();
  std::uint64_t offset = 0;
  for (const ResumeSection& section : sections) {
    VOCA_CHECK(section.bytes.size() % size_of(section.dtype) == 0);
    header["sections"].push_back({{"name", section.name},
                                  {"dtype", static_cast<int>(section.dtype)},
                                  {"offset", offset},
                                  {"bytes", section.bytes.size()},
                                  {"crc32c", crc32c(section.bytes)}});
    layout.offsets.push_back(offset);
    offset = align(offset + section.bytes.size());
  }
  const std::string text = json_text(header);
  const std::uint64_t length = text.size();
  layout.start.assign(kMagic.begin(), kMagic.end());
  layout.start.append(reinterpret_cast<const char*>(&length), sizeof(length));
  const std::uint32_t crc =
      crc32c(std::as_bytes(std::span(text)), crc32c(std::as_bytes(std::span(layout.start))));
  layout.start.append(reinterpret_cast<const char*>(&crc), sizeof(crc));
  layout.start += text;
  const std::uint64_t first = align(layout.start.size());
  for (std::uint64_t& place : layout.offsets) place += first;
  return layout;
}

[[noreturn]] void damaged(const FileReader& file, std::string_view what) {
  throw DataError("{}: damaged: {}", file.path().string(), what);
}

void check_zeros(const FileReader& file, std::uint64_t begin, std::uint64_t end) {
  const auto gap = file.read(begin, end - begin);
  if (std::any_of(gap.begin(), gap.end(), [](std::byte byte) { return byte != std::byte{0}; }))
    damaged(file, "bytes between its sections");
}

Json read_header(const FileReader& file, std::uint64_t& end) {
  if (file.size() < kPrefixBytes) damaged(file, "too short");
  std::string start(kPrefixBytes, '\0');
  file.read(0, std::as_writable_bytes(std::span(start)));
  if (std::memcmp(start.data(), kMagic.data(), kMagic.size() - 1) != 0) {
    const std::string other = mistaken_kind(file.path(), FileKind::kResumeState);
    throw DataError("{}: {}", file.path().string(),
                    other.empty() ? "not a resume state of voca-engine" : other);
  }
  if (start[kMagic.size() - 1] != kMagic.back()) {
    throw DataError("{}: resume state of format {}; this program reads {}", file.path().string(),
                    static_cast<int>(start[kMagic.size() - 1]), static_cast<int>(kMagic.back()));
  }
  std::uint64_t length = 0;
  std::uint32_t expected = 0;
  std::memcpy(&length, start.data() + kMagic.size(), sizeof(length));
  std::memcpy(&expected, start.data() + kMagic.size() + sizeof(length), sizeof(expected));
  if (length > kMaxHeaderBytes || length > file.size() - kPrefixBytes) damaged(file, "its header's length");
  const auto text = file.read(kPrefixBytes, length);
  const std::uint32_t found =
      crc32c(text, crc32c(std::as_bytes(std::span(start).first(kPrefixBytes - sizeof(expected)))));
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

ResumeState read_state(const FileReader& file) {
  ResumeState state;
  state.path = file.path();
  std::uint64_t end = 0;
  Json header = read_header(file, end);
  const std::uint64_t first = align(end);
  for (const Json& entry : header.at("sections")) {
    ResumeState::Section section;
    section.name = entry.at("name").get<std::string>();
    const std::uint64_t dtype = number_of(entry, "dtype", file);
    if (dtype > static_cast<std::uint64_t>(DType::kBool)) damaged(file, "a section's type");
    section.dtype = static_cast<DType>(dtype);
    const std::uint64_t bytes = number_of(entry, "bytes", file);
    const std::uint64_t offset = number_of(entry, "offset", file);
    if (offset != align(end) - first) damaged(file, "a section's place");
    if (align(end) > file.size() || bytes > file.size() - align(end))
      damaged(file, fmt::format("section {} is cut short", printable(section.name)));
    check_zeros(file, end, align(end));
    section.bytes = file.read(align(end), bytes);
    if (crc32c(section.bytes) != number_of(entry, "crc32c", file))
      damaged(file, fmt::format("section {}", printable(section.name)));
    end = align(end) + bytes;
    state.sections.push_back(std::move(section));
  }
  if (end != file.size()) damaged(file, "bytes behind its last section");
  state.header = std::move(header.at("user"));
  return state;
}

/// Newest state that verifies, with a message for each newer one that does not.
FoundResumeState newest_of(const std::filesystem::path& folder, const std::vector<std::uint64_t>& sequences) {
  FoundResumeState found;
  for (const std::uint64_t sequence : sequences) {
    const std::filesystem::path path = folder / file_name(sequence);
    try {
      found.state = read_resume_state(path);
      break;
    } catch (const DataError& error) {
      found.messages.emplace_back(error.what());
    } catch (const IoError& error) {
      // A save may have removed the state since it was listed. Any other I/O error says nothing about the
      // state, and falling back from a good one would lose progress.
      if (is_there(path)) throw;
      found.messages.emplace_back(error.what());
    }
  }
  if (found.state)
    for (std::string& message : found.messages) message += "; falling back to the state before it";
  return found;
}

/// Sequence number in the pointer file; empty if the file is damaged.
std::optional<std::uint64_t> read_pointer(const std::filesystem::path& pointer) {
  try {
    const Json json = parse_json(read_text_file(pointer, 4096), pointer.string());
    return sequence_of(json.at("state").get<std::string>());
  } catch (const DataError&) {
    return std::nullopt;
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  }
}

/// The pointer is written last, so one that names a state newer than all present means that this state was
/// removed or renamed.
void check_pointer(const std::filesystem::path& folder, const std::vector<std::uint64_t>& sequences,
                   FoundResumeState& found) {
  const std::filesystem::path pointer = folder / kStatePointer;
  if (!is_there(pointer)) return;
  const auto named = read_pointer(pointer);
  if (!named) {
    found.messages.push_back(fmt::format("{}: damaged; ignored", pointer.string()));
  } else if (sequences.empty() || *named > sequences.front()) {
    found.messages.push_back(fmt::format(
        "{}: missing, though {} names it; {}", (folder / file_name(*named)).string(), pointer.string(),
        sequences.empty() ? "there is no state before it" : "falling back to the state before it"));
  }
}

void remove_file(const std::filesystem::path& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT)
    throw IoError("{}: cannot remove: {}", path.string(), std::strerror(errno));
}

}  // namespace

void ResumeState::copy_section(const std::string& name, DType dtype, std::span<std::byte> out) const {
  const auto section = std::find_if(sections.begin(), sections.end(),
                                    [&](const Section& candidate) { return candidate.name == name; });
  if (section == sections.end()) throw DataError("{}: has no section {}", path.string(), name);
  if (section->dtype != dtype || section->bytes.size() != out.size()) {
    throw DataError("{}: section {} holds {} bytes of {}, where {} bytes of {} were expected", path.string(),
                    name, section->bytes.size(), name_of(section->dtype), out.size(), name_of(dtype));
  }
  if (!out.empty()) std::memcpy(out.data(), section->bytes.data(), out.size());
}

ResumeState read_resume_state(const std::filesystem::path& path) {
  const FileReader file(path);
  try {
    return read_state(file);
  } catch (const nlohmann::json::exception&) {
    damaged(file, "its header");
  }
}

FoundResumeState find_resume_state(const std::filesystem::path& folder) {
  auto sequences = sequences_in(folder);
  for (;;) {
    FoundResumeState found = newest_of(folder, sequences);
    check_pointer(folder, sequences, found);
    // A concurrent save removes listed states, so problems are reported only if the list has not changed.
    auto listed_now = sequences_in(folder);
    if ((found.state && found.messages.empty()) || listed_now == sequences) {
      if (!found.state && !sequences.empty()) {
        throw DataError("{}: none of its {} states can be read; the newest: {}", folder.string(),
                        sequences.size(), found.messages.front());
      }
      return found;
    }
    sequences = std::move(listed_now);
  }
}

bool has_resume_states(const std::filesystem::path& folder) {
  return is_folder(folder) && !sequences_in(folder).empty();
}

ResumeStore::ResumeStore(std::filesystem::path folder, int keep) : folder_(std::move(folder)), keep_(keep) {
  VOCA_CHECK(keep >= 1);
  make_folders(folder_);
  const std::filesystem::path lock = folder_ / kLock;
  lock_ = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (lock_ < 0) throw IoError("{}: cannot open: {}", lock.string(), std::strerror(errno));
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    const int error_number = errno;
    if (error_number == EWOULDBLOCK) {
      ::close(lock_);
      throw UsageError("{}: another process is training into this folder; give another --run_dir or stop it",
                       folder_.string());
    }
    // Some network file systems do not support locks.
    spdlog::warn("{}: cannot be locked ({}): nothing keeps a second process from training into this folder",
                 folder_.string(), std::strerror(error_number));
  }
  try {
    remove_temporaries();
    const auto sequences = sequences_in(folder_);
    if (!sequences.empty()) next_sequence_ = sequences.front() + 1;
  } catch (...) {
    ::close(lock_);
    throw;
  }
}

ResumeStore::~ResumeStore() {
  ::close(lock_);
}

void ResumeStore::remove_temporaries() const {
  constexpr std::size_t kMarks = 2 + 6;  // ".", name, ".", six characters
  for (const std::string& name : names_in(folder_)) {
    if (!name.starts_with(".") || name.size() <= kMarks) continue;
    const std::string original = name.substr(1, name.size() - kMarks);
    if (sequence_of(original) || original == kStatePointer) remove_stale_temporaries(folder_ / original);
  }
}

std::filesystem::path ResumeStore::save(const Json& header, std::span<const ResumeSection> sections) {
  const Layout layout = lay_out(header, sections);
  const std::uint64_t sequence = next_sequence_;
  std::filesystem::path path = folder_ / file_name(sequence);
  AtomicFile file(path);
  std::uint64_t position = 0;
  std::uint32_t crc = 0;
  const auto write = [&](std::span<const std::byte> bytes) {
    file.write(bytes);
    crc = crc32c(bytes, crc);
    position += bytes.size();
  };
  write(std::as_bytes(std::span(layout.start)));
  constexpr std::array<std::byte, kAlignment> kZeros{};
  for (std::size_t i = 0; i < sections.size(); ++i) {
    write(std::span(kZeros).first(layout.offsets[i] - position));
    write(sections[i].bytes);
  }
  file.commit([&](const std::filesystem::path& temporary) {
    const FileReader written(temporary);
    if (written.size() != position || written.checksums(0, position).crc32c != crc)
      throw IoError("{}: what was read back is not what was written; check the disk", path.string());
  });
  next_sequence_ = sequence + 1;
  write_file_atomically(folder_ / kStatePointer, json_text(Json{{"state", file_name(sequence)}}) + "\n");
  prune(sequence);
  return path;
}

void ResumeStore::clear() {
  remove_file(folder_ / kStatePointer);
  for (const std::uint64_t sequence : sequences_in(folder_)) remove_file(folder_ / file_name(sequence));
  damaged_.clear();
  next_sequence_ = 1;
}

void ResumeStore::prune(std::uint64_t newest) {
  for (const auto& path : damaged_) remove_file(path);
  damaged_.clear();
  int kept = 0;
  for (const std::uint64_t sequence : sequences_in(folder_))
    if (sequence <= newest && ++kept > keep_) remove_file(folder_ / file_name(sequence));
}

FoundResumeState ResumeStore::load() {
  FoundResumeState found = find_resume_state(folder_);
  if (!found.state) return found;
  const auto good = sequence_of(found.state->path.filename().string()).value_or(0);
  for (const std::uint64_t sequence : sequences_in(folder_))
    if (sequence > good) damaged_.push_back(folder_ / file_name(sequence));
  return found;
}

}  // namespace voca::engine
