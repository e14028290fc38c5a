#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "engine/comm/communicator.h"

namespace voca::engine {

struct NcclOptions {
  std::string name = "main";  ///< distinguishes the job's communicators in the store
  std::chrono::milliseconds timeout{
      std::chrono::seconds(300)};  ///< for queueing a collective, and for all attempts together
  int attempts = 3;                ///< to connect, each with a new id
  std::chrono::milliseconds abort_timeout{
      std::chrono::seconds(10)};  ///< ncclCommAbort and ncclCommDestroy can hang
};

/// Communicator for tensors on the calling thread's current GPU, one GPU per rank; work is queued on the
/// stream passed to each call. Host values and barriers use `host`, which has the same rank and world size.
/// Opens libnccl.so.2. A watcher thread detects asynchronous errors: it aborts queued work, and the next call
/// throws. Throws UsageError if no usable NCCL is found or the build lacks nccl.h, CommunicationError with
/// the failed ranks if no attempt connects all ranks.
[[nodiscard]] std::unique_ptr<Communicator> make_nccl_communicator(KeyValueStore& store,
                                                                   std::unique_ptr<Communicator> host,
                                                                   const NcclOptions& options);
/// Whether this build supports NCCL, if the library is installed.
[[nodiscard]] bool with_nccl();

}  // namespace voca::engine
