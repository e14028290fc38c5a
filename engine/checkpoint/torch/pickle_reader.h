#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "engine/checkpoint/torch/value.h"

namespace voca::engine {

/// Resource limits for reading a pickle. The defaults are far beyond any state dict.
struct PickleLimits {
  std::uint64_t max_bytes = std::uint64_t{64} << 20;  ///< size of the pickle
  std::size_t max_values = 1'000'000;    ///< created by its opcodes; each takes at most 128 bytes
  std::size_t max_expanded = 4'000'000;  ///< values in a walk of the tree, shared ones counted each time
  int max_depth = 64;
};

/// Storage named by a persistent id: ('storage', torch.FloatStorage, '0', 'cpu', numel).
struct StorageReference {
  std::string key;
  std::uint64_t elements = 0;
  std::size_t element_size = 0;  ///< bytes; 1 for untyped storages
};
/// Returns the bytes of a storage; throws DataError when they are missing or fewer than referenced.
using StorageResolver = std::function<std::shared_ptr<const Storage>(const StorageReference&)>;

/// Reads a pickle of protocol 2 to 5 as written by torch.save. No global is ever imported or called. The
/// globals of a state dict (tensor and parameter rebuilders, storage types, OrderedDict, torch.Size, numpy
/// scalars, dtypes and devices, the last two as strings) are interpreted as data; any other global becomes an
/// InertNode, as do strings that are not UTF-8 and values that contain themselves. Throws DataError beginning
/// with `context` for malformed input, for input that exceeds a limit, and for a tensor that does not lie
/// within its storage.
[[nodiscard]] Value read_pickle(std::span<const std::byte> pickle, const std::string& context,
                                const StorageResolver& resolve, const PickleLimits& limits = {});

}  // namespace voca::engine
