#pragma once

// Includes NVIDIA's nccl.h: only for builds with VOCA_WITH_NCCL.

#include <nccl.h>

#include <memory>
#include <string>

#include "engine/comm/nccl_communicator.h"

namespace voca::engine {

/// The NCCL functions that the engine uses, as pointers, so that one program runs with and without the
/// library and tests can substitute their own. The signatures are nccl.h's.
struct NcclApi {
  decltype(&ncclGetVersion) get_version = nullptr;
  decltype(&ncclGetUniqueId) get_unique_id = nullptr;
  decltype(&ncclCommInitRankConfig) comm_init_rank_config = nullptr;
  decltype(&ncclCommGetAsyncError) comm_get_async_error = nullptr;
  decltype(&ncclCommFinalize) comm_finalize = nullptr;
  decltype(&ncclCommDestroy) comm_destroy = nullptr;
  decltype(&ncclCommAbort) comm_abort = nullptr;
  decltype(&ncclAllReduce) all_reduce = nullptr;
  decltype(&ncclAllGather) all_gather = nullptr;
  decltype(&ncclBroadcast) broadcast = nullptr;
  decltype(&ncclGroupStart) group_start = nullptr;
  decltype(&ncclGroupEnd) group_end = nullptr;
  decltype(&ncclGetErrorString) get_error_string = nullptr;
  decltype(&ncclGetLastError) get_last_error = nullptr;
};

/// Opens the library, which stays loaded. Throws UsageError saying what is missing if it is absent, or older
/// than 2.14, the first version with non-blocking initialisation.
[[nodiscard]] NcclApi load_nccl(const std::string& library = "libnccl.so.2");

[[nodiscard]] std::unique_ptr<Communicator> make_nccl_communicator(const NcclApi& api, KeyValueStore& store,
                                                                   std::unique_ptr<Communicator> host,
                                                                   const NcclOptions& options);

}  // namespace voca::engine
