#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "engine/comm/communicator.h"

namespace voca::engine {

struct NcclOptions {
  std::string name = "main";  ///< tells the communicators of one job apart in the store
  std::chrono::milliseconds timeout{
      std::chrono::seconds(300)};  ///< of a collective's start, and of all attempts
  int attempts = 3;                ///< to connect, each with a new id
  std::chrono::milliseconds abort_timeout{
      std::chrono::seconds(10)};  ///< ncclCommAbort and ncclCommDestroy can hang
};

/// Of tensors on the GPU that is current for this thread, one a rank; work is queued on the stream that a
/// call names. Host values and barriers go over `host`, whose rank and world size are this one's.
/// libnccl.so.2 is opened when this is called. A thread watches for errors that come after a call has
/// returned: it ends the work queued, and the next call throws. Throws UsageError where there is no usable
/// NCCL and in a build without its header, CommunicationError naming the ranks that failed when no attempt
/// connects all of them.
[[nodiscard]] std::unique_ptr<Communicator> make_nccl_communicator(KeyValueStore& store,
                                                                   std::unique_ptr<Communicator> host,
                                                                   const NcclOptions& options);
/// Whether this build can use NCCL where it finds it.
[[nodiscard]] bool with_nccl();

}  // namespace voca::engine
