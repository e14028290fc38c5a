#pragma once

#include <memory>

#include "engine/comm/gradient_buckets.h"

namespace voca::engine {

/// A stream of the highest priority on the current GPU, so that gradient all-reduces do not queue behind
/// backward kernels, with the events that order it against the compute stream. Only in builds with CUDA.
/// Throws Error (exit 74) naming the failed call.
[[nodiscard]] std::unique_ptr<CommunicationStream> make_cuda_communication_stream();

}  // namespace voca::engine
