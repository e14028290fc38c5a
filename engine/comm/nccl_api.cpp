#if defined(VOCA_WITH_NCCL)

#include "engine/comm/nccl_api.h"

#include <dlfcn.h>

#include "engine/base/error.h"
#include "engine/comm/nccl_version.h"

namespace voca::engine {
namespace {

template <typename Function>
void find(void* library, const char* name, const std::string& path, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(library, name));
  if (function == nullptr) throw UsageError("{}: has no {}; install NCCL 2.14 or newer", path, name);
}

}  // namespace

NcclApi load_nccl(const std::string& library) {
  void* const handle = ::dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    throw UsageError("NCCL cannot be opened: {}; install libnccl2 or add its folder to LD_LIBRARY_PATH",
                     ::dlerror());
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
  int number = 0;
  if (api.get_version(&number) != ncclSuccess) throw UsageError("{}: does not say its version", library);
  if (const NcclVersion version = nccl_version(number); !version.usable)
    throw UsageError("{}: is NCCL {}: {}", library, version.text, version.advice);
  return api;
}

}  // namespace voca::engine

#endif
