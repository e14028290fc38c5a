#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>

#include "engine/core/matrix_products.h"

// What a GPU's matrix products remember from run to run: the algorithm found for each, on disk. Nothing here
// knows a library or a GPU; docs/determinism.md says what follows from it.

namespace voca::engine {

/// What an algorithm is valid for beside its product. Another of any of these is another cache.
struct ProductLibrary {
  std::string device;         ///< "NVIDIA A800-SXM4-80GB"
  std::string capability;     ///< "8.0"
  int driver = 0;             ///< as CUDA counts: 12020 is 12.2
  std::uint64_t library = 0;  ///< cublasLtGetVersion()
};

/// An algorithm as the library describes it: opaque, valid for one version of it.
using Algorithm = std::array<std::uint64_t, 8>;

/// In hexadecimal digits, and back; throws DataError when it is not what the other wrote.
[[nodiscard]] std::string text_of(const Algorithm& algorithm);
[[nodiscard]] Algorithm algorithm_of(const std::string& text);

struct ChosenAlgorithm {
  Algorithm algorithm{};
  double microseconds = 0;      ///< of one product, when it was chosen
  std::int64_t candidates = 0;  ///< that it was chosen from
  [[nodiscard]] bool operator==(const ChosenAlgorithm&) const = default;
};

/// Everything an algorithm depends on, and nothing else, in one line:
/// "bfloat16 nt 512x768x256 ld 256 256 768 bias batch 1 align 16".
[[nodiscard]] std::string product_key(const MatrixProduct& product, bool allow_tf32);

/// The number of the candidate to take by its time, in the order in which the library proposes them: the
/// first unless another is faster by more than 2 %, so that noise seldom decides. A time that is not finite
/// is a candidate that failed. Empty when all did.
[[nodiscard]] std::optional<std::size_t> choose_candidate(std::span<const double> microseconds);

/// One file of algorithms. It is read when it is made and written by save(); a process that is killed leaves
/// the old one.
class AlgorithmCache {
 public:
  /// `folder` empty keeps nothing on disk.
  AlgorithmCache(const std::filesystem::path& folder, ProductLibrary library);

  /// $XDG_CACHE_HOME/voca-engine, ~/.cache/voca-engine, or empty where neither is set.
  [[nodiscard]] static std::filesystem::path default_folder();

  [[nodiscard]] const ChosenAlgorithm* find(const std::string& key) const;
  void insert(const std::string& key, const ChosenAlgorithm& chosen);
  /// Writes what was inserted beside what the file holds by now; one process at a time, so that nothing of
  /// another's is lost. Of two that found an algorithm for one product the first to write is right, and the
  /// other's object takes it over too. A folder that cannot be written costs the next run its tuning and
  /// nothing else: it is a message.
  void save();

  [[nodiscard]] std::size_t size() const { return chosen_.size(); }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  /// One line, for people, when the file was there and is not used: damaged, or of another library; or could
  /// not be written. Empty otherwise.
  [[nodiscard]] const std::string& message() const { return message_; }

 private:
  using Table = std::map<std::string, ChosenAlgorithm>;
  [[nodiscard]] std::optional<Table> read_file();
  void write_file() const;

  ProductLibrary library_;
  std::filesystem::path path_;  // empty: nothing on disk
  Table chosen_;
  bool changed_ = false;
  std::string message_;
};

}  // namespace voca::engine
