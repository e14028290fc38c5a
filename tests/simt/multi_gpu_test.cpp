#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/packed/dataset.h"
#include "engine/ops/ops.h"
#include "tests/data/support/scratch.h"
#include "tests/simt/executor.h"
#include "tests/simt/host_device.h"
#include "tests/simt/ranks_support.h"

// Trainer on two, three and four GPUs: kernels run on the CPU, the NCCL double runs collectives in the order
// of streams and events, and host values go over Gloo.

namespace voca::simt::host {
namespace {

using data::testing::Scratch;
using engine::DType;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

using Outcomes = std::vector<std::unique_ptr<Outcome>>;

/// Copies the file and changes one byte of the visual frames of a sample in the copy.
std::shared_ptr<const data::Dataset> damaged(const std::filesystem::path& path, std::int64_t sample,
                                             const std::filesystem::path& copy) {
  auto bytes = data::testing::read_bytes(path);
  const data::Dataset dataset(path);
  std::vector<std::byte> rows(static_cast<std::size_t>(dataset.frames(data::Stream::kVisual, sample)) *
                              dataset.row_bytes(data::Stream::kVisual));
  dataset.read_raw(data::Stream::kVisual, sample, 0, dataset.frames(data::Stream::kVisual, sample),
                   rows.data());
  const auto found = std::search(bytes.begin(), bytes.end(), rows.begin(), rows.end());
  EXPECT_NE(found, bytes.end());
  found[5] ^= std::byte{1};
  data::testing::write_bytes(copy, bytes);
  return std::make_shared<const data::Dataset>(copy);
}

/// Runs the job and expects every rank to end without error and with the bits of rank 0.
Outcomes run_well(const Job& job) {
  Outcomes ranks = run_job(job);
  for (const auto& rank : ranks) {
    EXPECT_THAT(rank->error, IsEmpty());
    EXPECT_TRUE(rank->bits == ranks[0]->bits) << "ranks differ";
    EXPECT_EQ(rank->result.step, ranks[0]->result.step);
  }
  return ranks;
}

Job with_ranks(Job job, int world_size) {
  job.world_size = world_size;
  return job;
}

class MultiGpu : public ::testing::TestWithParam<int> {
 protected:
  static void SetUpTestSuite() {
    if (scratch_ == nullptr) scratch_ = new Scratch;
    if (dataset_ == nullptr) dataset_ = new auto(make_dataset(*scratch_, DType::kF32, 62));
  }
  void SetUp() override {
    if (!engine::with_gloo()) GTEST_SKIP() << "built without Gloo";
  }
  /// Two epochs of three batches of 12 samples: steps of two batches, the last step with the remaining one.
  [[nodiscard]] static Job job(DType type) {
    Job job{.config = two_epochs(type), .dataset = *dataset_};
    job.config.wide_sums = true;
    job.config.schedule = engine::ScheduleKind::kStep;  // every step has a different learning rate
    job.config.warmup_epochs = 1;
    return job;
  }
  [[nodiscard]] static Scratch& scratch() { return *scratch_; }

