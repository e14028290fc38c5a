// Buckets of gradients, by forked ranks over Gloo and on a communicator whose calls a test can hold back.

#include "engine/comm/gradient_buckets.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "engine/base/random.h"
#include "engine/comm/communication_error.h"
#include "support/ranks.h"

namespace voca::engine {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

Tensor tensor_over(std::vector<float>& values) {
  return {.data = values.data(),
          .shape = {static_cast<std::int64_t>(values.size())},
          .dtype = DType::kF32,
          .device = DeviceKind::kCpu,
          .name = "gradients"};
}

std::vector<float> numbers(int rank, int step, std::size_t count) {
  RandomStream random(3, RandomPurpose::kSynthetic, static_cast<std::uint64_t>(100 * step + rank));
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(random.normal());
  return values;
}

std::string bytes_of(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

TEST(CutBuckets, CoversTheBufferInOrderOnCacheLines) {
  for (const std::int64_t elements : {1, 15, 16, 17, 63, 64, 65, 1000, 4096, 1000003}) {
    for (const std::size_t bytes :
         {std::size_t{1}, std::size_t{64}, std::size_t{1000}, std::size_t{1} << 20U}) {
      const auto buckets = cut_buckets(elements, sizeof(float), bytes);
      std::int64_t next = 0;
      for (const Bucket& bucket : buckets) {
        EXPECT_EQ(bucket.begin, next);
        EXPECT_GT(bucket.end, bucket.begin);
        EXPECT_EQ(bucket.begin % 16, 0);
        EXPECT_LE(static_cast<std::size_t>(bucket.end - bucket.begin) * 4, std::max<std::size_t>(bytes, 64));
        next = bucket.end;
      }
      EXPECT_EQ(next, elements);
    }
  }
  EXPECT_TRUE(cut_buckets(0, 4, 1).empty());
}

TEST(CutBuckets, OfASmallModelAreStillAFew) {
  EXPECT_EQ(cut_buckets(100000, 4, std::size_t{25} << 20U).size(), 4U);
  EXPECT_EQ(cut_buckets(std::int64_t{100} << 20U, 4, std::size_t{25} << 20U).size(), 16U);
}

class GradientBucketsOf : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    if (!with_gloo()) GTEST_SKIP() << "built without Gloo";
  }
};

constexpr std::size_t kElements = 20003;
constexpr int kSteps = 2;

/// Steps in which gradients become final piece by piece, while the main thread has collectives of its own.
std::string train(int rank, int world_size, KeyValueStore& store, const BucketOptions& options) {
  const auto ranks = make_gloo_communicator(store, rank, world_size, {});
  const auto bucket_ranks = make_gloo_communicator(store, rank, world_size, {.name = "gradients"});
  std::vector<float> gradients(kElements);
  GradientBuckets buckets(*bucket_ranks, tensor_over(gradients), options);
  std::string all;
  for (int step = 0; step < kSteps; ++step) {
    const std::vector<float> mine = numbers(rank, step, kElements);
    std::size_t done = 0;
    while (done < kElements) {
      const std::size_t next = std::min(kElements, done + 3001 + static_cast<std::size_t>(rank));
      std::copy(mine.begin() + static_cast<std::ptrdiff_t>(done),
                mine.begin() + static_cast<std::ptrdiff_t>(next),
                gradients.begin() + static_cast<std::ptrdiff_t>(done));
      done = next;
      buckets.final_until(static_cast<std::int64_t>(done));
      if (done > kElements / 2 && done < kElements / 2 + 3001) ranks->barrier("in the middle of backward");
    }
    buckets.finish();
    all += bytes_of(gradients);
  }
  return all;
}

