#pragma once

#include <filesystem>
#include <string>

#include "engine/rendezvous/env_vars.h"

namespace voca::engine {

/// The secret with which ranks prove that they belong to one job. Messages name variables and files, never
/// the secret.

/// 256 random bits from the system as 64 hexadecimal digits.
[[nodiscard]] std::string fresh_secret();

/// Secret from VOCA_JOB_SECRET, or from the file VOCA_JOB_SECRET_FILE without trailing white space; "" when
/// neither is set. Throws UsageError when both are set, when the secret is shorter than 16 characters, or
/// when the file belongs to another user or others may read or write it; IoError when it cannot be read.
[[nodiscard]] std::string given_secret(const EnvVars& variables);

/// Per-user secret on this machine, for single-node jobs that were given none: the file
/// `parent`/voca-engine-<uid>/secret, created by whichever rank comes first. No rank waits for another one,
/// and a file left by an earlier job is equally valid. Throws UsageError when the folder or the file is
/// accessible to other users; IoError on system errors.
[[nodiscard]] std::string user_secret(const std::filesystem::path& parent);

}  // namespace voca::engine
