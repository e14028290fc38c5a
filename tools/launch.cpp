#include "engine/error.h"
#include "tools/commands.h"

namespace voca::tools {

void launch(CommandLine /*command_line*/) {
  throw engine::UsageError(
      "launch: this build trains on one rank only; run voca-engine train with the same options");
}

}  // namespace voca::tools
