#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "engine/checkpoint/torch/pt_file.h"
#include "engine/checkpoint/torch/value.h"

namespace voca::engine {

struct NamedTensor {
  std::string name;
  TensorValue tensor;
};

/// A .safetensors file: named tensors and a string-to-string map
/// (https://github.com/huggingface/safetensors).
struct SafetensorsFile {
  std::vector<NamedTensor> tensors;  ///< in the order of their data
  std::map<std::string, std::string> metadata;
  bool has_digest = false;  ///< contains the engine's digest, which Verify::kEverything checks
};

/// Reads a file; tensor data is read only when copied out. Throws IoError, or DataError naming file and
/// tensor: a header larger than 16 MB or the file, a duplicate name, an unknown dtype, a size that does not
/// match the shape, data that overlaps, leaves holes or does not end at the end of the file.
[[nodiscard]] SafetensorsFile read_safetensors(const std::filesystem::path& path,
                                               Verify verify = Verify::kEverything);

/// Writes `tensors` in the given order, contiguous, through an AtomicFile, which is read back before it is
/// renamed. Adds the metadata "format" = "pt" and the engine's digest. Throws IoError, InternalError for a
/// duplicate name.
void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace voca::engine
