#pragma once

// The form of resume states before they were safetensors files. It is read and no longer written.

#include <filesystem>
#include <optional>

#include "engine/checkpoint/resume/resume_state.h"

namespace voca::engine {

/// Reads and verifies a state of the earlier form; nullopt if the file does not begin as one. Throws IoError,
/// DataError.
[[nodiscard]] std::optional<ResumeState> read_earlier_state(const std::filesystem::path& path);

}  // namespace voca::engine
