#pragma once

#include <optional>
#include <string>

namespace voca::engine {

/// Assessment of an NCCL version (ncclGetVersion) for a job of several GPUs.
struct NcclVersion {
  std::string text;    ///< "2.21.5"
  bool usable = true;  ///< false before 2.14, the first version with non-blocking initialisation
  std::string advice;  ///< what to do about it; empty if nothing
};
[[nodiscard]] NcclVersion nccl_version(int number);

/// Version of the installed libnccl.so.2; nullopt if there is none or it does not report one.
[[nodiscard]] std::optional<int> find_nccl();

}  // namespace voca::engine
