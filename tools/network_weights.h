#pragma once

#include <string>
#include <vector>

#include "engine/checkpoint/torch/training_checkpoint.h"

namespace voca::tools {

/// The weights of the network in a checkpoint, under the network's own names.
struct NetworkWeights {
  std::string key;  ///< where they lie, as --weights takes it: "model_state_dict", "ema"
  std::vector<engine::NamedTensor> tensors;
};

/// Finds them wherever a script put them: under any key, with the prefixes that wrappers leave in names
/// (`module.`, `_orig_mod.`, `_fsdp_wrapped_module.`, anywhere) and whatever stands before the network's own
/// names (`model.`, `net.`, `ema.`). What a module carries beside weights (counters, loss weights) is left
/// out; parameters that the network does not have are not, for check_parameters() to refuse.
///
/// `key` chooses among several (--weights); empty: there must be one. Throws UsageError where `key` names
/// none, DataError beginning with `path` where there are several, none, or weights that are no tensors; it
/// says which other network it is where that is known.
[[nodiscard]] NetworkWeights find_weights(const std::string& path, const engine::LoadedCheckpoint& checkpoint,
                                          const std::string& key);

}  // namespace voca::tools
