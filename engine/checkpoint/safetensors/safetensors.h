#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/checkpoint/torch/pt_file.h"
#include "engine/checkpoint/torch/value.h"

namespace voca::engine {

struct NamedTensor {
  std::string name;
  TensorValue tensor;
};

/// A .safetensors file: tensors by name and a map of texts (https://github.com/huggingface/safetensors).
struct SafetensorsFile {
  std::vector<NamedTensor> tensors;  ///< in the order of their data
  std::map<std::string, std::string> metadata;
  bool has_digest = false;  ///< carries our digest, which Verify::kEverything checks
};

/// Reads one; tensors are read from the file when copied out. Throws IoError, or DataError naming file and
/// tensor: a header beyond 16 MB or the file, a name twice, an unknown dtype, a size other than the shape's,
/// data that overlaps, leaves holes or ends elsewhere than the file.
[[nodiscard]] SafetensorsFile read_safetensors(const std::filesystem::path& path,
                                               Verify verify = Verify::kEverything);

/// Writes `tensors` in the order given, contiguous, through an AtomicFile, read back before it takes its
/// name. The metadata "format" = "pt" and our digest are added. Throws IoError, InternalError for a name
/// twice.
void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace voca::engine
