#pragma once

// PyTorch's .pt files: a zip archive of one pickle and one record a storage.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/checkpoint/torch/value.h"

namespace voca::engine {

/// How much of a file is read before it is believed. kStructure: directory, headers, pickle. kEverything:
/// every record against its CRC-32, and, in files of ours, every byte of the file against our digests.
enum class Verify : std::uint8_t { kStructure, kEverything };

struct PtFile {
  Value value;
  /// Whether it carries our digests (voca_digests.json), so that Verify::kEverything covers every byte.
  bool has_digests = false;
  struct Record {
    std::string name;
    std::uint64_t size = 0;
  };
  std::vector<Record> records;
};

/// Reads what torch.save of PyTorch 1.6 and newer wrote (zip; pickle protocols 2 to 5; either byte order).
/// Tensors are read from the file when copied out; the file stays open as long as one of them lives. Throws
/// IoError, or DataError naming file and record: not a zip (files of older PyTorch are named as such, with
/// what to do), a damaged record, a pickle beyond PickleLimits.
[[nodiscard]] PtFile read_pt(const std::filesystem::path& path, Verify verify = Verify::kEverything);

/// Writes `value` (None, bool, int, float, str, list, tuple, dict, OrderedDict, tensors) so that
/// torch.load(weights_only=True) of PyTorch 1.13 and newer reads it: through an AtomicFile, read back and
/// verified before it takes its name. The same value gives the same bytes. Throws IoError.
void write_pt(const std::filesystem::path& path, const Value& value);

}  // namespace voca::engine
