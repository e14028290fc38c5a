// Packs a feature tree, and compares that with its unavoidable parts in the same run: inflating the arrays
// (of a compressed tree), and writing the packed bytes to the same disk. Warm page cache. Prints one line of
// JSON.

#include <fcntl.h>
#include <isa-l/igzip_lib.h>
#include <unistd.h>
#include <zip.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "benchmarks/support/options.h"
#include "benchmarks/support/statistics.h"
#include "benchmarks/support/tree.h"
#include "data/packed/pack.h"
#include "data/tree/feature_tree.h"
#include "data/tree/parallel.h"

namespace {

using namespace voca;
using benchmarks::Clock;
using Bytes = std::vector<std::uint8_t>;

/// Embeddings of one file, as stored in the archive.
struct Deflated {
  Bytes bytes;
  std::size_t size = 0;  ///< inflated size in bytes
};

Deflated read_deflated(const std::filesystem::path& path) {
  int error = 0;
  zip_t* const archive = zip_open(path.c_str(), ZIP_RDONLY, &error);
  if (archive == nullptr) throw std::runtime_error(path.string() + ": cannot be opened");
  zip_stat_t stat;
  zip_stat_init(&stat);
  Deflated result;
  if (zip_stat(archive, "embeddings.npy", 0, &stat) == 0) {
    zip_file_t* const file = zip_fopen_index(archive, stat.index, ZIP_FL_COMPRESSED);
    result.bytes.resize(stat.comp_size);
    result.size = stat.size;
    const zip_int64_t count = zip_fread(file, result.bytes.data(), result.bytes.size());
    zip_fclose(file);
    if (count != static_cast<zip_int64_t>(stat.comp_size)) result.bytes.clear();
  }
  zip_discard(archive);
  if (result.bytes.empty()) throw std::runtime_error(path.string() + ": cannot be read");
  return result;
}

std::vector<Deflated> read_all_deflated(const data::FeatureTree& tree) {
  std::vector<Deflated> files;
  for (const data::VideoFolder& video : tree.videos) {
    for (const data::Stream stream : data::kStreams)
      files.push_back(read_deflated(data::stream_file(video, stream)));
  }
  return files;
}

/// Milliseconds to inflate everything from memory with isa-l; the output is discarded.
double inflate_ms(const std::vector<Deflated>& files, int workers) {
  const auto start = Clock::now();
  data::for_each_index(static_cast<std::int64_t>(files.size()), workers, [&](std::int64_t i) {
    thread_local Bytes out;
    const Deflated& file = files[static_cast<std::size_t>(i)];
    if (out.size() < file.size) out.resize(file.size);
    inflate_state state;
    isal_inflate_init(&state);
    state.next_in = const_cast<std::uint8_t*>(file.bytes.data());
    state.avail_in = static_cast<std::uint32_t>(file.bytes.size());
    state.next_out = out.data();
    state.avail_out = static_cast<std::uint32_t>(out.size());
    if (isal_inflate_stateless(&state) != ISAL_DECOMP_OK) throw std::runtime_error("cannot inflate");
  });
  return benchmarks::milliseconds_since(start);
}

/// Milliseconds to write as many bytes as a packed file has, one video at a time, and to sync them.
double write_ms(const std::filesystem::path& path, std::int64_t bytes) {
  const Bytes piece(std::size_t{600} << 10, 0x5A);
  const auto start = Clock::now();
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  for (std::int64_t at = 0; at < bytes;) {
    const auto count = std::min(bytes - at, static_cast<std::int64_t>(piece.size()));
    const ssize_t written = ::write(file, piece.data(), static_cast<std::size_t>(count));
    if (written <= 0) throw std::runtime_error(path.string() + ": cannot be written");
    at += written;
  }
  if (::fsync(file) != 0) throw std::runtime_error(path.string() + ": cannot be synced");
  const double elapsed = benchmarks::milliseconds_since(start);
  ::close(file);
  std::filesystem::remove(path);
  return elapsed;
}

}  // namespace

int main(int argc, char** argv) {
  benchmarks::Tree tree;
  std::int64_t threads = 2;
  std::int64_t repeats = 5;
  tools::OptionSet options("pack_bench", "packing a feature tree");
  tree.add_to(options);
  options.add(threads, {"workers", "N", "threads"});
  options.add(repeats, {"repeats", "N", "times taken"});
  if (!benchmarks::parse(options, argc, argv, tree.work)) return 0;
  const int workers = static_cast<int>(threads);
  tree.make();

  data::PackOptions pack;
  pack.features_root = tree.path();
  pack.out = tree.folder() / "packed.h5";
  pack.num_workers = workers;
  data::PackReport report = data::pack_features(pack);  // warms the page cache
  const std::vector<Deflated> files =
      tree.compressed ? read_all_deflated(data::scan_feature_tree(tree.path())) : std::vector<Deflated>{};
  std::vector<double> pack_times;
  std::vector<double> inflate_times;
  std::vector<double> write_times;
  std::vector<double> shares;
  for (std::int64_t i = 0; i < repeats; ++i) {
    std::filesystem::remove(pack.out);  // freeing the blocks of an old file is not part of packing
    const auto start = Clock::now();
    report = data::pack_features(pack);
    pack_times.push_back(benchmarks::milliseconds_since(start));
    inflate_times.push_back(tree.compressed ? inflate_ms(files, workers) : 0);
    write_times.push_back(write_ms(tree.folder() / "written", report.bytes_written));
    // Both could overlap: the slower of them is a lower bound for packing.
    shares.push_back(std::max(inflate_times.back(), write_times.back()) / pack_times.back());
  }
  std::filesystem::remove(pack.out);
  nlohmann::ordered_json result;
  result["what"] = "packing a feature tree, voca-engine, warm cache";
  result["tree"] = tree.compressed ? "deflated" : "stored";
  result["videos"] = report.packed;
  result["bytes_read"] = report.bytes_read;
  result["bytes_written"] = report.bytes_written;
  result["workers"] = workers;
  result["pack_ms"] = pack_times;
  result["inflate_ms"] = inflate_times;
  result["write_and_sync_ms"] = write_times;
  result["share_of_floor"] = shares;
  result["median_share_of_floor"] = benchmarks::median(shares);
  result["pack_gb_per_s"] = static_cast<double>(report.bytes_written) / benchmarks::median(pack_times) / 1e6;
  std::printf("%s\n", result.dump().c_str());
  return 0;
}
