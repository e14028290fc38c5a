// A run that was stopped or killed and taken up again is the run that was not: to the last bit, in everything
// but times.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "engine/checkpoint/resume/resume_state.h"
#include "engine/core/element.h"
#include "tests/engine/checkpoint/resume/resume_support.h"
#include "tests/engine/support/file_faults.h"
#include "tests/engine/support/files.h"
#include "tests/engine/trainer/trainer_support.h"

namespace voca::engine {
namespace {

using test::bits_of;
using test::FileFaults;
using test::message_of;
using test::Recorder;
using test::TemporaryFolder;
using test::toy_config;
using test::ToyRun;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

/// A kind of run; every one is interrupted everywhere.
struct Kind {
  const char* name;
  std::function<void(TrainerConfig&)> change = [](TrainerConfig&) {};
  std::int64_t outputs = 1;
  std::set<std::uint32_t> bad_batches = {};  ///< whose gradients are not finite
};

void spoil(ToyRun& run, const Kind& kind) {
  run.model.after_backward = [bad = kind.bad_batches](const ParameterStore& parameters,
                                                      const StepRandom& random, const Tensor&) {
    if (!bad.contains(random.step)) return;
    Tensor gradient = parameters.gradient(0);
    if (gradient.dtype == DType::kF64) {
      *gradient.as<double>() = std::nan("");
    } else {
      *gradient.as<float>() = std::numeric_limits<float>::infinity();
    }
  };
}

std::unique_ptr<ToyRun> make_run(const Kind& kind, Recorder& recorder,
                                 const std::filesystem::path& folder = {},
                                 const Interval& every = {.count = 1}) {
  TrainerConfig config = toy_config();
  kind.change(config);
  config.checkpoint_folder = folder;
  config.checkpoint_every = every;
  auto run = std::make_unique<ToyRun>(config, recorder, ToyRun::Setup{.outputs = kind.outputs});
  spoil(*run, kind);
  return run;
}

nlohmann::ordered_json json_of(const std::optional<ValidationSummary>& summary) {
  if (!summary) return nullptr;
  const auto number = [](const std::optional<double>& value) {
    return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json(nullptr);
  };
  return {summary->epoch,
          summary->step,
          number(summary->measure("loss")),
          number(summary->measure("acc")),
          number(summary->measure("auc")),
          number(summary->measure("ap")),
          number(summary->measure("threshold"))};
}

/// Everything that must not depend on interruptions.
struct Outcome {
  std::string bits;
  std::string best_bits;
  std::string last_bits;
  std::vector<Recorder::Line> lines;
  std::string result;
};

Outcome finish(ToyRun& run, const Recorder& recorder) {
  const TrainingResult result = run.trainer.run();
  return {.bits = bits_of(run.trainer.parameters()),
          .best_bits = recorder.best_bits,
          .last_bits = recorder.last_bits,
          .lines = recorder.lines,
          .result = nlohmann::ordered_json{result.epochs, result.step, result.bad_steps, json_of(result.best),
                                           json_of(result.last)}
                        .dump()};
}

void expect_same(const Outcome& outcome, const Outcome& expected) {
  EXPECT_TRUE(outcome.bits == expected.bits) << "weights or moments differ";
  EXPECT_TRUE(outcome.best_bits == expected.best_bits) << "another checkpoint is the best";
  EXPECT_TRUE(outcome.last_bits == expected.last_bits) << "another checkpoint is the last";
  EXPECT_EQ(outcome.lines, expected.lines);
  EXPECT_EQ(outcome.result, expected.result);
}

/// A reason to stop that comes at the `moment`-th time it is asked for.
Trainer::StopReason stop_at(int moment) {
  return [moment, asked = 0]() mutable { return ++asked == moment ? "SIGTERM" : nullptr; };
}

class ResumedRun : public testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    Recorder recorder;
    const auto run = make_run(GetParam(), recorder);
    expected_ = finish(*run, recorder);
    for (const auto& line : recorder.lines) steps_ = std::max(steps_, line.step);
    ASSERT_GE(steps_, 4);
  }
  /// Takes the run up in a new process and ends it.
  void resume_and_compare(Recorder& recorder, const std::filesystem::path& folder, const Interval& every,
                          bool saved) {
    const auto run = make_run(GetParam(), recorder, folder, every);
    EXPECT_EQ(run->trainer.resume_latest(), saved);
    expect_same(finish(*run, recorder), expected_);
  }

