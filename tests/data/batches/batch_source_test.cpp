#include "data/batches/batch_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <map>
#include <mutex>
#include <numeric>
#include <set>
#include <thread>

#include "data/packed/pack.h"
#include "engine/base/error.h"
#include "tests/data/support/scratch.h"
#include "tests/support/allocations.h"

namespace voca::data {
namespace {

using engine::Batch;
using engine::DType;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::message_of;
using testing::Scratch;

constexpr std::int64_t kVideos = 23;

/// Videos of 2 to 14 frames, all in one split unless `ratios` say otherwise.
std::shared_ptr<const Dataset> make_dataset(const Scratch& scratch, DType dtype = DType::kF32) {
  for (std::int64_t i = 0; i < kVideos; ++i) {
    char name[16];
    std::snprintf(name, sizeof name, "v%02d", static_cast<int>(i));
    testing::write_video(scratch.path() / "tree" / (i % 3 == 0 ? "real" : "fake") / name, 2 + i % 13,
                         2 + (i + i % 2) % 13, 20.0 * static_cast<double>(i), dtype);
  }
  PackOptions options;
  options.features_root = scratch / "tree";
  options.out = scratch / "a.h5";
  options.split_ratios = SplitRatios{1.0, 0.0, 0.0};
  const PackReport report = pack_features(options);
  EXPECT_TRUE(report.bad.empty());
  return std::make_shared<const Dataset>(scratch / "a.h5");
}

std::vector<std::int64_t> all_of(const Dataset& data) {
  std::vector<std::int64_t> samples(static_cast<std::size_t>(data.size()));
  std::iota(samples.begin(), samples.end(), 0);
  return samples;
}

BatchSourceOptions training(int workers) {
  BatchSourceOptions options;
  options.sampler = {.seed = 9, .training = true, .batch_size = 4};
  options.seq_len = 6;
  options.augment_prob = 0.7;
  options.num_workers = workers;
  options.residency = Residency::kDisk;
  return options;
}

BatchSourceOptions evaluation(int workers) {
  BatchSourceOptions options = training(workers);
  options.sampler.training = false;
  return options;
}

/// The whole of what an epoch gives, as bytes, and its samples in order.
struct Epoch {
  std::string bytes;
  std::vector<std::int64_t> samples;
};

void add_batch(const Batch& batch, Epoch& epoch) {
  const auto add = [&](const void* data, std::size_t bytes) {
    epoch.bytes.append(static_cast<const char*>(data), bytes);
  };
  EXPECT_EQ(static_cast<std::int64_t>(batch.samples.size()), batch.size);
  add(&batch.size, sizeof batch.size);
  add(&batch.first_position, sizeof batch.first_position);
  for (const engine::Tensor& input : batch.inputs) {
    EXPECT_EQ(input.shape[0], batch.size);
    EXPECT_EQ(input.device, engine::DeviceKind::kCpu);
    add(input.data, input.bytes());
  }
  EXPECT_EQ(batch.targets.at(kLabelTarget).dtype, DType::kI32);
  add(batch.targets.at(kLabelTarget).data, batch.targets.at(kLabelTarget).bytes());
  epoch.samples.insert(epoch.samples.end(), batch.samples.begin(), batch.samples.end());
}

Epoch run_epoch(PackedBatchSource& source, std::int64_t epoch, std::int64_t first_batch = 0) {
  Epoch result;
  source.start_epoch(epoch, first_batch);
  while (const Batch* batch = source.next()) add_batch(*batch, result);
  EXPECT_EQ(source.next(), nullptr);
  return result;
}

/// Rows of a stream by the words of the recipe: cut to t, roll, crop or repeat the last frame.
std::vector<double> by_the_book(const Dataset& data, Stream stream, std::int64_t sample, std::int64_t shift,
                                std::int64_t start, std::int64_t length) {
  const std::int64_t dim = data.dim(stream);
  const std::int64_t t = data.frames(sample);
  std::vector<double> rows(static_cast<std::size_t>(t * dim));
  data.read_rows(stream, sample, 0, t, DType::kF64, rows.data());
  std::vector<double> rolled(rows.size());
  for (std::int64_t i = 0; i < t; ++i) {  // numpy.roll: element i moves to i + shift
    const std::int64_t to = (((i + shift) % t) + t) % t;
    std::copy_n(rows.begin() + i * dim, dim, rolled.begin() + to * dim);
  }
  std::vector<double> result;
  for (std::int64_t r = 0; r < length; ++r) {
    const std::int64_t row = t >= length ? start + r : std::min(r, t - 1);
    result.insert(result.end(), rolled.begin() + row * dim, rolled.begin() + (row + 1) * dim);
  }
  return result;
}

template <typename T>
std::vector<double> rows_of(const Batch& batch, std::size_t input, std::int64_t place) {
  const engine::Tensor& tensor = batch.inputs[input];
  const std::int64_t count = tensor.shape[1] * tensor.shape[2];
  const T* const first = tensor.as<T>() + place * count;
  return {first, first + count};
}

TEST(BatchSource, EvaluationCropsTheCentreAndRepeatsTheLastFrame) {
  const Scratch scratch;
  const auto data = make_dataset(scratch);
  PackedBatchSource source(data, all_of(*data), evaluation(0));
  EXPECT_EQ(source.samples_per_epoch(), kVideos);
  EXPECT_EQ(source.batches_per_epoch(), 6);
  EXPECT_EQ(source.max_batch_size(), 4);
  source.start_epoch(0, 0);
  std::int64_t position = 0;
  while (const Batch* batch = source.next()) {
    EXPECT_EQ(batch->first_position, position);
    for (std::int64_t p = 0; p < batch->size; ++p) {
      const std::int64_t sample = batch->samples[static_cast<std::size_t>(p)];
      EXPECT_EQ(sample, position + p);
      EXPECT_EQ(batch->targets.at(kLabelTarget).as<std::int32_t>()[p], data->label(sample));
      const std::int64_t start = std::max<std::int64_t>(data->frames(sample) - 6, 0) / 2;
      EXPECT_EQ(rows_of<float>(*batch, 0, p), by_the_book(*data, Stream::kVisual, sample, 0, start, 6));
      EXPECT_EQ(rows_of<float>(*batch, 1, p), by_the_book(*data, Stream::kAudio, sample, 0, start, 6));
    }
    position += batch->size;
  }
  EXPECT_EQ(position, kVideos);
}

TEST(BatchSource, TrainingRollsAndCropsAsTheWindowSays) {
  const Scratch scratch;
  for (const DType stored : {DType::kF16, DType::kF32}) {
    const auto data = make_dataset(scratch, stored);
    BatchSourceOptions options = training(0);
    options.dtype = DType::kF64;
    PackedBatchSource source(data, all_of(*data), options);
    std::set<std::int64_t> shifts;
    for (std::int64_t epoch = 0; epoch < 20; ++epoch) {
      source.start_epoch(epoch, 0);
      while (const Batch* batch = source.next()) {
        for (std::int64_t p = 0; p < batch->size; ++p) {
          const std::int64_t sample = batch->samples[static_cast<std::size_t>(p)];
          const auto windows = sample_windows(options, epoch, sample, data->frames(sample));
          const kernels::FrameWindow& visual = windows[Stream::kVisual];
          const kernels::FrameWindow& audio = windows[Stream::kAudio];
          EXPECT_EQ(visual.start, audio.start);
          shifts.insert(audio.shift - visual.shift);
          ASSERT_EQ(rows_of<double>(*batch, 0, p),
                    by_the_book(*data, Stream::kVisual, sample, visual.shift, visual.start, 6));
          ASSERT_EQ(rows_of<double>(*batch, 1, p),
                    by_the_book(*data, Stream::kAudio, sample, audio.shift, audio.start, 6));
        }
      }
    }
    EXPECT_THAT(shifts, ElementsAre(-3, -2, -1, 0, 1, 2, 3));
  }
}

TEST(SampleWindow, FollowsTheRecipe) {
  BatchSourceOptions options = training(0);
  options.augment_prob = 0.2;
  std::map<std::int64_t, int> shifts;
  std::map<std::int64_t, int> starts;
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) {
    const auto windows = sample_windows(options, i / 100, i % 100, 10);
    const kernels::FrameWindow& visual = windows[Stream::kVisual];
    const kernels::FrameWindow& audio = windows[Stream::kAudio];
    EXPECT_GE(audio.shift, 0);
    EXPECT_GE(visual.shift, 0);
    EXPECT_TRUE(audio.shift == 0 || visual.shift == 0);
    ++shifts[audio.shift - visual.shift];
    ++starts[audio.start];
  }
  // Each shift but 0 with probability 0.2 / 7 (571 of 20 000, deviation 24), each of five starts with 1/5
  // (4000, deviation 57).
  ASSERT_EQ(shifts.size(), 7U);
  for (const auto& [shift, count] : shifts) EXPECT_NEAR(count, shift == 0 ? 16571 : 571, 125) << shift;
  ASSERT_EQ(starts.size(), 5U);
  for (const auto& [start, count] : starts) EXPECT_NEAR(count, 4000, 290) << start;
  options.sampler.training = false;
  const auto centre = sample_windows(options, 3, 7, 11);
  EXPECT_EQ(centre[Stream::kVisual].start, 2);
  EXPECT_EQ(centre[Stream::kVisual].shift + centre[Stream::kAudio].shift, 0);
}

TEST(BatchSource, TheSameBitsForAnyNumberOfWorkersAndEitherResidency) {
  const Scratch scratch;
  const auto data = make_dataset(scratch, DType::kF16);
  for (const auto& make : {training, evaluation}) {
    PackedBatchSource reference(data, all_of(*data), make(0));
    std::vector<Epoch> expected;
    for (std::int64_t epoch = 0; epoch < 3; ++epoch) expected.push_back(run_epoch(reference, epoch));
    for (const int workers : {0, 1, 2, 5}) {
      for (const Residency residency : {Residency::kDisk, Residency::kHost, Residency::kAuto}) {
        BatchSourceOptions options = make(workers);
        options.residency = residency;
        PackedBatchSource source(data, all_of(*data), options);
        for (std::size_t epoch = 0; epoch < 3; ++epoch)
          EXPECT_EQ(run_epoch(source, static_cast<std::int64_t>(epoch)).bytes, expected[epoch].bytes);
        EXPECT_NE(source.residency(), Residency::kAuto);
      }
    }
  }
}

TEST(BatchSource, AnEpochCanBeEnteredAtAnyBatchAndLeftAtAny) {
  const Scratch scratch;
  const auto data = make_dataset(scratch);
  for (const int workers : {0, 3}) {
    PackedBatchSource source(data, all_of(*data), training(workers));
    const Epoch whole = run_epoch(source, 4);
    for (std::int64_t first = 0; first <= source.batches_per_epoch(); ++first) {
      source.start_epoch(7, 0);  // left after two batches, with others under way
      source.next();
      source.next();
      const Epoch rest = run_epoch(source, 4, first);
      EXPECT_EQ(rest.bytes, whole.bytes.substr(whole.bytes.size() - rest.bytes.size()));
      EXPECT_EQ(static_cast<std::int64_t>(rest.samples.size()), (source.batches_per_epoch() - first) * 4);
    }
  }
}

TEST(BatchSource, RanksTogetherGiveTheGlobalBatches) {
  const Scratch scratch;
  const auto data = make_dataset(scratch);
  BatchSourceOptions options = training(0);
  PackedBatchSource one(data, all_of(*data), options);
  options.sampler.batch_size = 2;
  options.sampler.world_size = 2;
  PackedBatchSource first(data, all_of(*data), options);
  options.sampler.rank = 1;
  PackedBatchSource second(data, all_of(*data), options);
  for (PackedBatchSource* source : {&one, &first, &second}) source->start_epoch(2, 0);
  while (const Batch* whole = one.next()) {
    const Batch* a = first.next();
    const Batch* b = second.next();
    ASSERT_NE(a, nullptr);
    ASSERT_NE(b, nullptr);
    EXPECT_EQ(b->first_position, whole->first_position + 2);
    for (std::int64_t p = 0; p < 4; ++p)
      EXPECT_EQ(rows_of<float>(*whole, 1, p), rows_of<float>(p < 2 ? *a : *b, 1, p % 2));
  }
}

/// Keeps what is logged; read and written by several threads.
class TextSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  [[nodiscard]] std::string text() {
    const std::scoped_lock lock(mutex_);
    return text_;
  }

