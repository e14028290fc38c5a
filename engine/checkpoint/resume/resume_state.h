#pragma once

// The states of a run folder's checkpoints/ from which a training continues exactly.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/core/dtype.h"

namespace voca::engine {

/// The file in a folder of states that names the newest.
inline constexpr const char* kStatePointer = "latest.json";

/// A named run of elements to save: little-endian, as in memory.
struct ResumeSection {
  std::string name;
  DType dtype = DType::kF32;
  std::span<const std::byte> bytes;  ///< lives until save() returns
};

/// A state as read back.
struct ResumeState {
  std::filesystem::path path;
  nlohmann::ordered_json header;  ///< what save() was given
  struct Section {
    std::string name;
    DType dtype = DType::kF32;
    std::vector<std::byte> bytes;
  };
  std::vector<Section> sections;

  /// Copies the section of that name into `out`; throws DataError naming file and section when it is missing
  /// or has another type or size.
  void copy_section(const std::string& name, DType dtype, std::span<std::byte> out) const;
};

/// Reads and verifies one state file: every byte is covered by a digest. Throws IoError, DataError.
[[nodiscard]] ResumeState read_resume_state(const std::filesystem::path& file);

struct FoundResumeState {
  std::optional<ResumeState> state;   ///< none: there is nothing to continue from
  std::vector<std::string> messages;  ///< one line for each file passed over, and why
};

/// The newest state in `folder` that verifies. Damaged newer ones are passed over with a message each.
/// Changes nothing; other processes may call it while one saves. A folder that does not exist has no state.
/// Throws DataError when there are states and none verifies; IoError when one cannot be read: it may be good.
[[nodiscard]] FoundResumeState find_resume_state(const std::filesystem::path& folder);

/// Whether the folder has a file named as a state, good or damaged. False where there is no such folder.
/// Throws IoError when it cannot be looked into.
[[nodiscard]] bool has_resume_states(const std::filesystem::path& folder);

/// The writer of a run's states; one process a folder holds it.
class ResumeStore {
 public:
  /// Creates the folder where it is missing, removes temporary files that a killed process left, keeps the
  /// newest `keep` (≥ 1) states. Throws IoError, or UsageError when another process holds the folder.
  explicit ResumeStore(std::filesystem::path folder, int keep = 2);
  ~ResumeStore();
  ResumeStore(const ResumeStore&) = delete;
  ResumeStore& operator=(const ResumeStore&) = delete;

  /// Saves a state: temporary file, sync, read back and verify, rename, sync of the folder, then the pointer
  /// file `latest.json`, then removal of states beyond `keep`. Returns the state's path. On any failure
  /// throws IoError naming the path, and what was saved before is untouched.
  std::filesystem::path save(const nlohmann::ordered_json& header, std::span<const ResumeSection> sections);

  /// find_resume_state() of this folder; the damaged ones it meets are the first that save() removes.
  [[nodiscard]] FoundResumeState load();

  /// Removes every state, and the pointer file; other files of the folder are not touched.
  void clear();

  [[nodiscard]] const std::filesystem::path& folder() const { return folder_; }

 private:
  void remove_temporaries() const;
  void prune(std::uint64_t newest);

  std::filesystem::path folder_;
  int keep_;
  int lock_ = -1;
  std::uint64_t next_sequence_ = 1;
  std::vector<std::filesystem::path> damaged_;
};

}  // namespace voca::engine
