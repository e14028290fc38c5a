#if defined(VOCA_WITH_NCCL)

#include "engine/distributed/nccl_api.h"

#include <dlfcn.h>

#include "engine/error.h"

namespace voca::engine {
namespace {

constexpr int kOldestVersion = NCCL_VERSION(2, 14, 0);

template <typename Function>
void find(void* library, const char* name, const std::string& path, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(library, name));
  if (function == nullptr)
    throw Error(ExitCode::kIo, fmt::format("{}: has no {}; install NCCL 2.14 or newer", path, name));
}

}  // namespace

NcclApi load_nccl(const std::string& library) {
  void* const handle = ::dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    throw Error(
        ExitCode::kIo,
        fmt::format("NCCL cannot be opened: {}; install libnccl2 or add its folder to LD_LIBRARY_PATH",
                    ::dlerror()));
  }
  NcclApi api;
  find(handle, "ncclGetVersion", library, api.get_version);
  find(handle, "ncclGetUniqueId", library, api.get_unique_id);
  find(handle, "ncclCommInitRankConfig", library, api.comm_init_rank_config);
  find(handle, "ncclCommGetAsyncError", library, api.comm_get_async_error);
  find(handle, "ncclCommFinalize", library, api.comm_finalize);
  find(handle, "ncclCommDestroy", library, api.comm_destroy);
  find(handle, "ncclCommAbort", library, api.comm_abort);
  find(handle, "ncclAllReduce", library, api.all_reduce);
  find(handle, "ncclAllGather", library, api.all_gather);
  find(handle, "ncclBroadcast", library, api.broadcast);
  find(handle, "ncclGroupStart", library, api.group_start);
  find(handle, "ncclGroupEnd", library, api.group_end);
  find(handle, "ncclGetErrorString", library, api.get_error_string);
  find(handle, "ncclGetLastError", library, api.get_last_error);
  int version = 0;
  if (api.get_version(&version) != ncclSuccess || version < kOldestVersion) {
    throw Error(ExitCode::kIo, fmt::format("{}: is NCCL {}, expected {} or newer (2.14); update it", library,
                                           version, kOldestVersion));
  }
  return api;
}

}  // namespace voca::engine

#endif
