#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace voca::engine {

/// What a file is by its bytes, whatever it is called.
enum class FileKind : std::uint8_t {
  kUnknown,      ///< none of the kinds below, or not readable
  kEmpty,        ///< no bytes
  kHdf5,         ///< .h5
  kTorch,        ///< .pt: a zip archive with data.pkl
  kNpz,          ///< .npz: a zip archive of .npy
  kNpy,          ///< .npy
  kSafetensors,  ///< .safetensors
  kResumeState,  ///< .resume of this program
  kLegacyTorch,  ///< .pt of PyTorch before 1.6
  kPickle,       ///< .pkl: a pickle without an archive around it
  kLfsPointer,   ///< what Git LFS leaves where a file was not fetched
  kHtml,         ///< a page, mostly a login or an error
  kJson,         ///< .json, .jsonl
  kZip,          ///< another zip archive
  kGzip,         ///< .gz, .tar.gz
  kTar,          ///< .tar
  kXz,           ///< .xz
  kZstd,         ///< .zst
  kBzip2,        ///< .bz2
  k7z,           ///< .7z
  kRar,          ///< .rar
  kMedia,        ///< video, sound or picture
  kText,         ///< printable text of no kind above
};

/// Looks at the first and the last bytes of a file; kUnknown for what is not a regular file or cannot be
/// read. It says what a file was meant to be: it need not be whole.
[[nodiscard]] FileKind file_kind(const std::filesystem::path& path);

/// "an HTML page", "a NumPy archive (.npz)"; "" for kUnknown.
[[nodiscard]] std::string_view describe(FileKind kind);

/// What to do with a file of this kind where another is expected, "git lfs pull fetches the file itself"; ""
/// where that is plain.
[[nodiscard]] std::string_view what_to_do_with(FileKind kind);

/// Why `path` is not of the `wanted` kind and what to do, for a message that begins with the path: "is an
/// HTML page, where a packed dataset (.h5) was expected; a login or error page was saved under this name:
/// download the file again". Empty for `wanted` itself, which is damaged then, and for kUnknown: the reader
/// says why.
[[nodiscard]] std::string mistaken_kind(const std::filesystem::path& path, FileKind wanted);

}  // namespace voca::engine
