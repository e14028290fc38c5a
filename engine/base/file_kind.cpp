#include "engine/base/file_kind.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "engine/base/unique_fd.h"

namespace voca::engine {
namespace {

using namespace std::string_view_literals;

constexpr std::size_t kStartBytes = 4096;
/// A zip archive's directory is at its end; this covers hundreds of entry names.
constexpr std::size_t kEndBytes = std::size_t{64} << 10;
constexpr std::size_t kTarMagicAt = 257;
constexpr std::size_t kSafetensorsLength = 8;  // size of the header-length field before the header's brace

constexpr std::size_t kMinText = 4;  // a shorter file is not classified as text

/// First and last bytes of a file.
struct Edges {
  std::string start;
  std::string end;
};

std::string read_at(int descriptor, std::size_t count, off_t at) {
  std::string bytes(count, '\0');
  const ssize_t got = ::pread(descriptor, bytes.data(), count, at);
  bytes.resize(got < 0 ? 0 : static_cast<std::size_t>(got));
  return bytes;
}

struct Magic {
  std::string_view bytes;
  std::size_t at;
  FileKind kind;
};
constexpr std::array kMagics{
    Magic{"\x89HDF\r\n\x1a\n"sv, 0, FileKind::kHdf5}, Magic{"\x93NUMPY"sv, 0, FileKind::kNpy},
    Magic{"VOCARES"sv, 0, FileKind::kResumeState},  // of earlier versions
    // PyTorch's magic number as a protocol-2 pickle, with which torch.save before 1.6 began every file.
    Magic{"\x80\x02\x8a\x0al\xfc\x9c\x46\xf9"sv, 0, FileKind::kLegacyTorch},
    Magic{"version https://git-lfs"sv, 0, FileKind::kLfsPointer}, Magic{"\x1f\x8b"sv, 0, FileKind::kGzip},
    Magic{"ustar"sv, kTarMagicAt, FileKind::kTar},
    Magic{"\xfd"
          "7zXZ\0"sv,
          0, FileKind::kXz},
    Magic{"\x28\xb5\x2f\xfd"sv, 0, FileKind::kZstd}, Magic{"BZh"sv, 0, FileKind::kBzip2},
    Magic{"7z\xbc\xaf\x27\x1c"sv, 0, FileKind::k7z}, Magic{"Rar!\x1a\x07"sv, 0, FileKind::kRar},
    Magic{"ftyp"sv, 4, FileKind::kMedia},              // .mp4, .mov, .m4a
    Magic{"RIFF"sv, 0, FileKind::kMedia},              // .wav, .avi
    Magic{"\x1a\x45\xdf\xa3"sv, 0, FileKind::kMedia},  // .mkv, .webm
    Magic{"ID3"sv, 0, FileKind::kMedia},               // .mp3
    Magic{"fLaC"sv, 0, FileKind::kMedia}, Magic{"OggS"sv, 0, FileKind::kMedia},
    Magic{"\x89PNG"sv, 0, FileKind::kMedia}, Magic{"\xff\xd8\xff"sv, 0, FileKind::kMedia},  // .jpg
};

bool is_text(std::string_view bytes) {
  return std::none_of(bytes.begin(), bytes.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte < 0x20 && c != '\n' && c != '\r' && c != '\t' && c != '\f';
  });
}

bool starts_with_word(std::string_view text, std::string_view lower) {
  return text.size() >= lower.size() &&
         std::equal(lower.begin(), lower.end(), text.begin(), [](char expected, char found) {
           return expected == std::tolower(static_cast<unsigned char>(found));
         });
}

FileKind kind_of_zip(const Edges& file) {
  // Entry names are in the directory at the end; a truncated file has only its first ones, in local headers.
  const auto names = [&](std::string_view part) {
    return file.end.find(part) != std::string::npos || file.start.find(part) != std::string::npos;
  };
  if (names("data.pkl"sv) || names("constants.pkl"sv)) return FileKind::kTorch;
  return names(".npy"sv) ? FileKind::kNpz : FileKind::kZip;
}

FileKind kind_of_text(std::string_view text) {
  if (text.starts_with("\xef\xbb\xbf"sv)) text.remove_prefix(3);
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return FileKind::kText;
  text.remove_prefix(first);
  for (const std::string_view page : {"<!doctype html"sv, "<html"sv, "<head"sv, "<body"sv, "<?xml"sv})
    if (starts_with_word(text, page)) return FileKind::kHtml;
  return text.front() == '{' || text.front() == '[' ? FileKind::kJson : FileKind::kText;
}

FileKind kind_of(const Edges& file) {
  const std::string_view start = file.start;
  if (start.empty()) return FileKind::kEmpty;
  for (const Magic& magic : kMagics)
    if (start.size() > magic.at && start.substr(magic.at).starts_with(magic.bytes)) return magic.kind;
  if (start.starts_with("PK\x03\x04"sv) || start.starts_with("PK\x05\x06"sv)) return kind_of_zip(file);
  // The header length is small, so its upper bytes are zeros, which no text contains.
  if (start.size() > kSafetensorsLength && start.substr(5, 3) == "\0\0\0"sv) {
    const std::size_t first = start.find_first_not_of(" \t\r\n", kSafetensorsLength);
    if (first != std::string_view::npos && start[first] == '{') {
      // The metadata of a state is first in the file.
      const bool is_state = start.find(fmt::format("\"{}\":", kResumeStateKey)) != std::string_view::npos;
      return is_state ? FileKind::kResumeState : FileKind::kSafetensors;
    }
  }
  if (start.size() > 2 && start[0] == '\x80' && start[1] >= 2 && start[1] <= 5) return FileKind::kPickle;
  return start.size() >= kMinText && is_text(start) ? kind_of_text(start) : FileKind::kUnknown;
}

constexpr std::string_view kUnpack = "unpack it and name what was in it";
constexpr std::string_view kWeights = "--checkpoint and --init_from take weights";

/// A kind in words.
struct Words {
  FileKind kind = FileKind::kUnknown;
  std::string_view description{};
  std::string_view what_to_do{};
};
constexpr std::array kWords{
    Words{FileKind::kEmpty, "an empty file (0 bytes)", "copy or download it again"},
    Words{FileKind::kHdf5, "an HDF5 file", "--features_root takes a packed dataset"},
    Words{FileKind::kTorch, "a PyTorch file (.pt)", kWeights},
    Words{FileKind::kNpz, "a NumPy archive (.npz)",
          "--features_root takes the folder of a feature tree or of a video, pack makes a packed dataset"},
    Words{FileKind::kNpy, "a NumPy array (.npy)",
          "an extractor's arrays belong into <video>/visual_embeddings.npz and audio_embeddings.npz"},
    Words{FileKind::kSafetensors, "a safetensors file", kWeights},
    Words{FileKind::kResumeState, "a resume state", "--resume takes it; the checkpoint is the run's .pt"},
    Words{FileKind::kLegacyTorch, "a file in the form of PyTorch before 1.6 (not a zip)",
          "load it in PyTorch and torch.save it again"},
    Words{FileKind::kPickle, "a bare pickle (.pkl)",
          "nothing of it was run; save the weights with torch.save(model.state_dict(), ...)"},
    Words{FileKind::kLfsPointer, "a Git LFS pointer, not the file itself",
          "git lfs pull fetches the file itself"},
    Words{FileKind::kHtml, "an HTML page",
          "a login or error page was saved under this name: download the file again"},
    Words{FileKind::kJson, "JSON text", "--config takes options, inspect a run folder"},
    Words{FileKind::kZip, "a zip archive without data.pkl or arrays", kUnpack},
    Words{FileKind::kGzip, "a gzip file", kUnpack},
    Words{FileKind::kTar, "a tar archive", kUnpack},
    Words{FileKind::kXz, "an xz file", kUnpack},
    Words{FileKind::kZstd, "a Zstandard file", kUnpack},
    Words{FileKind::kBzip2, "a bzip2 file", kUnpack},
    Words{FileKind::k7z, "a 7z archive", kUnpack},
    Words{FileKind::kRar, "a RAR archive", kUnpack},
    Words{FileKind::kMedia, "a video, sound or picture file", "features are extracted from it first"},
    Words{FileKind::kText, "plain text", ""},
};

Words words_of(FileKind kind) {
  const auto* const found =
      std::find_if(kWords.begin(), kWords.end(), [&](const Words& words) { return words.kind == kind; });
  return found == kWords.end() ? Words{} : *found;
}

/// A kind as the expectation of a reader.
std::string_view needed(FileKind kind) {
  if (kind == FileKind::kHdf5) return "a packed dataset (.h5)";
  if (kind == FileKind::kTorch) return "a PyTorch .pt (a zip archive)";
  return describe(kind);
}

}  // namespace

FileKind file_kind(const std::filesystem::path& path) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat status {};
  if (file.get() < 0 || ::fstat(file.get(), &status) != 0 || !S_ISREG(status.st_mode))
    return FileKind::kUnknown;
  const auto size = static_cast<std::size_t>(status.st_size);
  const std::size_t end = std::min(size, kEndBytes);
  Edges edges{read_at(file.get(), std::min(size, kStartBytes), 0), {}};
  if (size > 0 && edges.start.empty()) return FileKind::kUnknown;  // unreadable
  edges.end = read_at(file.get(), end, static_cast<off_t>(size - end));
  return kind_of(edges);
}

std::string_view describe(FileKind kind) {
  return words_of(kind).description;
}

std::string_view what_to_do_with(FileKind kind) {
  return words_of(kind).what_to_do;
}

std::string mistaken_kind(const std::filesystem::path& path, FileKind wanted) {
  const FileKind kind = file_kind(path);
  if (kind == FileKind::kUnknown || kind == wanted) return {};
  const std::string_view what_to_do = what_to_do_with(kind);
  return fmt::format("is {}, where {} was expected{}{}", describe(kind), needed(wanted),
                     what_to_do.empty() ? "" : "; ", what_to_do);
}

}  // namespace voca::engine
