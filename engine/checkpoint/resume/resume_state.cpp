#include "engine/checkpoint/resume/resume_state.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "engine/base/atomic_file.h"
#include "engine/base/error.h"
#include "engine/base/file_kind.h"
#include "engine/base/json.h"
#include "engine/base/path_status.h"
#include "engine/base/text.h"
#include "engine/checkpoint/resume/earlier_state.h"

namespace voca::engine {
namespace {

constexpr std::string_view kPrefix = "state-";
constexpr std::string_view kSuffix = ".resume";
constexpr std::size_t kDigits = 10;
constexpr std::string_view kLock = ".lock";

using Json = nlohmann::ordered_json;

std::string file_name(std::uint64_t sequence) {
  return fmt::format("{}{:0{}}{}", kPrefix, sequence, kDigits, kSuffix);
}

/// Sequence number in a state's file name.
std::optional<std::uint64_t> sequence_of(const std::string& name) {
  if (name.size() != kPrefix.size() + kDigits + kSuffix.size() || !name.starts_with(kPrefix) ||
      !name.ends_with(kSuffix))
    return std::nullopt;
  return number_in<std::uint64_t>(std::string_view(name).substr(kPrefix.size(), kDigits));
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
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) throw_errno(path, "remove");
}

}  // namespace

void ResumeState::copy_tensor(const std::string& name, DType dtype, std::span<std::byte> out) const {
  const auto named = std::find_if(tensors.begin(), tensors.end(),
                                  [&](const NamedTensor& candidate) { return candidate.name == name; });
  if (named == tensors.end()) throw DataError("{}: has no tensor {}", path.string(), name);
  const TensorValue& tensor = named->tensor;
  if (tensor.dtype != dtype || tensor.storage->size() != out.size()) {
    throw DataError("{}: tensor {} holds {} bytes of {}, where {} bytes of {} were expected", path.string(),
                    name, tensor.storage->size(), name_of(tensor.dtype), out.size(), name_of(dtype));
  }
  tensor.storage->read(0, out);
}

ResumeState read_resume_state(const std::filesystem::path& path) {
  if (auto state = read_earlier_state(path)) return std::move(*state);
  const FileKind kind = file_kind(path);
  const std::string other = mistaken_kind(path, FileKind::kResumeState);
  if (!other.empty() && kind != FileKind::kSafetensors) throw DataError("{}: {}", path.string(), other);
  SafetensorsFile file = read_safetensors(path);
  const auto header = file.metadata.find(std::string(kResumeStateKey));
  if (header == file.metadata.end() || !file.has_digest)
    throw DataError("{}: {}", path.string(), other.empty() ? "not a resume state of voca-engine" : other);
  return {.path = path,
          .header = parse_json(header->second, path.string() + ": damaged: its header"),
          .tensors = std::move(file.tensors)};
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
  lock_.reset(::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
  if (!lock_) throw_errno(lock, "open");
  if (::flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    const int error_number = errno;
    if (error_number == EWOULDBLOCK) {
      throw UsageError("{}: another process is training into this folder; give another --run_dir or stop it",
                       folder_.string());
    }
    // Some network file systems do not support locks.
    spdlog::warn("{}: cannot be locked ({}): nothing keeps a second process from training into this folder",
                 folder_.string(), std::strerror(error_number));
  }
  remove_temporaries();
  const auto sequences = sequences_in(folder_);
  if (!sequences.empty()) next_sequence_ = sequences.front() + 1;
}

void ResumeStore::remove_temporaries() const {
  constexpr std::size_t kMarks = 2 + 6;  // ".", name, ".", six characters
  for (const std::string& name : names_in(folder_)) {
    if (!name.starts_with(".") || name.size() <= kMarks) continue;
    const std::string original = name.substr(1, name.size() - kMarks);
    if (sequence_of(original) || original == kStatePointer) remove_stale_temporaries(folder_ / original);
  }
}

std::filesystem::path ResumeStore::save(const Json& header, std::span<const NamedTensor> tensors) {
  const std::uint64_t sequence = next_sequence_;
  std::filesystem::path path = folder_ / file_name(sequence);
  write_safetensors(path, tensors, {{std::string(kResumeStateKey), json_text(header)}});
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
