#include "tools/output_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>

#include "data/packed/dataset.h"
#include "engine/base/atomic_file.h"
#include "engine/base/error.h"
#include "engine/base/file_kind.h"
#include "engine/base/file_reader.h"
#include "engine/base/signals.h"
#include "engine/base/terminal.h"
#include "engine/base/unique_fd.h"
#include "engine/checkpoint/safetensors/safetensors.h"
#include "engine/checkpoint/torch/pt_file.h"

namespace voca::tools {
namespace {

namespace fs = std::filesystem;
using engine::IoError;
using engine::UsageError;

fs::path folder_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

/// The result of `check`; false if it finds the file malformed.
template <typename Check>
bool holds(Check check) {
  try {
    return check();
  } catch (const engine::DataError&) {
    return false;
  }
}

/// Whether the file holds weights in that form: a resume state does not.
bool is_safetensors(const fs::path& path) {
  return holds([&] {
    return !engine::read_safetensors(path, engine::Verify::kStructure)
                .metadata.contains(std::string(engine::kResumeStateKey));
  });
}

/// Whether the file is a dictionary written by torch.save, in this program or another.
bool is_torch_dictionary(const fs::path& path) {
  return holds([&] { return engine::read_pt(path, engine::Verify::kStructure).value.if_dict() != nullptr; });
}

bool is_packed_dataset(const fs::path& path) {
  return holds([&] {
    static_cast<void>(data::Dataset(path));
    return true;
  });
}

std::string first_bytes(const fs::path& path, std::size_t count) {
  const engine::FileReader file(path);
  std::string text(std::min<std::uint64_t>(count, file.size()), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)));
  return text;
}

/// Whether the extension is that of another kind than a checkpoint: usually a dataset was given to the wrong
/// option.
bool is_named_for_another_kind(const OutputFile& output) {
  if (output.kind != OutputKind::kCheckpoint) return false;
  constexpr std::array<std::string_view, 7> kOthers{".h5",    ".hdf5", ".csv", ".json",
                                                    ".jsonl", ".npz",  ".npy"};
  const std::string extension = output.path.extension().string();
  return std::ranges::find(kOthers, extension) != kOthers.end();
}

/// Throws UsageError unless the output may be a pipe or a device, which are written sequentially.
void check_node(const OutputFile& output) {
  if (output.kind == OutputKind::kPredictions || output.kind == OutputKind::kReport) return;
  throw UsageError("{} {}: is not a regular file; give another name", output.option, output.path.string());
}

void check_existing(const OutputFile& output, const fs::file_status& status, Existing existing) {
  const std::string path = output.path.string();
  if (fs::is_directory(status))
    throw UsageError("{} {}: is a folder, the name of a file was expected", output.option, path);
  if (!fs::is_regular_file(status)) return check_node(output);
  std::error_code error;
  const bool empty = fs::file_size(output.path, error) == 0 && !error;  // from mktemp: nothing is lost
  if (empty) return;
  if (!is_of_kind(output.path, output.kind)) {
    throw UsageError("{} {}: exists and is not {}; remove it or give another name", output.option, path,
                     engine::name_of(output.kind));
  }
  if (existing == Existing::kReplace) return;
  throw UsageError(
      "{} {}: exists{}", output.option, path,
      existing == Existing::kAskFor
          ? "; replace it with --overwrite, or give another name"
          : " and is not of this run, or there is no run to continue; move it away or give another name");
}

/// The descriptor of this process that a path such as /dev/stdout or /dev/fd/3 refers to; −1 for other paths.
int descriptor_named(fs::path path) {
  constexpr int kMaxLinks = 40;
  std::error_code error;
  const fs::path own = fs::canonical("/proc/self/fd", error);
  for (int links = 0; !error && links < kMaxLinks && fs::is_symlink(path, error); ++links) {
    if (fs::canonical(folder_of(path), error) == own && !error) return std::stoi(path.filename().string());
    const fs::path next = fs::read_symlink(path, error);
    path = next.is_absolute() ? next : folder_of(path) / next;
  }
  return -1;
}

/// Writes to a pipe or a device.
void write_all(int descriptor, const std::string& path, std::string_view text) {
  if (engine::write_at_once(descriptor, text)) return;
  if (errno == EPIPE) throw engine::Stopped(SIGPIPE, path + ": its reader is gone");
  throw IoError("{}: cannot write: {}", path, std::strerror(errno));
}