  Outcome expected_;
  std::int64_t steps_ = 0;
};

TEST_P(ResumedRun, StoppedAtAnyMomentIsTheUninterruptedOne) {
  bool stopped = true;
  int moment = 1;
  for (; stopped; ++moment) {
    SCOPED_TRACE(fmt::format("stopped when asked for the time {}", moment));
    const TemporaryFolder folder;
    Recorder recorder;
    const Interval at_the_end{};
    {
      const auto run = make_run(GetParam(), recorder, folder.path(), at_the_end);
      run->trainer.set_stop_reason(stop_at(moment));
      stopped = false;
      try {
        expect_same(finish(*run, recorder), expected_);
      } catch (const Interrupted& interrupted) {
        stopped = true;
        EXPECT_THAT(interrupted.what(), AllOf(HasSubstr("SIGTERM"), HasSubstr(folder.path())));
        EXPECT_EQ(interrupted.code(), ExitCode::kInterrupted);
      }
    }
    if (stopped) resume_and_compare(recorder, folder.path(), at_the_end, true);
  }
  EXPECT_GT(moment, steps_);  // it was asked after every step
}

TEST_P(ResumedRun, StoppedAgainAndAgainIsTheUninterruptedOne) {
  const TemporaryFolder folder;
  Recorder recorder;
  int processes = 0;
  for (bool stopped = true; stopped; ++processes) {
    const auto run = make_run(GetParam(), recorder, folder.path());
    EXPECT_EQ(run->trainer.resume_latest(), processes > 0);
    // An evaluation, which begins anew each time, asks four times.
    run->trainer.set_stop_reason(stop_at(6));
    stopped = false;
    try {
      expect_same(finish(*run, recorder), expected_);
    } catch (const Interrupted&) {
      stopped = true;
    }
    ASSERT_LT(processes, 50);
  }
  EXPECT_GT(processes, 1);
}

struct Killed {};

TEST_P(ResumedRun, KilledAfterAnyStepIsTheUninterruptedOne) {
  for (const Interval every : {Interval{1, true}, Interval{3, true}, Interval{1, false}}) {
    for (std::int64_t step = 1; step <= steps_; ++step) {
      SCOPED_TRACE(fmt::format("killed after step {}, saved every {} {}", step, every.count,
                               every.in_steps ? "steps" : "epochs"));
      const TemporaryFolder folder;
      Recorder recorder;
      {
        const auto run = make_run(GetParam(), recorder, folder.path(), every);
        recorder.progress = [&](const StepRecord& record) {
          if (record.step == step) throw Killed();
        };
        EXPECT_THROW(run->trainer.run(), Killed);
        recorder.progress = {};
      }
      const bool saved = find_resume_state(folder.path()).state.has_value();
      if (every.in_steps) {
        EXPECT_EQ(saved, step > every.count);
      }
      resume_and_compare(recorder, folder.path(), every, saved);
    }
  }
}

TEST_P(ResumedRun, KilledWhileItTellsIsTheUninterruptedOne) {
  for (int call = 1; call < 40; ++call) {
    const TemporaryFolder folder;
    Recorder recorder;
    bool killed = false;
    {
      const auto run = make_run(GetParam(), recorder, folder.path(), {1, true});
      recorder.after_call = [&, left = call](const std::string&) mutable {
        if (--left == 0) throw Killed();
      };
      try {
        (void)run->trainer.run();
      } catch (const Killed&) {
        killed = true;
      }
      recorder.after_call = {};
    }
    if (!killed) break;
    SCOPED_TRACE("killed after " + recorder.calls.back());
    resume_and_compare(recorder, folder.path(), {1, true},
                       find_resume_state(folder.path()).state.has_value());
  }
}

TEST_P(ResumedRun, ThatHadEndedTellsItsEndAgainAndNothingElse) {
  const TemporaryFolder folder;
  Recorder recorder;
  {
    const auto run = make_run(GetParam(), recorder, folder.path());
    expect_same(finish(*run, recorder), expected_);
  }
  recorder.calls.clear();
  resume_and_compare(recorder, folder.path(), {1, false}, true);
  EXPECT_THAT(recorder.calls, ElementsAre(HasSubstr("start"), HasSubstr("last")));
}

