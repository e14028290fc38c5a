#pragma once

#include "engine/comm/nccl_api.h"

// NCCL for tests: ranks are threads of one process, each with a HostDevice of its own, and their streams are
// Streams.

namespace voca::simt::host {

/// Functions that stand in for NCCL's. A collective is queued on the stream it is given and is done when that
/// stream comes to it, as late as may be: it reads every rank's input and writes every rank's output then, in
/// host memory, once all ranks have come to it. It honours the order of the stream and its events and nothing
/// else, so that a wait left out shows as wrong numbers. Sums are taken in rank order in the tensor's own
/// type, each partial sum of 16 bits rounded.
///
/// As NCCL, it connects without blocking (in progress until all ranks have come), tells of a rank whose
/// communicator was aborted by comm_get_async_error on the others (ncclRemoteError), and frees who waits
/// within a collective by comm_abort alone. Stricter than NCCL: calls that do not match, and collectives of
/// one communicator that streams bring into another order than that of the calls, throw std::runtime_error on
/// every rank when they are done; so does a wait of longer than kMaxWaitOfACollective.
[[nodiscard]] engine::NcclApi nccl_double();

inline constexpr int kMaxWaitOfACollective = 120;  // seconds

}  // namespace voca::simt::host
