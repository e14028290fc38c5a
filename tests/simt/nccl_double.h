#pragma once

#include "engine/comm/nccl_api.h"

// NCCL double for tests: ranks are threads of one process, each with its own HostDevice, and their streams
// are Streams.

namespace voca::simt::host {

/// Functions that replace those of NCCL. A collective is queued on its stream and runs when the stream
/// reaches it, as late as possible: once all ranks have reached it, it reads the input and writes the output
/// of every rank, in host memory. Only the order of streams and events is honoured, so a missing wait shows
/// as wrong numbers. Sums are taken in rank order in the type of the tensor; each 16-bit partial sum is
/// rounded.
///
/// Like NCCL, it connects without blocking (in progress until all ranks have connected), reports an aborted
/// communicator to the other ranks through comm_get_async_error (ncclRemoteError), and releases a rank
/// waiting in a collective only by comm_abort. Stricter than NCCL: mismatched calls, and collectives of one
/// communicator that streams reorder, throw std::runtime_error on every rank when they run; so does a wait
/// longer than kMaxWaitOfACollective.
[[nodiscard]] engine::NcclApi nccl_double();

inline constexpr int kMaxWaitOfACollective = 120;  // seconds

}  // namespace voca::simt::host