TEST_P(ResumedRun, WhoseDiskFailsKeepsTheStateBeforeAndIsTheUninterruptedOne) {
  int at = 0;
  for (bool failed = true; failed; at += 5) {  // five steps on: in time each of the twelve of a save
    SCOPED_TRACE(fmt::format("step {} of the files", at));
    const TemporaryFolder folder;
    Recorder recorder;
    {
      const auto run = make_run(GetParam(), recorder, folder.path(), {2, true});
      const FileFaults faults(at, ENOSPC);
      failed = false;
      try {
        expect_same(finish(*run, recorder), expected_);
      } catch (const IoError& error) {
        failed = true;
        EXPECT_THAT(error.what(), HasSubstr(folder.path().string()));
      }
      EXPECT_EQ(failed, faults.hit() == 1);
    }
    if (!failed) break;
    resume_and_compare(recorder, folder.path(), {2, true},
                       find_resume_state(folder.path()).state.has_value());
  }
  EXPECT_GT(at, 20);
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, ResumedRun,
    testing::Values(
        Kind{.name = "Plain"},
        Kind{.name = "Accumulating", .change = [](TrainerConfig& config) { config.grad_accum = 4; }},
        Kind{.name = "InDouble", .change = [](TrainerConfig& config) { config.compute_type = DType::kF64; }},
        Kind{.name = "OfClasses",
             .change = [](TrainerConfig& config) { config.select_by = "loss"; },
             .outputs = 3},
        Kind{.name = "WithoutVal", .change = [](TrainerConfig& config) { config.no_val = true; }},
        Kind{.name = "EndingWithinAnEpoch",
             .change =
                 [](TrainerConfig& config) {
                   config.max_steps = 10;
                   config.eval_every = 2;
                 }},
        Kind{.name = "WithBadSteps",
             .change = [](TrainerConfig& config) { config.max_bad_steps = 3; },
             .bad_batches = {1, 6, 7, 17}}),
    [](const auto& instance) { return instance.param.name; });

TEST(Resume, RefusesAStateOfOtherOptionsOrDataNamingBoth) {
  const TemporaryFolder folder;
  Recorder recorder;
  TrainerConfig config = toy_config();
  config.checkpoint_folder = folder.path();
  (void)ToyRun(config, recorder).trainer.run();
  const auto refusal = [&](const TrainerConfig& other) {
    ToyRun run(other, recorder);
    return message_of<DataError>([&] { (void)run.trainer.resume_latest(); });
  };
  TrainerConfig other = config;
  other.config_hash = "decaf";
  EXPECT_THAT(refusal(other), AllOf(HasSubstr(folder.path()), HasSubstr("configuration c0ffee"),
                                    HasSubstr("this run has decaf")));
  other = config;
  other.split_hash = "5p1it";
  EXPECT_THAT(refusal(other),
              AllOf(HasSubstr(folder.path()), HasSubstr("split 5eed"), HasSubstr("this run has 5p1it")));
}

TEST(Resume, RefusesAStateThatIsNoTrainings) {
  const TemporaryFolder folder;
  Recorder recorder;
  TrainerConfig config = toy_config();
  config.checkpoint_folder = folder.path();
  ToyRun run(config, recorder);
  const auto refusal_of = [&](const nlohmann::ordered_json& header) {
    const TemporaryFolder other;
    const auto path = ResumeStore(other.path()).save(header, {});
    std::string message = message_of<DataError>([&] { run.trainer.resume_from(path); });
    EXPECT_THAT(message, HasSubstr(path.string()));
    return message;
  };
  EXPECT_THAT(refusal_of({{"x", 1}}), HasSubstr("not a training state"));
  EXPECT_THAT(refusal_of({{"version", 2}}), AllOf(HasSubstr("of version 2"), HasSubstr("--init_from")));
  EXPECT_THAT(refusal_of({{"version", 3}, {"config_hash", "c0ffee"}, {"split_hash", 7}}),
              HasSubstr("not a training state"));
}

TEST(Resume, RefusesAStateOfAnotherModelNamingTheParameter) {
  const TemporaryFolder folder;
  Recorder recorder;
  TrainerConfig config = toy_config();
  config.checkpoint_folder = folder.path();
  (void)ToyRun(config, recorder).trainer.run();
  ToyRun run(config, recorder, {.outputs = 3});
  EXPECT_THAT(message_of<DataError>([&] { (void)run.trainer.resume_latest(); }),
              AllOf(HasSubstr(folder.path()), HasSubstr("output.weight")));
}

