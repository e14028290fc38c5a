#pragma once

#include <optional>
#include <string>

namespace voca::engine {

/// What there is to say of an NCCL by its number (ncclGetVersion), for a job of several GPUs.
struct NcclVersion {
  std::string text;    ///< "2.21.5"
  bool usable = true;  ///< false before 2.14, the first whose initialisation does not block
  std::string advice;  ///< what to do about it; empty where there is nothing to
};
[[nodiscard]] NcclVersion nccl_version(int number);

/// The number of the libnccl.so.2 that is found here; nothing where none is, or none that says.
[[nodiscard]] std::optional<int> find_nccl();

}  // namespace voca::engine
