#pragma once

#include <unistd.h>

#include <cerrno>

#include "engine/base/unique_handle.h"

namespace voca::engine {

struct FdTraits {
  static constexpr int kNone = -1;
  static void close(int descriptor) {
    const int error_number = errno;
    ::close(descriptor);
    errno = error_number;
  }
};
/// Owning file descriptor; -1 is none, as system calls return it. Closing it keeps errno.
using UniqueFd = UniqueHandle<FdTraits>;

}  // namespace voca::engine