 private:
  static Scratch* scratch_;
  static std::shared_ptr<const data::Dataset>* dataset_;
};
Scratch* MultiGpu::scratch_ = nullptr;
std::shared_ptr<const data::Dataset>* MultiGpu::dataset_ = nullptr;

/// Expects the means of each epoch to be close to those of a run with a different summation order.
void expect_near(const Outcome& got, const Outcome& want, double tolerance) {
  ASSERT_EQ(got.recorder.epochs.size(), want.recorder.epochs.size());
  for (std::size_t i = 0; i < want.recorder.epochs.size(); ++i) {
    const engine::EpochRecord& a = got.recorder.epochs[i];
    const engine::EpochRecord& b = want.recorder.epochs[i];
    EXPECT_EQ(a.samples, b.samples);
    EXPECT_EQ(a.bad_samples, b.bad_samples);
    EXPECT_NEAR(a.loss.total(), b.loss.total(), tolerance * b.loss.total());
    EXPECT_NEAR(a.grad_norm, b.grad_norm, 10 * tolerance * b.grad_norm);
    EXPECT_NEAR(*a.summary->measure("loss"), *b.summary->measure("loss"),
                tolerance * *b.summary->measure("loss"));
  }
}

TEST_P(MultiGpu, InFloatTrainsAsOneRankOfTheCpuOnTheSameSamples) {
  Job whole = job(DType::kF32);
  whole.on_cpu = true;
  const Outcomes one = run_well(whole);
  const Outcomes ranks = run_well(with_ranks(job(DType::kF32), GetParam()));
  EXPECT_EQ(global_batches(ranks), one[0]->batches);
  expect_near(*ranks[0], *one[0], 1e-3);
  EXPECT_LT(distance(ranks[0]->masters, one[0]->masters), 1e-3);
}

TEST_P(MultiGpu, InBf16GivesTheSameBitsHoweverLateTheSumsAreAndFollowsOneRank) {
  const Job wanted = with_ranks(job(DType::kBF16), GetParam());
  const Outcomes late = run_well(wanted);
  Job at_once = wanted;
  at_once.sums = Stream::When::kAtOnce;
  at_once.frames = Frames::kResident;
  at_once.two_communicators = true;
  EXPECT_TRUE(run_well(at_once)[0]->bits == late[0]->bits);
  const Outcomes one = run_well(job(DType::kBF16));
  EXPECT_EQ(global_batches(late), one[0]->batches);
  expect_near(*late[0], *one[0], 2e-2);
}

// Fewer samples than a global batch: slice sizes differ by at most one.
TEST_P(MultiGpu, ABatchThatIsNotFullIsSharedAsEvenlyAsMayBe) {
  for (const DType type : {DType::kF32, DType::kBF16}) {
    Job small = job(type);
    small.global_batch = 48;  // the split has 38 samples
    const Outcomes one = run_well(small);
    const Outcomes ranks = run_well(with_ranks(small, GetParam()));
    EXPECT_EQ(global_batches(ranks), one[0]->batches);
    const auto size_of = [](const auto& rank) { return rank->batches.at(0).size(); };
    const bool evenly = one[0]->batches.at(0).size() % ranks.size() == 0;
    EXPECT_EQ(size_of(ranks.back()), size_of(ranks.front()) + (evenly ? 0 : 1));
    expect_near(*ranks[0], *one[0], type == DType::kF32 ? 1e-3 : 2e-2);
  }
}

// A damaged sample on any rank is removed from the global batch, and the slices adapt.
TEST_P(MultiGpu, ASampleThatIsDamagedOnOneRankIsLeftOutOfAll) {
  for (const Frames frames : {Frames::kStaged, Frames::kResident}) {
    Job spoiled = job(DType::kF32);
    spoiled.frames = frames;
    // A sample of the last rank in the first epoch.
    const std::int64_t sample = run_well(spoiled)[0]->batches.at(1).back();
    const auto copy = damaged(scratch() / "a.h5", sample, scratch() / "damaged.h5");
    spoiled.config.epochs = 1;
    spoiled.dataset_of_last = copy;
    const Outcomes one = run_well(spoiled);
    const Outcomes ranks = run_well(with_ranks(spoiled, GetParam()));
    for (const auto& rank : ranks) {
      EXPECT_EQ(rank->recorder.epochs.at(0).bad_samples, 1);
      EXPECT_EQ(rank->recorder.epochs.at(0).samples, one[0]->recorder.epochs.at(0).samples);
    }
    EXPECT_EQ(global_batches(ranks), one[0]->batches);
    expect_near(*ranks[0], *one[0], 1e-3);
  }
}

TEST_P(MultiGpu, AnOverflowOnOneRankSkipsTheStepOnAllAndHalvesTheScaleOnce) {
  Job fp16 = with_ranks(job(DType::kF16), GetParam());
  const Outcomes calm = run_well(fp16);
  fp16.spoiled = {3};  // in the first step of the second epoch
  const Outcomes ranks = run_well(fp16);
  for (const auto& rank : ranks) {
    EXPECT_EQ(rank->result.bad_steps, 0);
    EXPECT_EQ(rank->result.overflow_steps, calm[0]->result.overflow_steps + 1);
    ASSERT_THAT(rank->steps, SizeIs(4));
    EXPECT_TRUE(rank->steps[2].skipped);
    EXPECT_EQ(rank->steps[2].loss_scale, rank->steps[1].loss_scale / 2);
  }
  Job bf16 = with_ranks(job(DType::kBF16), GetParam());
  bf16.spoiled = {3};
  for (const auto& rank : run_well(bf16)) {
    EXPECT_EQ(rank->result.bad_steps, 1);
    EXPECT_TRUE(rank->steps[2].skipped);
  }
}

TEST_P(MultiGpu, ResumesBitForBitAndOnAnotherNumberOfRanks) {
  Job interrupted = with_ranks(job(DType::kBF16), GetParam());
  const Outcomes undisturbed = run_well(interrupted);
  const Scratch states;
  interrupted.config.checkpoint_folder = states.path();
  interrupted.config.max_steps = 1;
  (void)run_well(interrupted);
  interrupted.config.max_steps = 0;
  {
    const Scratch copied;
    std::filesystem::copy(states.path(), copied.path(), std::filesystem::copy_options::recursive);
    Job same = interrupted;
    same.config.checkpoint_folder = copied.path();
    EXPECT_TRUE(run_well(same)[0]->bits == undisturbed[0]->bits);
  }
  const Outcomes other = run_well(with_ranks(interrupted, GetParam() == 4 ? 2 : GetParam() + 1));
  EXPECT_EQ(other[0]->result.step, undisturbed[0]->result.step);
  EXPECT_LT(distance(other[0]->masters, undisturbed[0]->masters), 2e-3);
}

// Resident frames were verified when uploaded, so ranks do not exchange the sizes of batches.
TEST_P(MultiGpu, AsksTheOtherRanksOnceAStepWhereSamplesAreKnownToBeGood) {
  Job counted = with_ranks(job(DType::kF32), GetParam());
  counted.config.epochs = 1;  // two steps, three batches in all
  std::map<std::string, std::int64_t> calls[2];
  std::string bits[2];
  for (const Frames frames : {Frames::kStaged, Frames::kResident}) {
    const std::size_t held = frames == Frames::kResident ? 1 : 0;
    counted.frames = frames;
    const Outcomes ranks = run_well(counted);
    calls[held] = ranks[0]->log.host_calls;
    bits[held] = ranks[0]->bits;
  }
  EXPECT_EQ(calls[0]["sizes of a batch"], 3);
  EXPECT_EQ(calls[1]["sizes of a batch"], 0);
  for (auto& by_name : calls) {
    EXPECT_EQ(by_name["sizes of all batches"], 1);
    EXPECT_EQ(by_name["whether to stop"], 2);
  }
  EXPECT_TRUE(bits[0] == bits[1]);
}

/// Model whose gradients are 1 in the first batch of a run and 2⁻⁹ in the others; in bf16, 1 + 2⁻⁹ is 1.
class Constant final : public engine::Model {
 public:
  Constant() : model_(make_model()) {}
  [[nodiscard]] const std::vector<engine::ParameterSpec>& parameters() const override {
    return model_->parameters();
  }
  [[nodiscard]] const engine::ModelSignature& signature() const override { return model_->signature(); }
  void forward_backward(engine::Context& context, const engine::ParameterStore& parameters,
                        const engine::Batch& /*batch*/, const engine::StepRandom& random,
                        const engine::GradientScale& /*scale*/, const engine::TensorList& outputs,
                        const engine::Tensor& losses) const override {
    const engine::ArenaScope scope(context.arena);
    const engine::Tensor& sum = parameters.gradients();
    const engine::Tensor more = context.allocate("gradients of a batch", sum.shape, sum.dtype);
    engine::ops::fill(context, random.step == 0 ? 1 : 0x1p-9, more);
    engine::ops::weighted_sum(context, 1, sum, 1, more, sum);
    for (const engine::Tensor& output : outputs) engine::ops::fill(context, 0, output);
    engine::ops::fill(context, 0.5, losses);
  }
  void predict(engine::Context& context, const engine::ParameterStore& parameters, const engine::Batch& batch,
               const engine::TensorList& outputs, const engine::Tensor& row_losses) const override {
    model_->predict(context, parameters, batch, outputs, row_losses);
  }

