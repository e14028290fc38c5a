#include "tools/version.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "data/packed/dataset.h"
#include "kernels/cpu/levels.h"
#include "tools/build_info.h"

namespace voca::tools {

std::string version() {
  return VOCA_VERSION;
}

std::string revision() {
  return VOCA_REVISION;
}

std::string version_line() {
  return fmt::format("voca-engine {} ({})", version(), revision());
}

nlohmann::ordered_json versions() {
  return {{"voca_engine", version()},          {"revision", revision()},
          {"compiler", VOCA_COMPILER},         {"build_type", VOCA_BUILD_TYPE},
          {"cuda_toolkit", VOCA_CUDA_TOOLKIT}, {"kernels", kernels::cpu::instruction_set()},
          {"hdf5", data::hdf5_version()}};
}

}  // namespace voca::tools