 private:
  void sink_it_(const spdlog::details::log_msg& message) override {
    text_.append(message.payload.data(), message.payload.size());
    text_ += '\n';
  }
  void flush_() override {}

  std::string text_;
};

/// Collects what is logged while it lives.
class Log {
 public:
  Log() : before_(spdlog::default_logger()), sink_(std::make_shared<TextSink>()) {
    spdlog::set_default_logger(std::make_shared<spdlog::logger>("test", sink_));
  }
  ~Log() { spdlog::set_default_logger(before_); }
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;
  [[nodiscard]] std::string text() const { return sink_->text(); }

 private:
  std::shared_ptr<spdlog::logger> before_;
  std::shared_ptr<TextSink> sink_;
};

/// Changes a byte of the given samples' visual frames in the file.
void damage(const std::filesystem::path& path, const std::vector<std::int64_t>& samples) {
  auto bytes = testing::read_bytes(path);
  const Dataset data(path);
  for (const std::int64_t sample : samples) {
    std::vector<std::byte> rows(static_cast<std::size_t>(data.frames(Stream::kVisual, sample)) *
                                data.row_bytes(Stream::kVisual));
    data.read_raw(Stream::kVisual, sample, 0, data.frames(Stream::kVisual, sample), rows.data());
    const auto found = std::search(bytes.begin(), bytes.end(), rows.begin(), rows.end());
    ASSERT_NE(found, bytes.end());
    found[5] ^= std::byte{1};
  }
  testing::write_bytes(path, bytes);
}

