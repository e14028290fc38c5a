#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>

#include "engine/core/gemm_library.h"

// On-disk cache of the GEMM algorithms tuned on a GPU. Independent of any GPU library; docs/determinism.md
// explains the consequences.

namespace voca::engine {

/// Device and library for which an algorithm is valid. If any field differs, a different cache is used.
struct GemmLibraryVersion {
  std::string device;         ///< "NVIDIA A800-SXM4-80GB"
  std::string capability;     ///< "8.0"
  int driver = 0;             ///< as CUDA counts: 12020 is 12.2
  std::uint64_t library = 0;  ///< cublasLtGetVersion()
};

/// An algorithm in the library's opaque form, valid for one library version.
using Algorithm = std::array<std::uint64_t, 8>;

/// Conversion to and from hexadecimal digits; algorithm_of() throws DataError if the text is not from
/// text_of().
[[nodiscard]] std::string text_of(const Algorithm& algorithm);
[[nodiscard]] Algorithm algorithm_of(const std::string& text);

struct ChosenAlgorithm {
  Algorithm algorithm{};
  double microseconds = 0;      ///< of one GEMM, when it was chosen
  std::int64_t candidates = 0;  ///< number from which it was chosen
  [[nodiscard]] bool operator==(const ChosenAlgorithm&) const = default;
};

/// Everything on which an algorithm depends, in one line: "bfloat16 nt 512x768x256 ld 256 256 768 bias batch
/// 1 align 16".
[[nodiscard]] std::string gemm_key(const LibraryGemm& gemm, bool allow_tf32);

/// Index of the best candidate by time. Candidates are in the order in which the library proposes them: the
/// first wins unless another is more than 2 % faster, so that noise rarely decides. A non-finite time marks a
/// failed candidate. nullopt if all failed.
[[nodiscard]] std::optional<std::size_t> choose_candidate(std::span<const double> microseconds);

/// One file of algorithms, read by the constructor and replaced atomically by save().
class AlgorithmCache {
 public:
  /// If `folder` is empty, nothing is stored on disk.
  AlgorithmCache(const std::filesystem::path& folder, GemmLibraryVersion library);

  /// $XDG_CACHE_HOME/voca-engine, ~/.cache/voca-engine, or empty if neither variable is set.
  [[nodiscard]] static std::filesystem::path default_folder();

  [[nodiscard]] const ChosenAlgorithm* find(const std::string& key) const;
  void insert(const std::string& key, const ChosenAlgorithm& chosen);
  /// Merges the inserted algorithms into the file, under a lock, so that no other process's entries are lost.
  /// If two processes tuned the same GEMM, the first writer's algorithm wins, and this object adopts it too.
  /// An unwritable folder only makes the next run tune again: it is reported by message().
  void save();

  [[nodiscard]] std::size_t size() const { return chosen_.size(); }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  /// One line for people if the file exists but was not used (damaged, or from another library) or could not
  /// be written. Empty otherwise.
  [[nodiscard]] const std::string& message() const { return message_; }

 private:
  using Table = std::map<std::string, ChosenAlgorithm>;
  [[nodiscard]] std::optional<Table> read_file();
  void write_file() const;

  GemmLibraryVersion library_;
  std::filesystem::path path_;  // empty: nothing on disk
  Table chosen_;
  bool changed_ = false;
  std::string message_;
};

}  // namespace voca::engine
