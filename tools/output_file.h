#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace voca::tools {

/// What a command writes into a file that a person named.
enum class OutputKind : std::uint8_t { kCheckpoint, kWeights, kPackedDataset, kPredictions, kReport };

struct OutputFile {
  std::string option;  ///< that names it, "--save_path"
  std::filesystem::path path;
  OutputKind kind = OutputKind::kCheckpoint;
};

/// A file or folder that the command reads.
struct InputFile {
  std::string option;  ///< "--features_root"
  std::filesystem::path path;
};

/// What may happen to a file of the same kind that is there already.
enum class Existing : std::uint8_t {
  kReplace,           ///< --overwrite was given, or the file is this run's own
  kAskFor,            ///< refused, naming --overwrite
  kBelongsToAnother,  ///< refused: --overwrite could not be given
};

/// Before any work: refuses an output that is an input (by name, link or hard link), a folder, a file of
/// another kind (which --overwrite does not replace either), one of the same kind without leave, and a folder
/// that is missing or cannot be written. Pipes and devices are outputs for predictions and reports alone.
/// Removes what a killed process left half written beside it. Throws UsageError or IoError naming the option.
void check_output(const OutputFile& output, std::span<const InputFile> inputs, Existing existing);

/// Whether the file's content is what `kind` names; a .pt of any program is a checkpoint if it holds a
/// dictionary.
[[nodiscard]] bool is_of_kind(const std::filesystem::path& path, OutputKind kind);

/// Makes the folder of `output` and those above it. Throws IoError naming the option.
void make_folder_of(const OutputFile& output);

/// Before any work: refuses a folder for outputs that is a file, or whose nearest existing ancestor cannot be
/// written. Changes nothing. Throws UsageError or IoError naming the option.
void check_output_folder(const std::string& option, const std::filesystem::path& folder);

/// Whether two names lead to one file. False where either does not exist and the names differ.
[[nodiscard]] bool same_file(const std::filesystem::path& a, const std::filesystem::path& b);

/// Whole or not at all, and of a link the target; a pipe, a device, or what /dev/fd names is written to.
/// Throws IoError naming the path; Stopped by SIGPIPE where a pipe's reader is gone.
void write_output(const std::filesystem::path& path, const std::string& text);

/// Whether a name for an output means stdout: "-", /dev/stdout and its like.
[[nodiscard]] bool is_stdout(const std::filesystem::path& path);

}  // namespace voca::tools