TEST(BatchSource, DamagedSamplesAreLeftOutNamedAndCounted) {
  const Scratch scratch;
  make_dataset(scratch);
  damage(scratch / "a.h5", {1, 8, 9, 10, 11});  // 8 to 11 are a whole batch of an evaluation
  const auto data = std::make_shared<const Dataset>(scratch / "a.h5");
  std::vector<std::int64_t> good;
  for (const std::int64_t sample : all_of(*data)) {
    if (sample != 1 && (sample < 8 || sample > 11)) good.push_back(sample);
  }
  for (const Residency residency : {Residency::kDisk, Residency::kHost}) {
    std::string first;
    for (const int workers : {0, 4}) {
      const Log log;
      BatchSourceOptions options = evaluation(workers);
      options.residency = residency;
      options.max_bad_samples = 5;
      PackedBatchSource source(data, all_of(*data), options);
      const Epoch epoch = run_epoch(source, 0);
      EXPECT_EQ(epoch.samples, good);
      EXPECT_EQ(source.bad_samples(), 5);
      EXPECT_THAT(source.bad_ids(),
                  ElementsAre(data->id(1), data->id(8), data->id(9), data->id(10), data->id(11)));
      EXPECT_THAT(log.text(), HasSubstr(data->id(9)));
      EXPECT_EQ(run_epoch(source, 1).bytes, epoch.bytes);
      EXPECT_EQ(source.bad_samples(), 5);  // counted once
      if (first.empty()) first = epoch.bytes;
      EXPECT_EQ(epoch.bytes, first);
    }
  }
}

