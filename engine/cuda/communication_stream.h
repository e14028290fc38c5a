#pragma once

#include <memory>

#include "engine/comm/gradient_buckets.h"

namespace voca::engine {

/// A stream of the highest priority on the current GPU, so that a sum of gradients does not wait behind the
/// kernels of backward, with the events that order it against the compute stream. For builds with CUDA.
/// Throws Error (exit 74) naming the call that failed.
[[nodiscard]] std::unique_ptr<CommunicationStream> make_cuda_communication_stream();

}  // namespace voca::engine