/// Creates and removes a file in `folder`, with a name as long as the output's temporary one: permissions
/// alone do not reveal read-only file systems and quotas.
void check_writable(const std::string& option, const fs::path& output, const fs::path& folder) {
  std::string name = (folder / ("." + output.filename().string() + ".XXXXXX")).string();
  const engine::UniqueFd file(::mkstemp(name.data()));
  if (!file) {
    throw IoError("{} {}: cannot write into {}: {}", option, output.string(), folder.string(),
                  std::strerror(errno));
  }
  ::unlink(name.c_str());
}

}  // namespace

bool is_of_kind(const fs::path& path, OutputKind kind) {
  switch (kind) {
    case OutputKind::kCheckpoint:
      return is_torch_dictionary(path) || is_safetensors(path);
    case OutputKind::kWeights:
      return is_safetensors(path);
    case OutputKind::kPackedDataset:
      return is_packed_dataset(path);
    case OutputKind::kPredictions:
      return first_bytes(path, 64).starts_with("id,label,split,");
    case OutputKind::kReport:
      return first_bytes(path, 1) == "{";
  }
  return false;
}

void check_output(const OutputFile& output, std::span<const InputFile> inputs, Existing existing) {
  const std::string path = output.path.string();
  for (const InputFile& input : inputs) {
    if (same_file(output.path, input.path)) {
      throw UsageError("{} {}: is the file that {} names, and would be overwritten; give another name",
                       output.option, path, input.option);
    }
  }
  if (is_named_for_another_kind(output)) {
    throw UsageError("{} {}: is to hold {}, and is named {}; name it .pt or .safetensors", output.option,
                     path, engine::name_of(output.kind), output.path.extension().string());
  }
  if (descriptor_named(output.path) >= 0) return check_node(output);
  std::error_code error;
  const fs::file_status status = fs::status(output.path, error);
  if (!fs::status_known(status)) throw IoError("{} {}: {}", output.option, path, error.message());
  if (fs::exists(status)) check_existing(output, status, existing);
  if (fs::exists(status) && !fs::is_regular_file(status)) return;
  const fs::path folder = folder_of(engine::write_target(output.path));
  if (!fs::is_directory(folder, error)) {
    throw IoError("{} {}: {} is {}", output.option, path, folder.string(),
                  fs::exists(folder, error) ? "not a folder" : "a folder that does not exist; make it first");
  }
  check_writable(output.option, output.path, folder);
  try {
    engine::remove_stale_temporaries(output.path);
  } catch (const IoError&) {
    return;  // leftovers are harmless
  }
}

void make_folder_of(const OutputFile& output) {
  try {
    engine::make_folders(folder_of(engine::write_target(output.path)));
  } catch (const IoError& error) {
    throw IoError("{} {}: {}", output.option, output.path.string(), error.what());
  }
}

void check_output_folder(const std::string& option, const fs::path& folder) {
  std::error_code error;
  fs::path nearest = fs::absolute(folder).lexically_normal();
  while (!fs::exists(nearest, error) && !error && nearest != nearest.parent_path())
    nearest = nearest.parent_path();
  const bool is_folder = !error && fs::is_directory(nearest, error);
  if (error) throw IoError("{} {}: {}: {}", option, folder.string(), nearest.string(), error.message());
  if (!is_folder)
    throw UsageError("{} {}: {} is a file, a folder was expected", option, folder.string(), nearest.string());
  check_writable(option, folder, nearest);
}

bool same_file(const fs::path& a, const fs::path& b) {
  std::error_code error;
  if (fs::equivalent(a, b, error) && !error) return true;
  return fs::absolute(a).lexically_normal() == fs::absolute(b).lexically_normal();
}

void write_output(const fs::path& path, const std::string& text) {
  std::error_code error;
  if (const int descriptor = descriptor_named(path); descriptor >= 0)
    return write_all(descriptor, path.string(), text);
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status) || fs::is_regular_file(status)) return engine::write_file_atomically(path, text);
  const engine::UniqueFd node(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (node.get() < 0) throw IoError("{}: cannot open: {}", path.string(), std::strerror(errno));
  write_all(node.get(), path.string(), text);
}

bool is_stdout(const fs::path& path) {
  return path == "-" || descriptor_named(path) == STDOUT_FILENO;
}

}  // namespace voca::tools
