#pragma once

#include <unistd.h>

#include "engine/base/unique_handle.h"

namespace voca::engine {

struct FdTraits {
  static constexpr int kNone = -1;
  static void close(int descriptor) { ::close(descriptor); }
};
/// Owning file descriptor; -1 is none, as system calls return it.
using UniqueFd = UniqueHandle<FdTraits>;

}  // namespace voca::engine
