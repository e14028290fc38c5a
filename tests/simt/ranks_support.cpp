#include "tests/simt/ranks_support.h"

#include <chrono>
#include <cmath>
#include <exception>
#include <thread>
#include <utility>

#include "engine/comm/nccl_communicator.h"
#include "engine/core/element.h"
#include "engine/core/host_tensor.h"
#include "engine/rendezvous/memory_store.h"
#include "tests/simt/tested_device.h"
#if defined(VOCA_TEST_CUDA)
#include "engine/cuda/communication_stream.h"
#else
#include "tests/simt/nccl_double.h"
#endif

namespace voca::simt::host {
namespace {

using engine::Communicator;
using engine::Tensor;

class Logged final : public Communicator {
 public:
  Logged(std::unique_ptr<Communicator> ranks, CollectiveLog& log) : ranks_(std::move(ranks)), log_(log) {}
  [[nodiscard]] int rank() const override { return ranks_->rank(); }
  [[nodiscard]] int world_size() const override { return ranks_->world_size(); }
  void all_reduce_sum(const char* name, Tensor data, engine::Stream stream) override {
    count(name);
    ranks_->all_reduce_sum(name, data, stream);
  }
  void all_gather_rows(const char* name, const Tensor& part, std::span<const std::int64_t> rows_by_rank,
                       Tensor all, engine::Stream stream) override {
    count(name);
    ranks_->all_gather_rows(name, part, rows_by_rank, all, stream);
  }
  void broadcast(const char* name, Tensor data, int root, engine::Stream stream) override {
    count(name);
    ranks_->broadcast(name, data, root, stream);
  }
  void barrier(const char* name) override {
    count(name);
    ++log_.host_calls[name];
    ranks_->barrier(name);
  }
  [[nodiscard]] std::vector<double> all_gather_values(const char* name,
                                                      std::span<const double> mine) override {
    count(name);
    ++log_.host_calls[name];
    return ranks_->all_gather_values(name, mine);
  }
  void abort() noexcept override { ranks_->abort(); }

 private:
  void count(const char* name) {
    if (log_.count++ == log_.fail_at) throw FailedOnPurpose(fmt::format("fails before {}", name));
  }

  std::unique_ptr<Communicator> ranks_;
  CollectiveLog& log_;
};

/// Records the samples of each batch.
class Written final : public engine::BatchSource {
 public:
  Written(std::unique_ptr<engine::BatchSource> source, std::vector<std::vector<std::int64_t>>& batches)
      : source_(std::move(source)), batches_(batches) {}
  [[nodiscard]] std::int64_t samples_per_epoch() const override { return source_->samples_per_epoch(); }
  [[nodiscard]] std::int64_t batches_per_epoch() const override { return source_->batches_per_epoch(); }
  [[nodiscard]] std::int64_t max_batch_size() const override { return source_->max_batch_size(); }
  void start_epoch(std::int64_t epoch, std::int64_t first_batch) override {
    source_->start_epoch(epoch, first_batch);
  }
  const engine::Batch* next() override {
    const engine::Batch* const batch = source_->next();
    if (batch != nullptr) batches_.emplace_back(batch->samples.begin(), batch->samples.end());
    return batch;
  }
  [[nodiscard]] std::optional<std::int64_t> size_of_batch(std::int64_t batch) const override {
    return source_->size_of_batch(batch);
  }
  [[nodiscard]] std::int64_t bad_samples() const override { return source_->bad_samples(); }

