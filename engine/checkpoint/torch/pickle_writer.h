#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/checkpoint/torch/value.h"

namespace voca::engine {

/// A pickle of protocol 2 and the storages it refers to by their index here ("0", "1", …).
struct Pickle {
  std::string bytes;
  struct StorageUse {
    std::shared_ptr<const Storage> storage;
    DType dtype = DType::kF32;
  };
  std::vector<StorageUse> storages;
};

/// Writes `value` with the opcodes and globals that torch.load(weights_only=True) allows. Storages are
/// numbered in the order in which the tree meets them; tensors that share one share it in the file. Throws
/// InternalError for an inert node, for bytes, and for a storage seen as two element types.
[[nodiscard]] Pickle write_pickle(const Value& value);

}  // namespace voca::engine
