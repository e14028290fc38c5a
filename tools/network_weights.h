#pragma once

#include <string>
#include <vector>

#include "engine/checkpoint/torch/training_checkpoint.h"

namespace voca::tools {

/// The network's weights in a checkpoint, under the network's own names.
struct NetworkWeights {
  std::string key;  ///< where they are stored, as --weights takes it: "model_state_dict", "ema"
  std::vector<engine::NamedTensor> tensors;
};

/// Finds the weights under any key, and removes the prefixes that wrappers leave in names (`module.`,
/// `_orig_mod.`, `_fsdp_wrapped_module.`, anywhere) and whatever precedes the network's own names (`model.`,
/// `net.`, `ema.`). Other values that a module holds (counters, loss weights) are left out. Parameters that
/// the network does not have are kept, for check_parameters() to refuse.
///
/// `key` selects one of several sets (--weights); if it is empty, there must be exactly one. Throws
/// UsageError if `key` names none, DataError beginning with `path` if there are several sets, none, or
/// weights that are not tensors; the message names the other network if that is known.
[[nodiscard]] NetworkWeights find_weights(const std::string& path, const engine::LoadedCheckpoint& checkpoint,
                                          const std::string& key);

}  // namespace voca::tools
