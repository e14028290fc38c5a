#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "engine/checkpoint/torch/value.h"

namespace voca::engine {

/// What a pickle may cost before it is refused. The defaults are far beyond any state dict.
struct PickleLimits {
  std::uint64_t max_bytes = std::uint64_t{64} << 20;  ///< of the pickle itself
  std::size_t max_values = 1'000'000;                 ///< made by its opcodes; each takes 128 bytes at most
  std::size_t max_expanded = 4'000'000;  ///< values a walk of the tree meets, shared ones each time
  int max_depth = 64;
};

/// A storage as a persistent id names it: ('storage', torch.FloatStorage, '0', 'cpu', numel).
struct StorageReference {
  std::string key;
  std::uint64_t elements = 0;
  std::size_t element_size = 0;  ///< bytes; 1 for untyped storages
};
/// Finds the bytes of a storage; throws DataError when they are missing or fewer than referred to.
using StorageResolver = std::function<std::shared_ptr<const Storage>(const StorageReference&)>;

/// Reads a pickle of protocol 2 to 5 as torch.save writes it. No name in it is ever imported or called: the
/// globals of a state dict (tensor and parameter rebuilders, storage types, OrderedDict, torch.Size, numpy
/// scalars, dtypes and devices, the last two as strings) are understood as data; whatever else it names
/// becomes an InertNode, as do texts that are not UTF-8 and values that contain themselves. Throws DataError
/// beginning with `context` for malformed input, and what passes a limit or a tensor that does not lie within
/// its storage.
[[nodiscard]] Value read_pickle(std::span<const std::byte> pickle, const std::string& context,
                                const StorageResolver& resolve, const PickleLimits& limits = {});

}  // namespace voca::engine
