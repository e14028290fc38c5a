#pragma once

#include <filesystem>
#include <string>

#include "engine/rendezvous/env_vars.h"

namespace voca::engine {

/// What ranks prove to each other that they belong to one job with. Messages name variables and files, never
/// the secret.

/// 256 random bits of the system as 64 hexadecimal digits.
[[nodiscard]] std::string fresh_secret();

/// That of VOCA_JOB_SECRET, or the content of the file VOCA_JOB_SECRET_FILE without white space at its end;
/// "" when neither is set. Throws UsageError when both are, when the secret is shorter than 16 characters, or
/// when the file belongs to someone else or others may read or write it; IoError when it cannot be read.
[[nodiscard]] std::string given_secret(const EnvVars& variables);

/// A secret of this user on this machine, for jobs of one node that were given none: the file
/// `parent`/voca-engine-<uid>/secret, made by whichever rank comes first. No rank waits for another one, and
/// no file of an earlier job can be taken for this one's. Throws UsageError when the folder or the file is
/// not this user's alone; IoError when the system refuses.
[[nodiscard]] std::string user_secret(const std::filesystem::path& parent);

}  // namespace voca::engine
