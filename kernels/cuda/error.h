#pragma once

#include <stdexcept>
#include <string>

namespace voca::kernels::cuda {

/// A launch the CUDA runtime refused, or a kernel asked for what it cannot do. The message names the kernel.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace voca::kernels::cuda
