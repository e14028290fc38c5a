#include "engine/comm/nccl_version.h"

#include <fmt/format.h>

#include <tuple>

#include "engine/base/shared_library.h"

namespace voca::engine {

NcclVersion nccl_version(int number) {
  // 10000 major + 100 minor + patch since 2.9, 1000 major + 100 minor + patch before.
  const bool is_new = number >= 10000;
  const auto version = std::tuple(is_new ? number / 10000 : number / 1000,
                                  is_new ? number % 10000 / 100 : number % 1000 / 100, number % 100);
  NcclVersion result;
  result.text = fmt::format("{}.{}.{}", std::get<0>(version), std::get<1>(version), std::get<2>(version));
  if (version < std::tuple(2, 14, 0)) {
    result.usable = false;
    result.advice = "2.14 or newer is needed, which starts without blocking; update libnccl2";
  } else if (version < std::tuple(2, 21, 5)) {
    result.advice = "2.21.5 or newer is advised; update libnccl2";
  }
  return result;
}

std::optional<int> find_nccl() {
  const std::optional<SharedLibrary> library = SharedLibrary::open("libnccl.so.2");
  if (!library) return std::nullopt;
  const auto get_version = library->function<int (*)(int*)>("ncclGetVersion");
  int number = 0;
  if (get_version == nullptr || get_version(&number) != 0) return std::nullopt;
  return number;
}

}  // namespace voca::engine
