// Assembles training batches from a packed dataset in a warm page cache. benchmarks/rivals/load_numpy.py
// times np.load of the same videos in the same run of benchmarks/compare_load.sh. Prints one line of JSON.

#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "benchmarks/support/options.h"
#include "benchmarks/support/statistics.h"
#include "benchmarks/support/tree.h"
#include "data/batches/batch_source.h"
#include "data/packed/dataset.h"
#include "data/packed/pack.h"

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

/// Milliseconds per batch. The first epoch is not timed: it warms the cache and verifies every video.
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
  benchmarks::Tree tree;
  std::int64_t batch_size = 64;
  std::int64_t seq_len = 256;
  std::int64_t epochs = 4;
  std::int64_t workers = 2;
  tools::OptionSet options("load_bench", "batches of a packed dataset");
  tree.add_to(options);
  options.add(batch_size, {"batch_size", "N", "samples a batch"});
  options.add(seq_len, {"seq_len", "N", "frames a sample"});
  options.add(epochs, {"epochs", "N", "timed"});
  options.add(workers, {"workers", "N", "threads of the cases with workers"});
  if (!benchmarks::parse(options, argc, argv, tree.work)) return 0;
  tree.make();
  nlohmann::ordered_json result;
  result["what"] = "a training batch from a packed dataset, voca-engine, warm cache";
  result["batch_size"] = batch_size;
  result["seq_len"] = seq_len;
  result["cases"] = nlohmann::ordered_json::array();
  const int threads = static_cast<int>(workers);
  const Case cases[] = {{"fp32", data::Residency::kDisk, 0},
                        {"fp32", data::Residency::kDisk, threads},
                        {"fp32", data::Residency::kHost, 0},
                        {"fp32", data::Residency::kHost, threads},
                        {"fp16", data::Residency::kHost, threads}};
  for (const Case& one : cases) {
    const auto dataset = open_packed(tree.path(), tree.folder() / (std::string(one.dtype) + ".h5"),
                                     engine::value_named<data::PackType>(one.dtype).value());
    const auto times = time_batches(dataset, one, batch_size, seq_len, epochs);
    const double bytes =
        static_cast<double>(batch_size * seq_len) *
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
