// A finished run that goes on: --extend_epochs.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "engine/checkpoint/resume/resume_state.h"
#include "tests/engine/support/files.h"
#include "tests/engine/trainer/trainer_support.h"

namespace voca::engine {
namespace {

using test::bits_of;
using test::message_of;
using test::Recorder;
using test::TemporaryFolder;
using test::toy_config;
using test::ToyRun;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::int64_t kEpochs = 3;  // of toy_config()

/// The toy run in `folder`, with so many further epochs, taken up where it stands.
struct Process {
  Process(const std::filesystem::path& folder, std::int64_t extend_epochs, Recorder& recorder)
      : run(config_of(folder, extend_epochs), recorder) {}
  static TrainerConfig config_of(const std::filesystem::path& folder, std::int64_t extend_epochs) {
    TrainerConfig config = toy_config();
    config.schedule = ScheduleKind::kEpoch;
    config.extend_epochs = extend_epochs;
    config.checkpoint_folder = folder;
    return config;
  }
  TrainingResult resume() {
    EXPECT_TRUE(run.trainer.resume_latest());
    return run.trainer.run();
  }
  ToyRun run;
};

class ExtendedRun : public ::testing::Test {
 protected:
  void SetUp() override {
    Process process(folder(), 0, recorder_);
    static_cast<void>(process.run.trainer.run());
  }
  [[nodiscard]] const std::filesystem::path& folder() const { return folder_.path(); }
  /// What a resume with so many further epochs is refused with.
  std::string refusal(std::int64_t extend_epochs) {
    Process process(folder(), extend_epochs, recorder_);
    return message_of<UsageError>([&] { (void)process.run.trainer.resume_latest(); });
  }

  TemporaryFolder folder_;
  Recorder recorder_;
};

TEST_F(ExtendedRun, GoesOnFromTheLastEpochWithItsOwnCosine) {
  const std::vector<EpochRecord> before = recorder_.epochs;
  Process process(folder(), 2, recorder_);
  const TrainingResult result = process.resume();
  EXPECT_EQ(result.epochs, kEpochs + 2);
  ASSERT_EQ(recorder_.epochs.size(), before.size() + 2) << "the epochs before stand";
  EXPECT_EQ(recorder_.epochs[3].epoch, 4);
  const double lr = toy_config().lr;
  EXPECT_DOUBLE_EQ(recorder_.epochs[3].lr, lr / 10);
  EXPECT_DOUBLE_EQ(recorder_.epochs[4].lr, 1e-6 + (lr / 10 - 1e-6) / 2);
  EXPECT_THAT(recorder_.messages,
              Contains(AllOf(HasSubstr("extended: epochs 4 to 5"), HasSubstr("falls to 1e-06"))));
  EXPECT_FALSE(recorder_.epochs[4].val.empty()) << "the last one is always evaluated";
}

TEST_F(ExtendedRun, StoppedAtAnyMomentIsTheUninterruptedOne) {
  const TemporaryFolder start;
  std::filesystem::copy(folder(), start.path(), std::filesystem::copy_options::recursive);
  Recorder uninterrupted;
  uninterrupted.lines = recorder_.lines;
  Process whole(folder(), 2, uninterrupted);
  (void)whole.resume();
  const std::string expected = bits_of(whole.run.trainer.parameters());

  int stopped = 0;
  for (int moment = 1;; ++moment) {
    const TemporaryFolder again;
    std::filesystem::copy(start.path(), again.path(), std::filesystem::copy_options::recursive);
    Recorder recorder;
    recorder.lines = recorder_.lines;
    {
      Process process(again.path(), 2, recorder);
      process.run.trainer.set_stop_reason(
          [moment, asked = 0]() mutable { return ++asked == moment ? "SIGTERM" : nullptr; });
      try {
        (void)process.resume();
        break;
      } catch (const Interrupted&) {
        ++stopped;
      }
    }
    Process process(again.path(), 2, recorder);
    (void)process.resume();
    EXPECT_TRUE(bits_of(process.run.trainer.parameters()) == expected) << moment;
    EXPECT_EQ(recorder.lines, uninterrupted.lines) << moment;
  }
  EXPECT_GE(stopped, 12);  // steps of two epochs
}

TEST_F(ExtendedRun, CanBeExtendedOnceMore) {
  {
    Process process(folder(), 1, recorder_);
    EXPECT_EQ(process.resume().epochs, kEpochs + 1);
  }
  Process process(folder(), 3, recorder_);
  EXPECT_EQ(process.resume().epochs, kEpochs + 3);
  EXPECT_DOUBLE_EQ(recorder_.epochs[4].lr, toy_config().lr / 10) << "each extension has a cosine of its own";
}

TEST_F(ExtendedRun, ThatHadEndedReportsItsEndAgainAndNothingElse) {
  {
    Process process(folder(), 1, recorder_);
    (void)process.resume();
  }
  recorder_.calls.clear();
  Process process(folder(), 1, recorder_);
  (void)process.resume();
  EXPECT_THAT(recorder_.calls, ElementsAre(HasSubstr("start 4"), HasSubstr("last 4")));
}

TEST_F(ExtendedRun, OfAnotherLengthThanBegunIsRefused) {
  {
    Process process(folder(), 2, recorder_);
    process.run.trainer.set_stop_reason([asked = 0]() mutable { return ++asked == 2 ? "SIGTERM" : nullptr; });
    EXPECT_THROW((void)process.resume(), Interrupted);
  }
  EXPECT_THAT(refusal(0), AllOf(HasSubstr("--extend_epochs: is 0"), HasSubstr("continue it with 2")));
  EXPECT_THAT(refusal(1), HasSubstr("continue it with 2"));
  EXPECT_THAT(refusal(5),
              AllOf(HasSubstr("has done 3 of its 5 epochs"), HasSubstr("with --extend_epochs 2")));
}

TEST(ExtensionOfAnUnfinishedRun, IsRefused) {
  const TemporaryFolder folder;
  Recorder recorder;
  {
    Process process(folder.path(), 0, recorder);
    process.run.trainer.set_stop_reason([asked = 0]() mutable { return ++asked == 8 ? "SIGTERM" : nullptr; });
    EXPECT_THROW((void)process.run.trainer.run(), Interrupted);
  }
  Process process(folder.path(), 2, recorder);
  EXPECT_THAT(message_of<UsageError>([&] { (void)process.run.trainer.resume_latest(); }),
              AllOf(HasSubstr("--extend_epochs 2"), HasSubstr("of its 3 epochs; finish them first")));
}

}  // namespace
}  // namespace voca::engine
