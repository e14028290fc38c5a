#pragma once

// PyTorch's .pt files: a zip archive with one pickle and one record per storage.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "engine/checkpoint/torch/value.h"

namespace voca::engine {

/// How much of a file is verified on reading. kStructure: directory, headers and pickle. kEverything: also
/// every record against its CRC-32 and, in files of this engine, every byte against its digests.
enum class Verify : std::uint8_t { kStructure, kEverything };

struct PtFile {
  Value value;
  /// Whether the file contains the engine's digests (voca_digests.json), so that Verify::kEverything covers
  /// every byte.
  bool has_digests = false;
  struct Record {
    std::string name;
    std::uint64_t size = 0;
  };
  std::vector<Record> records;
};

/// Reads a file written by torch.save of PyTorch 1.6 or newer (zip; pickle protocols 2 to 5; either byte
/// order). Tensor data is read only when copied out; the file stays open as long as one of its tensors
/// exists. Throws IoError, or DataError naming file and record: not a zip (for files of older PyTorch the
/// message says so and what to do), a damaged record, a pickle that exceeds PickleLimits.
[[nodiscard]] PtFile read_pt(const std::filesystem::path& path, Verify verify = Verify::kEverything);

/// Writes `value` (None, bool, int, float, str, list, tuple, dict, OrderedDict, tensors) such that
/// torch.load(weights_only=True) of PyTorch 1.13 or newer reads it. Writes through an AtomicFile, which is
/// read back and verified before it is renamed. Equal values give equal bytes. Throws IoError.
void write_pt(const std::filesystem::path& path, const Value& value);

}  // namespace voca::engine