TEST(Resume, WithoutAStateNothingIsChanged) {
  const TemporaryFolder folder;
  Recorder recorder;
  TrainerConfig config = toy_config();
  config.checkpoint_folder = folder / "checkpoints";
  ToyRun run(config, recorder);
  const std::string before = bits_of(run.trainer.parameters());
  EXPECT_FALSE(run.trainer.resume_latest());
  EXPECT_TRUE(bits_of(run.trainer.parameters()) == before);
  EXPECT_THAT(recorder.messages, IsEmpty());
  EXPECT_THAT(message_of<DataError>([&] { run.trainer.resume_from(folder.path()); }),
              AllOf(HasSubstr("--resume"), HasSubstr(folder.path()), HasSubstr("no training state")));
  EXPECT_THROW(run.trainer.resume_from(folder / "nothing.resume"), IoError);
}

TEST(Resume, PassesOverADamagedStateAndSaysSo) {
  Recorder whole;
  const auto uninterrupted = make_run({.name = ""}, whole);
  const Outcome expected = finish(*uninterrupted, whole);
  const TemporaryFolder folder;
  Recorder recorder;
  {
    const auto run = make_run({.name = ""}, recorder, folder.path(), {1, true});
    run->trainer.set_stop_reason(stop_at(5));
    EXPECT_THROW(run->trainer.run(), Interrupted);
  }
  const auto newest = find_resume_state(folder.path()).state->path;
  std::filesystem::resize_file(newest, std::filesystem::file_size(newest) / 2);
  const auto run = make_run({.name = ""}, recorder, folder.path(), {1, true});
  EXPECT_TRUE(run->trainer.resume_latest());
  EXPECT_THAT(recorder.messages, ElementsAre(AllOf(HasSubstr(newest), HasSubstr("falling back")),
                                             AllOf(HasSubstr("resumed"), HasSubstr("step 4"))));
  expect_same(finish(*run, recorder), expected);
}

TEST(Resume, RefusesAStateWhoseBestEpochLacksTheMeasure) {
  const TemporaryFolder folder;
  Recorder recorder;
  {
    const auto run = make_run({.name = ""}, recorder, folder.path());
    (void)run->trainer.run();
  }
  const ResumeState state = *find_resume_state(folder.path()).state;
  nlohmann::ordered_json header = state.header;
  ASSERT_TRUE(header["progress"]["best"].contains("auc"));
  header["progress"]["best"].erase("auc");
  { (void)ResumeStore(folder.path()).save(header, state.tensors); }
  const auto run = make_run({.name = ""}, recorder, folder.path());
  EXPECT_THAT(message_of<DataError>([&] { (void)run->trainer.resume_latest(); }),
              HasSubstr("best epoch lacks auc"));
}

TEST(Resume, RefusesAStateWithNumbersThatNoRunComesTo) {
  const TemporaryFolder folder;
  Recorder recorder;
  {
    const auto run = make_run({.name = ""}, recorder, folder.path());
    (void)run->trainer.run();
  }
  const ResumeState state = *find_resume_state(folder.path()).state;
  const auto refusal_with = [&](const char* name, const nlohmann::ordered_json& value) {
    const TemporaryFolder other;
    nlohmann::ordered_json header = state.header;
    header["progress"][name] = value;
    const auto path = ResumeStore(other.path()).save(header, state.tensors);
    const auto run = make_run({.name = ""}, recorder, folder.path());
    return message_of<DataError>([&] { run->trainer.resume_from(path); });
  };
  for (const char* name : {"epochs_done", "batch", "step", "optimizer_steps", "extended_to"}) {
    EXPECT_THAT(refusal_with(name, -1), HasSubstr(std::string("its ") + name + " is -1"));
    EXPECT_THAT(refusal_with(name, std::uint64_t{1} << 63), HasSubstr("is not a training state"));
    EXPECT_THAT(refusal_with(name, "1"), HasSubstr("lacks an entry or has one of another type"));
  }
  EXPECT_THAT(refusal_with("epochs_done", 99), HasSubstr("it has done 99 epochs"));
  EXPECT_THAT(refusal_with("batch", 999), HasSubstr("999 batches"));
  EXPECT_THAT(refusal_with("lr", -1), HasSubstr("its lr is -1"));
}

