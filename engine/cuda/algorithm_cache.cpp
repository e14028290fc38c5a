#include "engine/cuda/algorithm_cache.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>

#include <cerrno>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "engine/base/atomic_file.h"
#include "engine/base/digest.h"
#include "engine/base/error.h"
#include "engine/base/json.h"
#include "engine/base/unique_fd.h"

namespace voca::engine {
namespace {

using nlohmann::ordered_json;

constexpr int kFormat = 1;
constexpr std::size_t kMaxBytes = std::size_t{16} << 20;
constexpr double kWorthwhile = 0.98;

/// Lock held while the file is read, merged and written. Without lock support in the file system there is no
/// lock, and the wait for a stopped lock holder is bounded.
class CacheLock {
 public:
  explicit CacheLock(std::filesystem::path path)
      : file_(::open((path += ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)) {
    constexpr int kTries = 1000;
    constexpr std::chrono::milliseconds kPause(10);
    for (int i = 0; i < kTries && file_.get() >= 0 && ::flock(file_.get(), LOCK_EX | LOCK_NB) != 0; ++i) {
      if (errno != EWOULDBLOCK && errno != EINTR) return;
      std::this_thread::sleep_for(kPause);
    }
  }

 private:
  UniqueFd file_;
};

ordered_json describe(const GemmLibraryVersion& library) {
  return {{"device", library.device},
          {"capability", library.capability},
          {"driver", library.driver},
          {"library", library.library}};
}

}  // namespace

std::string text_of(const Algorithm& algorithm) {
  std::string text;
  for (const std::uint64_t word : algorithm) text += fmt::format("{:016x}", word);
  return text;
}

Algorithm algorithm_of(const std::string& text) {
  constexpr std::size_t kDigits = 16;
  Algorithm algorithm{};
  if (text.size() != kDigits * algorithm.size()) throw DataError("an algorithm has {} digits", text.size());
  for (std::size_t i = 0; i < algorithm.size(); ++i) {
    const char* const begin = text.data() + kDigits * i;
    const auto [end, error] = std::from_chars(begin, begin + kDigits, algorithm[i], 16);
    if (error != std::errc{} || end != begin + kDigits) throw DataError("an algorithm is not hexadecimal");
  }
  return algorithm;
}

std::string gemm_key(const LibraryGemm& p, bool allow_tf32) {
  const auto letter = [](kernels::Transpose transpose) {
    return transpose == kernels::Transpose::kYes ? 't' : 'n';
  };
  std::string key = fmt::format("{}{} {}{} {}x{}x{} ld {} {} {}", name_of(p.dtype),
                                allow_tf32 && p.dtype == DType::kF32 ? " as tf32" : "", letter(p.transpose_a),
                                letter(p.transpose_b), p.m, p.n, p.k, p.lda, p.ldb, p.ldc);
  if (p.add_bias) key += " bias";
  if (p.beta != 0) key += " accumulate";
  key += fmt::format(" batch {}", p.batch);
  if (p.batch > 1) key += fmt::format(" stride {} {} {}", p.stride_a, p.stride_b, p.stride_c);
  return key + fmt::format(" align {}", p.alignment);
}

std::optional<std::size_t> choose_candidate(std::span<const double> microseconds) {
  std::optional<std::size_t> first;
  std::optional<std::size_t> best;
  for (std::size_t i = 0; i < microseconds.size(); ++i) {
    if (!std::isfinite(microseconds[i])) continue;
    if (!first) first = i;
    if (!best || microseconds[i] < microseconds[*best]) best = i;
  }
  if (!best) return std::nullopt;
  return microseconds[*best] < kWorthwhile * microseconds[*first] ? best : first;
}

AlgorithmCache::AlgorithmCache(const std::filesystem::path& folder, GemmLibraryVersion library)
    : library_(std::move(library)) {
  if (folder.empty()) return;
  const std::string name = sha256_hex(describe(library_).dump()).substr(0, 16);
  path_ = folder / fmt::format("matrix_products_{}.json", name);
  if (std::optional<Table> table = read_file()) chosen_ = std::move(*table);
}

std::filesystem::path AlgorithmCache::default_folder() {
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache == '/')
    return std::filesystem::path(cache) / "voca-engine";
  if (const char* home = std::getenv("HOME"); home != nullptr && *home == '/')
    return std::filesystem::path(home) / ".cache" / "voca-engine";
  return {};
}

/// Returns nullopt if the file is absent or unusable; message() says why.
std::optional<AlgorithmCache::Table> AlgorithmCache::read_file() {
  std::error_code error;
  if (!std::filesystem::exists(path_, error)) return std::nullopt;
  try {
    const ordered_json file = parse_json(read_text_file(path_, kMaxBytes), "its content");
    if (file.at("format").get<int>() != kFormat) throw DataError("it is of another version");
    if (file.at("for") != describe(library_)) throw DataError("it is of another GPU or library");
    const ordered_json& products = file.at("products");
    if (file.at("digest").get<std::string>() != sha256_hex(products.dump()))
      throw DataError("its digest does not hold");
    Table table;
    for (const auto& [key, entry] : products.items()) {
      table[key] = {.algorithm = algorithm_of(entry.at("algorithm").get<std::string>()),
                    .microseconds = entry.at("microseconds").get<double>(),
                    .candidates = entry.at("candidates").get<std::int64_t>()};
    }
    return table;
  } catch (const Error& damage) {
    message_ = fmt::format("{}: not used: {}; algorithms are tuned again", path_.string(), damage.what());
  } catch (const nlohmann::json::exception& damage) {
    message_ = fmt::format("{}: not used: {}; algorithms are tuned again", path_.string(), damage.what());
  }
  return std::nullopt;
}

const ChosenAlgorithm* AlgorithmCache::find(const std::string& key) const {
  const auto entry = chosen_.find(key);
  return entry == chosen_.end() ? nullptr : &entry->second;
}

void AlgorithmCache::insert(const std::string& key, const ChosenAlgorithm& chosen) {
  chosen_[key] = chosen;
  changed_ = true;
}

void AlgorithmCache::save() {
  if (path_.empty() || !changed_) return;
  try {
    std::error_code error;
    std::filesystem::create_directories(path_.parent_path(), error);
    const CacheLock lock(path_);
    if (const std::optional<Table> table = read_file()) {
      for (const auto& [key, chosen] : *table) chosen_[key] = chosen;
    }
    write_file();
    changed_ = false;
  } catch (const IoError& failure) {
    message_ = fmt::format("{}; the next run tunes its algorithms again", failure.what());
  }
}

void AlgorithmCache::write_file() const {
  ordered_json products = ordered_json::object();
  for (const auto& [key, chosen] : chosen_) {
    products[key] = {{"algorithm", text_of(chosen.algorithm)},
                     {"microseconds", chosen.microseconds},
                     {"candidates", chosen.candidates}};
  }
  const ordered_json file{{"format", kFormat},
                          {"for", describe(library_)},
                          {"digest", sha256_hex(products.dump())},
                          {"products", products}};
  write_file_atomically(path_, json_text(file, 2) + "\n");
}

}  // namespace voca::engine
