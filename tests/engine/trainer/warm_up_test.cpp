#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "engine/trainer/ranks.h"

namespace voca::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

/// One of two ranks, whose first collective of a size takes memory on the GPU.
class Recorded final : public Communicator {
 public:
  Recorded(std::string name, std::vector<std::string>& log) : name_(std::move(name)), log_(log) {}
  [[nodiscard]] int rank() const override { return 0; }
  [[nodiscard]] int world_size() const override { return 2; }
  void all_reduce_sum(const char* /*name*/, Tensor data, Stream /*stream*/) override {
    log_.push_back(fmt::format("{}: sum of {}", name_, data.elements()));
  }
  void all_gather_rows(const char* /*name*/, const Tensor& /*part*/, std::span<const std::int64_t> /*rows*/,
                       Tensor /*all*/, Stream /*stream*/) override {}
  void broadcast(const char* /*name*/, Tensor data, int /*root*/, Stream /*stream*/) override {
    log_.push_back(fmt::format("{}: broadcast of {}", name_, data.elements()));
  }
  void barrier(const char* /*name*/) override {}
  [[nodiscard]] std::vector<double> all_gather_values(const char* /*name*/,
                                                      std::span<const double> mine) override {
    return {mine.begin(), mine.end()};
  }
  void abort() noexcept override {}

 private:
  std::string name_;
  std::vector<std::string>& log_;
};

class RecordedStream final : public CommunicationStream {
 public:
  explicit RecordedStream(std::vector<std::string>& log) : log_(log) {}
  [[nodiscard]] Stream stream() const override { return nullptr; }
  void wait_for(Stream /*compute*/) override {}
  void hold_up(Stream /*compute*/) override { log_.emplace_back("compute waits"); }

 private:
  std::vector<std::string>& log_;
};

/// A GPU in host memory.
class RecordedDevice final : public Device {
 public:
  explicit RecordedDevice(std::vector<std::string>& log) : log_(log) {}
  [[nodiscard]] DeviceKind kind() const override { return DeviceKind::kCuda; }
  [[nodiscard]] std::string description() const override { return "recorded"; }
  [[nodiscard]] FreeMemory free_memory() const override { return {}; }
  void synchronize(Stream /*stream*/) override { log_.emplace_back("done"); }

 protected:
  std::byte* allocate_bytes(std::size_t bytes) override { return new std::byte[bytes]{}; }
  void free_bytes_at(std::byte* data) noexcept override { delete[] data; }

 private:
  std::vector<std::string>& log_;
};

TEST(WarmUp, HasEveryCommunicatorTakeItsMemoryBeforeItReturns) {
  std::vector<std::string> log;
  Recorded main("main", log);
  Recorded gradients("gradients", log);
  RecordedStream stream(log);
  RecordedDevice device(log);
  const Ranks ranks{
      .main = &main, .gradients = &gradients, .stream = &stream, .buckets = {.bucket_bytes = 400}};
  warm_up(ranks, device);
  EXPECT_THAT(log, ElementsAre("gradients: sum of 1", "compute waits", "main: sum of 1",
                               "main: broadcast of 1", "gradients: sum of 100", "compute waits",
                               "main: sum of 100", "main: broadcast of 100", "done"));
  EXPECT_TRUE(device.lines().empty());  // its own is given back
}

TEST(WarmUp, IsNothingForOneRankOrOnTheHost) {
  std::vector<std::string> log;
  RecordedDevice device(log);
  warm_up({}, device);
  Recorded main("main", log);
  warm_up({.main = &main, .gradients = &main}, device);
  EXPECT_THAT(log, IsEmpty());
}

}  // namespace
}  // namespace voca::engine
