#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/trainer/memory_plan.h"
#include "tests/engine/trainer/trainer_support.h"

namespace voca::engine {

namespace {

using test::Recorder;
using test::toy_config;
using test::ToyModel;
using test::ToyRun;
using testing::AllOf;
using testing::HasSubstr;

std::vector<std::pair<std::string, std::size_t>> pairs(const std::vector<MemoryLine>& lines) {
  std::vector<std::pair<std::string, std::size_t>> result;
  for (const MemoryLine& line : lines) result.emplace_back(line.name, line.bytes);
  return result;
}

/// The CPU with less memory.
class SmallDevice : public Device {
 public:
  explicit SmallDevice(std::size_t free) : free_(free) {}
  [[nodiscard]] DeviceKind kind() const override { return DeviceKind::kCpu; }
  [[nodiscard]] std::string description() const override { return "small"; }
  [[nodiscard]] FreeMemory free_memory() const override { return {.bytes = free_, .limit = ""}; }
  void synchronize(Stream /*stream*/) override {}

 protected:
  std::byte* allocate_bytes(std::size_t bytes) override { return new std::byte[bytes]{}; }
  void free_bytes_at(std::byte* data) noexcept override { delete[] data; }

 private:
  std::size_t free_;
};

const std::vector<MemoryRequest> kRequests{{DType::kF32, 4, 3},  {DType::kF64, 4, 3},  {DType::kF32, 1, 100},
                                           {DType::kF32, 64, 0}, {DType::kF64, 0, 17}, {DType::kF32, 1, 1}};

TEST(MemoryPlan, IsWhatIsAllocatedLineByLine) {
  for (const MemoryRequest& request : kRequests) {
    const ToyModel model(3);
    const auto device = make_cpu_device(1);
    const MemoryPlan plan = plan_memory(model, request);
    const Workspace workspace(model, request, *device);
    EXPECT_EQ(pairs(plan.lines), pairs(device->lines()));
    EXPECT_EQ(plan.bytes(), device->allocated_bytes());
  }
}

TEST(MemoryPlan, TellsWhatLivesInTheActivationsAtTheirPeak) {
  for (const MemoryRequest& request : kRequests) {
    const MemoryPlan plan = plan_memory(ToyModel(), request);
    const auto activations = std::find_if(plan.lines.begin(), plan.lines.end(),
                                          [](const MemoryLine& line) { return line.name == "activations"; });
    ASSERT_NE(activations, plan.lines.end());
    std::size_t sum = 0;
    for (const MemoryLine& line : plan.arena_lines) sum += line.bytes;
    EXPECT_EQ(sum, activations->bytes);
  }
}

TEST(MemoryPlan, IsWhatATrainerAllocatesAndARunNeverMore) {
  const TrainerConfig config = toy_config();
  Recorder recorder;
  ToyRun run(config, recorder);
  const MemoryPlan plan = plan_memory(run.model, Trainer::memory_request(config, run.train, &run.val));
  EXPECT_EQ(pairs(plan.lines), pairs(run.device->lines()));
  (void)run.trainer.run();
  EXPECT_EQ(pairs(plan.lines), pairs(run.device->lines()));
}

TEST(LargestBatch, IsTheLargestThatFits) {
  const ToyModel model;
  const auto none = [](std::int64_t) -> std::size_t { return 0; };
  const auto source = [](std::int64_t batch) { return static_cast<std::size_t>(1000 * batch); };
  for (const MemoryRequest& request : kRequests) {
    const auto bytes_of = [&](std::int64_t batch, const auto& beside) {
      MemoryRequest of_batch = request;
      if (request.train_batch > 0) of_batch.train_batch = batch;
      if (request.eval_batch > 0) of_batch.eval_batch = batch;
      return plan_memory(model, of_batch).bytes() + beside(batch);
    };
    for (const std::int64_t batch : {1, 2, 3, 7, 64, 1000}) {
      const auto exactly = bytes_of(batch, none);
      // Aligned pieces make some batches take what the next one takes.
      const std::int64_t fits = largest_batch(model, request, exactly, {});
      EXPECT_GE(fits, batch);
      EXPECT_EQ(bytes_of(fits, none), exactly);
      EXPECT_GT(bytes_of(fits + 1, none), exactly);
      EXPECT_EQ(largest_batch(model, request, bytes_of(batch, source), source), batch);
      EXPECT_EQ(largest_batch(model, request, bytes_of(batch, source) - 1, source), batch - 1);
    }
    EXPECT_EQ(largest_batch(model, request, 10, {}), 0);
    EXPECT_EQ(largest_batch(model, request, std::size_t{1} << 40, {}, 77), 77);
    EXPECT_EQ(largest_batch(model, request, std::size_t{1} << 40, {}, 0), 0);
  }
}

TEST(Workspace, OutOfMemoryShowsTheTableAndTheLargestBatch) {
  const ToyModel model;
  const MemoryRequest wanted{DType::kF32, 100, 100};
  const MemoryPlan fits = plan_memory(model, {DType::kF32, 60, 60});
  SmallDevice device(fits.bytes());
  const std::int64_t largest = largest_batch(model, wanted, fits.bytes(), {});
  try {
    const Workspace workspace(model, wanted, device);
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kIo);
    const std::string message = error.what();
    EXPECT_THAT(message, AllOf(HasSubstr("out of memory"), HasSubstr("--batch_size 100"),
                               HasSubstr(fmt::format("the largest --batch_size that fits is {}", largest))));
    for (const MemoryLine& line : plan_memory(model, wanted).lines)
      EXPECT_THAT(message, AllOf(HasSubstr(line.name), HasSubstr(std::to_string(line.bytes))));
  }
  EXPECT_TRUE(device.lines().empty());
  const Workspace workspace(model, {DType::kF32, largest, largest}, device);
  EXPECT_LE(device.allocated_bytes(), fits.bytes());
}

TEST(Workspace, SaysWhenNotEvenOneSampleFits) {
  SmallDevice device(100);
  try {
    const Workspace workspace(ToyModel(), {DType::kF32, 4, 4}, device);
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("not even one sample fits"));
  }
}

}  // namespace
}  // namespace voca::engine