 private:
  std::unique_ptr<engine::Model> model_;
};

// With four ranks and three batches, each gradient is 4 · (1 + 2 · 2⁻⁹), of which bf16 keeps 4.
TEST_P(MultiGpu, InFp32SumsKeepWhatSixteenBitsLose) {
  Job constant = with_ranks(job(DType::kBF16), GetParam());
  constant.model = [] { return std::make_unique<Constant>(); };
  constant.config.grad_accum = 3;
  constant.config.max_steps = 1;
  const double norm_in_fp32 = run_well(constant)[0]->steps.at(0).grad_norm;
  constant.config.wide_sums = false;
  const double norm_in_bf16 = run_well(constant)[0]->steps.at(0).grad_norm;
  EXPECT_NEAR(norm_in_fp32 / norm_in_bf16, 1 + 0x1p-8, 1e-6);
}

INSTANTIATE_TEST_SUITE_P(Ranks, MultiGpu, ::testing::Values(2, 3, 4), ::testing::PrintToStringParamName());

/// Communication stream that can omit either of its two waits.
class Careless final : public engine::CommunicationStream {
 public:
  Careless(Stream::When when, bool waits, bool holds) : stream_(when), waits_(waits), holds_(holds) {}
  [[nodiscard]] engine::Stream stream() const override { return stream_.stream(); }
  void wait_for(engine::Stream compute) override {
    if (waits_) stream_.wait_for(compute);
  }
  void hold_up(engine::Stream compute) override {
    if (holds_) stream_.hold_up(compute);
  }

