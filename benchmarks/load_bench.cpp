// Assembling training batches from a packed dataset in a warm page cache. What np.load of the same videos
// costs in the same run of benchmarks/compare_load.sh is benchmarks/rivals/load_numpy.py. Prints one line of
// JSON.

#include <cstdio>
#include <cxxopts.hpp>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "benchmarks/support/statistics.h"
#include "benchmarks/support/tree.h"
#include "data/batch_source.h"
#include "data/dataset.h"
#include "data/pack.h"

namespace {

using namespace voca;
using benchmarks::Clock;

std::shared_ptr<const data::Dataset> open_packed(const std::filesystem::path& tree,
                                                 const std::filesystem::path& file, data::PackType type) {
  if (!std::filesystem::exists(file)) {
    data::PackOptions options;
    options.features_root = tree;
    options.out = file;
    options.dtype = type;
    data::pack_features(options);
  }
  return std::make_shared<const data::Dataset>(file);
}

struct Case {
  const char* dtype;
  data::Residency residency;
  int num_workers;
};

/// Milliseconds a batch. The first epoch is not timed: it warms the cache and verifies every video.
std::vector<double> time_batches(const std::shared_ptr<const data::Dataset>& dataset, const Case& one,
                                 std::int64_t batch_size, std::int64_t seq_len, std::int64_t epochs) {
  std::vector<std::int64_t> samples(static_cast<std::size_t>(dataset->size()));
  std::iota(samples.begin(), samples.end(), 0);
  data::BatchSourceOptions options;
  options.sampler.seed = 1;
  options.sampler.batch_size = batch_size;
  options.seq_len = seq_len;
  options.residency = one.residency;
  options.num_workers = one.num_workers;
  data::PackedBatchSource source(dataset, samples, options);
  std::vector<double> times;
  for (std::int64_t epoch = 0; epoch <= epochs; ++epoch) {
    source.start_epoch(epoch, 0);
    auto start = Clock::now();
    while (source.next() != nullptr) {
      if (epoch > 0) times.push_back(benchmarks::milliseconds_since(start));
      start = Clock::now();
    }
  }
  return times;
}

}  // namespace

int main(int argc, char** argv) {
  cxxopts::Options options("load_bench", "Batches of a packed dataset");
  const auto integer = [](const char* value) { return cxxopts::value<std::int64_t>()->default_value(value); };
  options.add_options()("work", "folder for the tree and the packed files", cxxopts::value<std::string>())(
      "compressed", "the tree as np.savez_compressed writes it")("videos", "", integer("192"))(
      "batch_size", "", integer("64"))("seq_len", "", integer("256"))("epochs", "timed", integer("4"))(
      "workers", "threads of the cases with workers", integer("2"));
  const auto arguments = options.parse(argc, argv);
  const auto get = [&](const char* name) { return arguments[name].as<std::int64_t>(); };
  const std::filesystem::path work = arguments["work"].as<std::string>();
  const bool compressed = arguments.count("compressed") > 0;
  const std::filesystem::path tree = work / (compressed ? "tree-compressed" : "tree-stored");
  benchmarks::make_tree(tree, get("videos"), compressed);
  const int workers = static_cast<int>(get("workers"));
  nlohmann::ordered_json result;
  result["what"] = "a training batch from a packed dataset, voca-engine, warm cache";
  result["batch_size"] = get("batch_size");
  result["seq_len"] = get("seq_len");
  result["cases"] = nlohmann::ordered_json::array();
  const Case cases[] = {{"fp32", data::Residency::kDisk, 0},
                        {"fp32", data::Residency::kDisk, workers},
                        {"fp32", data::Residency::kHost, 0},
                        {"fp32", data::Residency::kHost, workers},
                        {"fp16", data::Residency::kHost, workers}};
  for (const Case& one : cases) {
    const auto dataset =
        open_packed(tree, work / (std::string(one.dtype) + ".h5"), data::parse_pack_type(one.dtype));
    const auto times = time_batches(dataset, one, get("batch_size"), get("seq_len"), get("epochs"));
    const double bytes =
        static_cast<double>(get("batch_size") * get("seq_len")) *
        static_cast<double>(dataset->dim(data::Stream::kVisual) + dataset->dim(data::Stream::kAudio)) * 4.0;
    result["batch_bytes"] = bytes;
    result["cases"].push_back({{"dtype", one.dtype},
                               {"residency", one.residency == data::Residency::kHost ? "host" : "disk"},
                               {"num_workers", one.num_workers},
                               {"ms_per_batch", times},
                               {"median_ms", benchmarks::median(times)},
                               {"gb_per_s", bytes / benchmarks::median(times) / 1e6}});
  }
  std::printf("%s\n", result.dump().c_str());
  return 0;
}