TEST(Resume, ContinuesBitForBitFromAStateOfTheEarlierFormAndSaysSo) {
  Recorder whole;
  const auto uninterrupted = make_run({.name = ""}, whole);
  const Outcome expected = finish(*uninterrupted, whole);
  const TemporaryFolder folder;
  Recorder recorder;
  {
    const auto run = make_run({.name = ""}, recorder, folder.path());
    run->trainer.set_stop_reason(stop_at(5));
    EXPECT_THROW(run->trainer.run(), Interrupted);
  }
  const ResumeState present = *find_resume_state(folder.path()).state;
  test::write_bytes(present.path, test::earlier_form(present));
  const auto run = make_run({.name = ""}, recorder, folder.path());
  EXPECT_TRUE(run->trainer.resume_latest());
  EXPECT_THAT(recorder.messages, ElementsAre(HasSubstr("resumed"),
                                             AllOf(HasSubstr(present.path), HasSubstr("an earlier version"),
                                                   HasSubstr("saved in the present form"))));
  expect_same(finish(*run, recorder), expected);
  EXPECT_FALSE(find_resume_state(folder.path()).state->earlier_form);
}

TEST(Resume, TakesUpTheStateOfAnotherRunFolderByFileOrFolder) {
  Recorder whole;
  const auto uninterrupted = make_run({.name = ""}, whole);
  const Outcome expected = finish(*uninterrupted, whole);
  const TemporaryFolder first;
  Recorder recorder;
  {
    const auto run = make_run({.name = ""}, recorder, first.path());
    run->trainer.set_stop_reason(stop_at(4));
    EXPECT_THROW(run->trainer.run(), Interrupted);
  }
  for (const auto& path : {first.path(), find_resume_state(first.path()).state->path}) {
    const TemporaryFolder second;
    Recorder of_second;
    of_second.lines = recorder.lines;
    of_second.best_bits = recorder.best_bits;
    const auto run = make_run({.name = ""}, of_second, second.path());
    run->trainer.resume_from(path);
    expect_same(finish(*run, of_second), expected);
  }
}

TEST(Resume, GoesOnWhereMaxStepsEndedTheRun) {
  const auto config_of = [](std::int64_t max_steps) {
    return Kind{.name = "", .change = [max_steps](TrainerConfig& config) { config.max_steps = max_steps; }};
  };
  const Kind longer = config_of(11);
  Recorder whole;
  const auto uninterrupted = make_run(longer, whole);
  const Outcome expected = finish(*uninterrupted, whole);
  const TemporaryFolder folder;
  Recorder recorder;
  const Kind shorter = config_of(8);
  (void)make_run(shorter, recorder, folder.path())->trainer.run();
  const auto run = make_run(longer, recorder, folder.path());
  ASSERT_TRUE(run->trainer.resume_latest());
  EXPECT_TRUE(finish(*run, recorder).bits == expected.bits);
}

TEST(Resume, StoppedWithoutAFolderSaysThatNothingWasSaved) {
  Recorder recorder;
  ToyRun run(toy_config(), recorder);
  run.trainer.set_stop_reason([] { return "SIGINT"; });
  EXPECT_THAT(message_of<Interrupted>([&] { (void)run.trainer.run(); }),
              AllOf(HasSubstr("SIGINT"), HasSubstr("step 1"), HasSubstr("nothing was saved")));
}

TEST(Records, AreAskedForBeforeEveryStateThatHasPassedThem) {
  const TemporaryFolder folder;
  Recorder recorder;
  std::vector<std::string> order;
  recorder.before_saving = [&] { order.push_back("records " + recorder.calls.back()); };
  set_file_fault([&](FileStep step, const std::filesystem::path& path) {
    if (step == FileStep::kCreate && path.extension() == ".resume") order.push_back("state");
    return 0;
  });
  static_cast<void>(make_run({.name = "plain"}, recorder, folder.path())->trainer.run());
  set_file_fault({});
  EXPECT_THAT(
      order, ElementsAre("records epoch 1", "state", "records epoch 2", "state", "records epoch 3", "state"));
}

}  // namespace
}  // namespace voca::engine