 private:
  std::unique_ptr<engine::BatchSource> source_;
  std::vector<std::vector<std::int64_t>>& batches_;
};

void train(const Job& job, int rank, engine::Device& device, const engine::Ranks& ranks, Outcome& outcome) {
  const bool last = rank + 1 == job.world_size;
  const auto& dataset = last && job.dataset_of_last ? job.dataset_of_last : job.dataset;
  const int ranks_of_batch = job.same_samples ? 1 : job.world_size;
  const SourceSetup setup{.frames = job.frames,
                          .compute_type = job.config.compute_type,
                          .batch_size = job.global_batch / ranks_of_batch,
                          .rank = job.same_samples ? 0 : rank,
                          .world_size = ranks_of_batch};
  const auto model = job.model ? job.model()
                               : make_model({.spoiled = last ? job.spoiled : std::set<std::uint32_t>{},
                                             .scope = job.scope,
                                             .dropout = job.dropout});
  Written train(make_source(dataset, data::Split::kTrain, device, setup), outcome.batches);
  const auto val = job.config.no_val ? nullptr : make_source(dataset, data::Split::kVal, device, setup);
  outcome.recorder.progress = [&](const engine::StepRecord& record) { outcome.steps.push_back(record); };
  const model::DetectionTask task(1);
  engine::Trainer trainer(job.config, *model, task, train, val.get(), device, outcome.recorder, ranks);
  // Different weights per rank, because all ranks must start from those of rank 0.
  trainer.parameters().initialise(job.config.seed + static_cast<std::uint64_t>(rank));
  if (rank == 0 && !job.config.checkpoint_folder.empty()) (void)trainer.resume_latest();
  outcome.result = trainer.run();
  const engine::ParameterStore& parameters = trainer.parameters();
  for (const Tensor& tensor :
       {parameters.weights(), parameters.masters(), parameters.exp_avgs(), parameters.exp_avg_sqs()})
    outcome.bits += engine::test::bytes_of(engine::HostTensor(device, tensor).tensor());
  const engine::HostTensor masters(device, parameters.masters());
  for (std::int64_t i = 0; i < masters.tensor().elements(); ++i)
    outcome.masters.push_back(engine::read_back(masters.tensor(), i));
}

#if defined(VOCA_TEST_CUDA)
std::unique_ptr<engine::Communicator> connect_gpus(engine::KeyValueStore& store,
                                                   std::unique_ptr<Communicator> host,
                                                   const engine::NcclOptions& options) {
  return engine::make_nccl_communicator(store, std::move(host), options);
}
std::unique_ptr<engine::CommunicationStream> make_stream(const Job& job) {
  return job.stream ? job.stream() : engine::make_cuda_communication_stream();
}
#else
std::unique_ptr<engine::Communicator> connect_gpus(engine::KeyValueStore& store,
                                                   std::unique_ptr<Communicator> host,
                                                   const engine::NcclOptions& options) {
  return engine::make_nccl_communicator(nccl_double(), store, std::move(host), options);
}
std::unique_ptr<engine::CommunicationStream> make_stream(const Job& job) {
  return job.stream ? job.stream() : std::make_unique<HostCommunicationStream>(job.sums);
}
#endif

void run_rank(const Job& job, engine::KeyValueStore& store, int rank, Outcome& outcome) {
  if (job.on_cpu) return train(job, rank, *engine::make_cpu_device(1), {}, outcome);
  const auto device = make_tested_device();
  if (job.world_size == 1) return train(job, rank, *device, {}, outcome);
  outcome.log.fail_at = rank == job.failing_rank ? job.fail_at : -1;
  const auto connect = [&](const char* name) {
    engine::NcclOptions options;
    options.name = name;
    options.timeout = std::chrono::seconds(kMaxWaitSeconds);
    return std::make_unique<Logged>(
        connect_gpus(store,
                     engine::make_gloo_communicator(store, rank, job.world_size,
                                                    {.name = name, .timeout = options.timeout}),
                     options),
        outcome.log);
  };
  const auto main = connect("main");
  const auto gradients = job.two_communicators ? connect("gradients") : nullptr;
  const auto stream = make_stream(job);
  train(job, rank, *device,
        {.main = main.get(),
         .gradients = gradients ? gradients.get() : main.get(),
         .stream = stream.get(),
         .buckets = {.bucket_bytes = std::size_t{1} << 14U}},
        outcome);
}

}  // namespace

std::vector<std::unique_ptr<Outcome>> run_job(const Job& job) {
  std::vector<std::unique_ptr<Outcome>> outcomes;
  engine::MemoryStore store;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < job.world_size; ++rank) {
    outcomes.push_back(std::make_unique<Outcome>());
    threads.emplace_back([&job, &store, rank, &outcome = *outcomes.back()] {
      try {
        run_rank(job, store, rank, outcome);
      } catch (const std::exception& error) {
        outcome.error = error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return outcomes;
}

std::vector<std::vector<std::int64_t>> global_batches(const std::vector<std::unique_ptr<Outcome>>& ranks) {
  std::vector<std::vector<std::int64_t>> all(ranks.at(0)->batches.size());
  for (const auto& rank : ranks) {
    for (std::size_t b = 0; b < all.size(); ++b) {
      const std::vector<std::int64_t>& part = rank->batches.at(b);
      all[b].insert(all[b].end(), part.begin(), part.end());
    }
  }
  return all;
}

double distance(const std::vector<double>& a, const std::vector<double>& b) {
  double error = 0;
  double size = 0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    const double difference = a.at(i) - b[i];
    error += difference * difference;
    size += b[i] * b[i];
  }
  return std::isfinite(error) ? std::sqrt(error / size) : HUGE_VAL;
}

}  // namespace voca::simt::host
