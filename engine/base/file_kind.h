#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace voca::engine {

/// Kind of a file by its content, whatever its name.
enum class FileKind : std::uint8_t {
  kUnknown,      ///< none of the kinds below, or unreadable
  kEmpty,        ///< no bytes
  kHdf5,         ///< .h5
  kTorch,        ///< .pt: a zip archive with data.pkl
  kNpz,          ///< .npz: a zip archive of .npy files
  kNpy,          ///< .npy
  kSafetensors,  ///< .safetensors
  kResumeState,  ///< .resume of this program: a .safetensors with kResumeStateKey, or the earlier form
  kLegacyTorch,  ///< .pt of PyTorch before 1.6
  kPickle,       ///< .pkl: a pickle without an archive around it
  kLfsPointer,   ///< Git LFS pointer in place of a file that was not fetched
  kHtml,         ///< HTML page, usually a login or an error
  kJson,         ///< .json, .jsonl
  kZip,          ///< another zip archive
  kGzip,         ///< .gz, .tar.gz
  kTar,          ///< .tar
  kXz,           ///< .xz
  kZstd,         ///< .zst
  kBzip2,        ///< .bz2
  k7z,           ///< .7z
  kRar,          ///< .rar
  kMedia,        ///< video, audio or image
  kText,         ///< printable text of none of the kinds above
};

/// Key in the metadata of a safetensors file that makes it a resume state; its value is the state's header.
inline constexpr std::string_view kResumeStateKey = "voca_resume_state";

/// Kind of `path` by its first and last bytes; kUnknown if it is not a regular file or cannot be read. The
/// file may be truncated or damaged.
[[nodiscard]] FileKind file_kind(const std::filesystem::path& path);

/// "an HTML page", "a NumPy archive (.npz)"; "" for kUnknown.
[[nodiscard]] std::string_view describe(FileKind kind);

/// What to do with a file of this kind if another was expected, e.g. "git lfs pull fetches the file itself";
/// "" if that is obvious.
[[nodiscard]] std::string_view what_to_do_with(FileKind kind);

/// Why `path` is not of the `wanted` kind and what to do, for a message that begins with the path: "is an
/// HTML page, where a packed dataset (.h5) was expected; a login or error page was saved under this name:
/// download the file again". Empty for `wanted` itself (a damaged file: the reader reports why) and for
/// kUnknown.
[[nodiscard]] std::string mistaken_kind(const std::filesystem::path& path, FileKind wanted);

}  // namespace voca::engine