TEST_P(GradientBucketsOf, SumLikeOneAllReduceToTheLastBitOverlappedOrNot) {
  const int world_size = GetParam();
  std::string expected;
  for (int step = 0; step < kSteps; ++step) {
    std::vector<float> sum = numbers(0, step, kElements);
    for (int r = 1; r < world_size; ++r) {
      const std::vector<float> part = numbers(r, step, kElements);
      for (std::size_t i = 0; i < kElements; ++i) sum[i] += part[i];
    }
    expected += bytes_of(sum);
  }
  for (const bool overlap : {true, false}) {
    for (const std::size_t bytes : {std::size_t{9000}, std::size_t{1} << 20U}) {
      const auto endings = testing::run_ranks(world_size, [&](int rank, KeyValueStore& store) {
        return train(rank, world_size, store, {.bucket_bytes = bytes, .overlap = overlap});
      });
      for (const testing::Ending& ending : endings) {
        EXPECT_EQ(ending.code, 0) << ending.text;
        EXPECT_TRUE(ending.text == expected) << "overlap " << overlap << ", buckets of " << bytes;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Ranks, GradientBucketsOf, ::testing::Values(1, 2, 3, 4, 8),
                         ::testing::PrintToStringParamName());

/// A world of one whose sums do what a test says.
class Scripted final : public Communicator {
 public:
  explicit Scripted(std::function<void(int)> on_sum) : on_sum_(std::move(on_sum)) {}
  [[nodiscard]] int rank() const override { return 0; }
  [[nodiscard]] int world_size() const override { return 1; }
  void all_reduce_sum(const char* /*name*/, Tensor /*data*/, Stream stream) override {
    streams.push_back(stream);
    on_sum_(sums_++);
  }
  void all_gather_rows(const char* /*name*/, const Tensor& /*part*/, std::span<const std::int64_t> /*rows*/,
                       Tensor /*all*/, Stream /*stream*/) override {}
  void broadcast(const char* /*name*/, Tensor /*data*/, int /*root*/, Stream /*stream*/) override {}
  void barrier(const char* /*name*/) override {}
  [[nodiscard]] std::vector<double> all_gather_values(const char* /*name*/,
                                                      std::span<const double> mine) override {
    return {mine.begin(), mine.end()};
  }
  void abort() noexcept override { aborted = true; }

  std::atomic<bool> aborted{false};
  std::vector<Stream> streams;

 private:
  std::function<void(int)> on_sum_;
  int sums_ = 0;
};

TEST(GradientBuckets, AreSummedWhileBackwardStillRuns) {
  std::atomic<int> sums{0};
  std::atomic<bool> is_summing{false};
  Scripted ranks([&](int) {
    EXPECT_FALSE(is_summing.exchange(true)) << "buckets are summed one after the other";
    std::this_thread::yield();
    is_summing = false;
    ++sums;
  });
  std::vector<float> gradients(4096);
  GradientBuckets buckets(ranks, tensor_over(gradients));
  ASSERT_EQ(buckets.buckets().size(), 4U);
  for (int step = 0; step < 2; ++step) {
    sums = 0;
    for (std::int64_t b = 0; b < 4; ++b) {
      buckets.final_until(1024 * b + 1023);  // one short of bucket b
      const auto give_up = Clock::now() + std::chrono::seconds(30);
      while (sums < b && Clock::now() < give_up) std::this_thread::sleep_for(milliseconds(1));
      EXPECT_EQ(sums, b) << "what is final is summed before backward ends, and nothing else is";
    }
    ASSERT_EQ(sums, 3) << "three of four are through when backward ends";
    buckets.final_until(4096);
    buckets.finish();
    EXPECT_EQ(sums, 4);
  }
}

TEST(GradientBuckets, WithoutOverlapAreSummedAtTheEnd) {
  Scripted ranks([](int) {});
  std::vector<float> gradients(4096);
  GradientBuckets buckets(ranks, tensor_over(gradients), {.overlap = false});
  buckets.final_until(2048);
  buckets.final_until(4096);
  EXPECT_TRUE(ranks.streams.empty());
  buckets.finish();
  EXPECT_EQ(ranks.streams.size(), 4U);
}

TEST(GradientBuckets, AFailedSumIsThrownByFinish) {
  Scripted ranks([](int sum) {
    if (sum == 1) throw CommunicationError("lost rank 3");
  });
  std::vector<float> gradients(4096);
  GradientBuckets buckets(ranks, tensor_over(gradients));
  buckets.final_until(4096);
  EXPECT_THROW(buckets.finish(), CommunicationError);
  EXPECT_EQ(ranks.streams.size(), 2U) << "nothing is summed after a failure";
}

TEST(GradientBuckets, EndASumThatIsStuckWhenTheyAreDestroyed) {
  Scripted* self = nullptr;
  std::atomic<bool> started{false};
  Scripted ranks([&](int) {
    started = true;
    while (!self->aborted) std::this_thread::sleep_for(milliseconds(1));
    throw CommunicationError("aborted");
  });
  self = &ranks;
  std::vector<float> gradients(4096);
  {
    GradientBuckets buckets(ranks, tensor_over(gradients));
    buckets.final_until(1024);
    while (!started) std::this_thread::sleep_for(milliseconds(1));
  }
  EXPECT_TRUE(ranks.aborted);
}

/// Writes down the order in which two queues wait for each other.
class RecordedStream final : public CommunicationStream {
 public:
  explicit RecordedStream(std::vector<std::string>& log) : log_(log) {}
  [[nodiscard]] Stream stream() const override {
    return reinterpret_cast<Stream>(const_cast<RecordedStream*>(this));
  }
  void wait_for(Stream /*compute*/) override { log_.emplace_back("wait"); }
  void hold_up(Stream /*compute*/) override { log_.emplace_back("hold up"); }

 private:
  std::vector<std::string>& log_;
};

TEST(GradientBuckets, OnAStreamFollowWhatBackwardHasQueued) {
  using Log = std::vector<std::string>;
  for (const bool overlap : {true, false}) {
    Log log;
    RecordedStream stream(log);
    Scripted ranks([&](int sum) { log.push_back(fmt::format("sum {}", sum % 4)); });
    std::vector<float> gradients(4096);
    GradientBuckets buckets(ranks, tensor_over(gradients), stream, nullptr, {.overlap = overlap});
    for (int step = 0; step < 2; ++step) {
      log.clear();
      buckets.final_until(1000);
      buckets.final_until(2048);
      buckets.final_until(2100);
      buckets.final_until(4096);
      buckets.finish();
      const Log overlapped{"wait", "sum 0", "sum 1", "wait", "sum 2", "sum 3", "hold up"};
      const Log after{"wait", "sum 0", "sum 1", "sum 2", "sum 3", "hold up"};
      EXPECT_EQ(log, overlap ? overlapped : after);
    }
    for (const Stream used : ranks.streams) EXPECT_EQ(used, stream.stream());
  }
}

}  // namespace
}  // namespace voca::engine