 private:
  HostCommunicationStream stream_;
  bool waits_;
  bool holds_;
};

class NcclDouble : public MultiGpu {};

TEST_F(NcclDouble, ShowsASumThatDoesNotWaitForBackwardOrIsNotWaitedFor) {
  Job careless = with_ranks(job(DType::kF32), 2);
  careless.config.epochs = 1;
  const std::string right = run_well(careless)[0]->bits;
  for (const bool waits : {true, false}) {
    if (!waits && schedule().landing == Landing::kEager) continue;  // backward is never late
    const Stream::When when = waits ? Stream::When::kLate : Stream::When::kAtOnce;
    careless.stream = [=] { return std::make_unique<Careless>(when, true, true); };
    EXPECT_TRUE(run_well(careless)[0]->bits == right);
    careless.stream = [=] { return std::make_unique<Careless>(when, waits, !waits); };
    const Outcomes wrong = run_job(careless);
    EXPECT_TRUE(!wrong[0]->error.empty() || wrong[0]->bits != right);
  }
}

/// Matches the allowed errors of a surviving rank: NCCL's message for a lost rank, or Gloo's, which names the
/// rank.
auto tells_of(int rank) {
  const std::string number = std::to_string(rank);
  return AnyOf(HasSubstr("remote process exited"),
               ::testing::ContainsRegex("(to|without) rank [0-9, ]*" + number),
               HasSubstr("rank " + number + " has left"));
}

class FailingRank : public MultiGpu {};

TEST_P(FailingRank, EndsTheOthersAtWhicheverCollectiveAndLeavesNothingHalfWritten) {
  if (schedule().order != Order::kForward || detects_races())
    GTEST_SKIP() << "says nothing of kernels: one schedule of one build is enough";
  Job failing = with_ranks(job(DType::kBF16), GetParam());
  failing.config.max_steps = 2;
  failing.config.checkpoint_every = {.count = 1, .in_steps = true};
  const Scratch whole;
  failing.config.checkpoint_folder = whole.path();
  const Outcomes undisturbed = run_well(failing);
  const std::int64_t collectives = undisturbed.back()->log.count;
  ASSERT_GT(collectives, 20);
  for (std::int64_t k = 0; k < collectives; ++k) {
    const Scratch states;
    failing.config.checkpoint_folder = states.path();
    failing.fail_at = k;
    failing.failing_rank = static_cast<int>(k % GetParam());
    const Outcomes ranks = run_job(failing);
    for (int rank = 0; rank < GetParam(); ++rank) {
      const std::string& error = ranks[static_cast<std::size_t>(rank)]->error;
      if (rank == failing.failing_rank) {
        EXPECT_THAT(error, HasSubstr("fails before")) << "collective " << k;
      } else {
        EXPECT_THAT(error, tells_of(failing.failing_rank)) << "collective " << k;
      }
    }
    for (const auto& entry : std::filesystem::directory_iterator(states.path())) {
      EXPECT_THAT(entry.path().filename().string(), AnyOf(".lock", Not(::testing::StartsWith("."))))
          << "collective " << k;
    }
    if (k % 8 != 0) continue;
    // The saved checkpoint is complete: the resumed run ends with the same bits.
    failing.fail_at = -1;
    EXPECT_TRUE(run_well(failing)[0]->bits == undisturbed[0]->bits) << "collective " << k;
  }
}

INSTANTIATE_TEST_SUITE_P(Ranks, FailingRank, ::testing::Values(2, 3, 4), ::testing::PrintToStringParamName());

}  // namespace
}  // namespace voca::simt::host