TEST(BatchSource, MoreDamagedSamplesThanAllowedEndTheRunByName) {
  const Scratch scratch;
  make_dataset(scratch);
  damage(scratch / "a.h5", {1, 6});
  const auto data = std::make_shared<const Dataset>(scratch / "a.h5");
  const Log log;
  for (const int workers : {0, 2}) {
    BatchSourceOptions options = evaluation(workers);
    options.max_bad_samples = 1;
    PackedBatchSource source(data, all_of(*data), options);
    source.start_epoch(0, 0);
    ASSERT_NE(source.next(), nullptr);
    EXPECT_THROW(source.next(), engine::DataError);
    const std::string message = message_of([&] { source.next(); });
    EXPECT_THAT(message, HasSubstr("more than --max_bad_samples 1"));
    EXPECT_THAT(message, HasSubstr(data->id(1) + ", " + data->id(6)));
  }
}

/// Reads through to the dataset; a chosen sample fails, or takes its time.
class TroubledReader final : public FrameReader {
 public:
  TroubledReader(std::shared_ptr<const Dataset> data, std::int64_t failing, std::int64_t slow,
                 std::atomic<bool>* released)
      : inner_(make_disk_reader(std::move(data))), failing_(failing), slow_(slow), released_(released) {}

  void read(Stream stream, std::int64_t sample, std::int64_t first, std::int64_t count, DType dtype,
            void* out) const override {
    if (sample == failing_) throw engine::IoError("a.h5: cannot read: Input/output error");
    while (sample == slow_ && !*released_) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    inner_->read(stream, sample, first, count, dtype, out);
  }
  [[nodiscard]] bool verify(std::int64_t sample, std::span<std::byte> scratch) const override {
    return inner_->verify(sample, scratch);
  }

 private:
  std::unique_ptr<FrameReader> inner_;
  std::int64_t failing_;
  std::int64_t slow_;
  std::atomic<bool>* released_;
};

