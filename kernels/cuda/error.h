#pragma once

#include <stdexcept>
#include <string>

namespace voca::kernels::cuda {

/// Thrown if the CUDA runtime rejects a launch or a kernel does not support its arguments. The message names
/// the kernel.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace voca::kernels::cuda
