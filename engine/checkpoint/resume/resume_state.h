#pragma once

// Resume states in a run folder's checkpoints/, from which training continues exactly. A state is a
// safetensors file: its tensors are what is saved, its metadata holds the header as JSON and the digest over
// every byte.

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/base/unique_fd.h"
#include "engine/checkpoint/safetensors/safetensors.h"

namespace voca::engine {

/// File in a folder of states that names the newest one.
inline constexpr const char* kStatePointer = "latest.json";

/// A state whose every byte has been verified. Tensor data is read only when copied out; the file stays open
/// as long as one of its tensors exists.
struct ResumeState {
  std::filesystem::path path;
  nlohmann::ordered_json header;  ///< as passed to save()
  std::vector<NamedTensor> tensors;
  bool earlier_form = false;  ///< written by a version whose states were not safetensors files

  /// Overwrites `out` with the elements of the named tensor. Throws DataError naming file and tensor when it
  /// is missing or has another type or size; IoError when the file cannot be read.
  void copy_tensor(const std::string& name, DType dtype, std::span<std::byte> out) const;
};

/// Reads and verifies one state file, also of the earlier form. Throws IoError, DataError.
[[nodiscard]] ResumeState read_resume_state(const std::filesystem::path& file);

struct FoundResumeState {
  std::optional<ResumeState> state;   ///< empty if there is nothing to resume from
  std::vector<std::string> messages;  ///< one line per skipped file, with the reason
};

/// Newest state in `folder` that verifies; newer damaged ones are skipped with a message each. Read-only, and
/// safe while another process saves. A missing folder has no state. Throws DataError when there are states
/// and none verifies; IoError when one cannot be read, since it may be good.
[[nodiscard]] FoundResumeState find_resume_state(const std::filesystem::path& folder);

/// Whether the folder has a file named like a state, good or damaged; false if there is no such folder.
/// Throws IoError when the folder cannot be read.
[[nodiscard]] bool has_resume_states(const std::filesystem::path& folder);

/// Writer of a run's states; locks the folder against other processes.
class ResumeStore {
 public:
  /// Creates the folder if it is missing and removes temporary files of killed processes. save() keeps the
  /// newest `keep` (≥ 1) states. Throws IoError, or UsageError when another process holds the lock.
  explicit ResumeStore(std::filesystem::path folder, int keep = 2);

  /// Saves a state: writes a temporary file, syncs it, reads it back to verify it, renames it, syncs the
  /// folder, writes the pointer file `latest.json`, and removes states beyond `keep`. Returns the state's
  /// path. Throws IoError naming the path on any failure, in which case earlier states are untouched.
  std::filesystem::path save(const nlohmann::ordered_json& header, std::span<const NamedTensor> tensors);

  /// find_resume_state() for this folder; save() removes the damaged states found here first.
  [[nodiscard]] FoundResumeState load();

  /// Removes every state and the pointer file; other files in the folder are not touched.
  void clear();

  [[nodiscard]] const std::filesystem::path& folder() const { return folder_; }

 private:
  void remove_temporaries() const;
  void prune(std::uint64_t newest);

  std::filesystem::path folder_;
  int keep_;
  UniqueFd lock_;
  std::uint64_t next_sequence_ = 1;
  std::vector<std::filesystem::path> damaged_;
};

}  // namespace voca::engine
