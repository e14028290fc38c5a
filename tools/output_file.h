#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "engine/base/names.h"

namespace voca::tools {

/// Content of an output file that the user named.
enum class OutputKind : std::uint8_t { kCheckpoint, kWeights, kPackedDataset, kPredictions, kReport };
constexpr auto names_of(OutputKind /*tag*/) {
  return std::to_array<engine::Named<OutputKind>>({{"a checkpoint", OutputKind::kCheckpoint},
                                                   {"a .safetensors", OutputKind::kWeights},
                                                   {"a packed dataset", OutputKind::kPackedDataset},
                                                   {"predictions", OutputKind::kPredictions},
                                                   {"a JSON report", OutputKind::kReport}});
}

struct OutputFile {
  std::string option;  ///< option that names the file, "--save_path"
  std::filesystem::path path;
  OutputKind kind = OutputKind::kCheckpoint;
};

/// A file or folder that the command reads.
struct InputFile {
  std::string option;  ///< "--features_root"
  std::filesystem::path path;
};

/// How to treat an existing file of the same kind.
enum class Existing : std::uint8_t {
  kReplace,           ///< --overwrite was given, or the file is this run's own
  kAskFor,            ///< refused; the message names --overwrite
  kBelongsToAnother,  ///< refused; --overwrite cannot be given
};

/// Checks an output before any work. Refuses an output that is an input (by name, link or hard link), a
/// folder, a file of another kind (which --overwrite does not replace either), a file of the same kind unless
/// `existing` allows it, and a folder that is missing or not writable. Only predictions and reports may go to
/// pipes and devices. Removes temporary files that a killed process left beside the output. Throws UsageError
/// or IoError naming the option.
void check_output(const OutputFile& output, std::span<const InputFile> inputs, Existing existing);

/// Whether the file's content is of `kind`; a .pt of any program is a checkpoint if it holds a dictionary.
[[nodiscard]] bool is_of_kind(const std::filesystem::path& path, OutputKind kind);

/// Creates the folder of `output` and its parents. Throws IoError naming the option.
void make_folder_of(const OutputFile& output);

/// Checks a folder for outputs before any work, without changing anything. Refuses one that is a file, or
/// whose nearest existing ancestor is not writable. Throws UsageError or IoError naming the option.
void check_output_folder(const std::string& option, const std::filesystem::path& folder);

/// Whether two paths name the same file. False if either does not exist and the paths differ.
[[nodiscard]] bool same_file(const std::filesystem::path& a, const std::filesystem::path& b);

/// Writes `text` atomically, following a link to its target; a pipe, a device or a /dev/fd path is written to
/// directly. Throws IoError naming the path, Stopped by SIGPIPE if the reader of a pipe is gone.
void write_output(const std::filesystem::path& path, const std::string& text);

/// Whether an output path means stdout: "-", /dev/stdout or an equivalent.
[[nodiscard]] bool is_stdout(const std::filesystem::path& path);

}  // namespace voca::tools