TEST(BatchSource, AnErrorOfAWorkerReachesTheCallerInItsPlace) {
  const Scratch scratch;
  const auto data = make_dataset(scratch);
  for (const int workers : {0, 3}) {
    PackedBatchSource source(data, all_of(*data), evaluation(workers),
                             std::make_unique<TroubledReader>(data, 9, -1, nullptr));
    source.start_epoch(0, 0);
    EXPECT_NE(source.next(), nullptr);
    EXPECT_NE(source.next(), nullptr);
    EXPECT_THROW(source.next(), engine::IoError);  // samples 8 to 11
    source.start_epoch(0, 3);
    EXPECT_NE(source.next(), nullptr);
  }
}

TEST(BatchSource, AStallIsReportedWithTheNameOfWhatIsRead) {
  const Scratch scratch;
  const auto data = make_dataset(scratch);
  std::atomic<bool> released{false};
  const Log log;
  BatchSourceOptions options = evaluation(2);
  options.stall_seconds = 0.02;
  PackedBatchSource source(data, all_of(*data), options,
                           std::make_unique<TroubledReader>(data, -1, 2, &released));
  source.start_epoch(0, 0);
  // Released only once the warning is there: without it this test would not end.
  std::jthread releaser([&] {
    while (log.text().find(data->id(2)) == std::string::npos)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    released = true;
  });
  EXPECT_NE(source.next(), nullptr);
  releaser.join();
  EXPECT_THAT(log.text(), HasSubstr("waited"));
  EXPECT_THAT(log.text(), HasSubstr((scratch / "a.h5").string()));
}

TEST(BatchSource, CanBeDroppedAtAnyMoment) {
  const Scratch scratch;
  const auto data = make_dataset(scratch);
  for (int i = 0; i < 30; ++i) {
    PackedBatchSource source(data, all_of(*data), training(4));
    if (i % 3 == 0) continue;
    source.start_epoch(0, 0);
    if (i % 3 == 1) source.next();
  }
}

TEST(BatchSource, SteadyStateAllocatesNothing) {
  const Scratch scratch;
  const auto data = make_dataset(scratch, DType::kF16);
  for (const int workers : {0, 2}) {
    for (const Residency residency : {Residency::kDisk, Residency::kHost}) {
      BatchSourceOptions options = training(workers);
      options.residency = residency;
      PackedBatchSource source(data, all_of(*data), options);
      const auto run = [&](std::int64_t epoch) {
        source.start_epoch(epoch, 0);
        std::int64_t batches = 0;
        while (source.next() != nullptr) ++batches;
        return batches;
      };
      ASSERT_EQ(run(0), 5);
      const std::int64_t before = test::allocations();
      ASSERT_EQ(run(1) + run(2), 10);
      EXPECT_EQ(test::allocations(), before) << workers << " workers";
    }
  }
  const std::int64_t before = test::allocations();
  const auto something = std::make_unique<int>(1);
  EXPECT_EQ(test::allocations(), before + 1) << *something;  // the counter counts
}

TEST(BatchSource, OptionsOutOfRangeAreRefusedByName) {
  const Scratch scratch;
  const auto data = make_dataset(scratch);
  const auto expect_refused = [&](auto change) {
    BatchSourceOptions options = training(0);
    change(options);
    EXPECT_THROW(PackedBatchSource(data, all_of(*data), options), engine::InternalError);
  };
  expect_refused([](auto& o) { o.seq_len = 0; });
  expect_refused([](auto& o) { o.augment_prob = 1.5; });
  expect_refused([](auto& o) { o.max_shift = -1; });
  expect_refused([](auto& o) { o.num_workers = -1; });
  expect_refused([](auto& o) { o.max_bad_samples = -1; });
  expect_refused([](auto& o) { o.sampler.batch_size = 0; });
}

TEST(BatchSource, UnknownLabelsAreEvaluatedAndNotTrainedOn) {
  const Scratch scratch;
  testing::write_video(scratch / "tree/test/a", 3, 3, 0.0);
  PackOptions options;
  options.features_root = scratch / "tree";
  options.out = scratch / "a.h5";
  pack_features(options);
  const auto data = std::make_shared<const Dataset>(scratch / "a.h5");
  EXPECT_THAT(message_of([&] { PackedBatchSource(data, {0}, training(0)); }),
              HasSubstr("test/a has no label"));
  PackedBatchSource source(data, {0}, evaluation(0));
  source.start_epoch(0, 0);
  EXPECT_EQ(source.next()->targets.at(kLabelTarget).as<std::int32_t>()[0], -1);
}

}  // namespace
}  // namespace voca::data
