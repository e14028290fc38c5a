#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/checkpoint/torch/value.h"

namespace voca::engine {

/// A pickle of protocol 2, and the storages that it refers to by index ("0", "1", …).
struct Pickle {
  std::string bytes;
  struct StorageUse {
    std::shared_ptr<const Storage> storage;
    DType dtype = DType::kF32;
  };
  std::vector<StorageUse> storages;
};

/// Writes `value` with the opcodes and globals that torch.load(weights_only=True) allows. Storages are
/// numbered in the order of their first use; tensors that share a storage share it in the file. Throws
/// InternalError for an inert node, for bytes, and for a storage used with two element types.
[[nodiscard]] Pickle write_pickle(const Value& value);

}  // namespace voca::engine
