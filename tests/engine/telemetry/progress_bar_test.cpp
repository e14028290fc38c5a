#include "engine/telemetry/progress_bar.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace voca::engine {
namespace {

/// A ProgressBar whose time and terminal are in the test's hands.
class ProgressTest : public ::testing::Test {
 protected:
  [[nodiscard]] ProgressBarOptions options(bool redraw) {
    return {.quiet = false,
            .redraw = redraw,
            .seconds_between = 5,
            .width = [this] { return width_; },
            .clock = [this] { return now_; },
            .write =
                [this](std::string_view text) {
                  out_ += text;
                  ++writes_;
                }};
  }
  /// What was written since the last call.
  std::string written() { return std::exchange(out_, {}); }

  double now_ = 100;
  int width_ = 200;
  std::string out_;
  int writes_ = 0;
};

ProgressBar::State state_at(std::int64_t done) {
  return {.done = done,
          .total = 3000,
          .phase = "epoch 3/50",
          .samples_per_s = 5120.4,
          .loss = 0.43214,
          .lr = 3e-4};
}

TEST_F(ProgressTest, ALineSaysHowFarHowLongHowFastAndHowWell) {
  ProgressBar progress(options(true));
  progress.start("train", 0);
  now_ = 142;
  progress.update(state_at(1260));
  EXPECT_EQ(
      written(),
      "\rtrain  epoch 3/50   42% 1260/3000  eta 0:00:58  5120 samples/s  loss 0.4321  lr 3.00e-04\x1b[K");
}

TEST_F(ProgressTest, EtaCountsFromWhereTheRunWasTakenUp) {
  ProgressBar progress(options(false));
  progress.start("train", 1000);
  now_ += 100;
  progress.update({.done = 1500, .total = 3000});  // 500 in 100 s; 1500 to go
  EXPECT_EQ(written(), "train   50% 1500/3000  eta 0:05:00\n");
}

TEST_F(ProgressTest, NoEtaBeforeThereIsARate) {
  ProgressBar progress(options(true));
  progress.start("train", 10);
  progress.update({.done = 10, .total = 3000});
  EXPECT_EQ(written(), "\rtrain    0% 10/3000\x1b[K");
}

TEST_F(ProgressTest, APlainLineEveryFewSeconds) {
  ProgressBar progress(options(false));
  progress.start("train", 0);
  int lines = 0;
  for (int step = 1; step <= 100; ++step) {  // 0.3 s a step
    now_ += 0.3;
    progress.update(state_at(step));
    const std::string text = written();
    if (text.empty()) continue;
    ++lines;
    EXPECT_EQ(text.find_first_of("\r\x1b"), std::string::npos);
    EXPECT_EQ(text.back(), '\n');
  }
  EXPECT_EQ(lines, 5);  // every 17th: 5.1 s
}

TEST_F(ProgressTest, ATerminalIsRedrawnAtMostTenTimesASecond) {
  ProgressBar progress(options(true));
  progress.start("train", 0);
  int redrawn = 0;
  for (int step = 1; step <= 1024; ++step) {  // a second
    now_ += 0x1p-10;
    progress.update(state_at(step));
    redrawn += written().empty() ? 0 : 1;
  }
  EXPECT_GE(redrawn, 9);
  EXPECT_LE(redrawn, 11);
}

TEST_F(ProgressTest, WhatDoesNotFitIsLeftOutFromTheRight) {
  ProgressBar progress(options(true));
  progress.start("train", 0);
  const std::string full =
      "train  epoch 3/50   42% 1260/3000  eta 0:00:58  5120 samples/s  loss 0.4321  lr 3.00e-04";
  for (width_ = 1; width_ <= 100; ++width_) {
    progress.start("train", 0);
    written();  // the end of the line before
    now_ += 42;
    progress.update(state_at(1260));
    std::string text = written();
    ASSERT_EQ(text.front(), '\r');
    text = text.substr(1, text.size() - 1 - std::string_view("\x1b[K").size());
    EXPECT_LT(static_cast<int>(text.size()), std::max(width_, 2)) << width_;
    EXPECT_EQ(full.compare(0, text.size(), text), 0) << text;
    EXPECT_TRUE(text.size() == full.size() || full.compare(text.size(), 2, "  ") == 0 || text.empty())
        << text;
    EXPECT_EQ(text == full, width_ > static_cast<int>(full.size()));
  }
}

TEST_F(ProgressTest, TheEndIsAlwaysPrintedAndStays) {
  for (const bool redraw : {false, true}) {
    ProgressBar progress(options(redraw));
    progress.start("pack", 0);
    progress.update({.done = 1, .total = 40});
    now_ += 0.01;
    progress.update({.done = 40, .total = 40});
    written();
    now_ += 61;
    progress.finish();
    EXPECT_EQ(written(),
              redraw ? "\rpack  100% 40/40  took 0:01:01\x1b[K\n" : "pack  100% 40/40  took 0:01:01\n");
    progress.finish();
    EXPECT_EQ(written(), "");
  }
}

TEST_F(ProgressTest, MessagesKeepClearOfTheRedrawnLine) {
  ProgressBar progress(options(true));
  progress.start("pack", 0);
  progress.update({.done = 1, .total = 4});
  written();
  progress.message("skipped one");
  EXPECT_EQ(written(), "\r\x1b[Kskipped one\n\rpack   25% 1/4\x1b[K");
  ProgressBar plain(options(false));
  plain.message("skipped one");
  EXPECT_EQ(written(), "skipped one\n");
}

TEST_F(ProgressTest, EachLineAndEachMessageIsOneWrite) {
  for (const bool redraw : {false, true}) {
    ProgressBar progress(options(redraw));
    progress.start("train", 0);
    for (int step = 1; step <= 5; ++step) {
      now_ += 10;
      writes_ = 0;
      progress.update(state_at(step));
      EXPECT_EQ(writes_, 1);
      progress.message("a warning");
      EXPECT_EQ(writes_, 2);
    }
  }
}

TEST_F(ProgressTest, PlainLinesFitTheColumnsToo) {
  width_ = 80;
  ProgressBar progress(options(false));
  progress.start("train", 0);
  now_ = 142;
  progress.update(state_at(1260));
  EXPECT_EQ(written(), "train  epoch 3/50   42% 1260/3000  eta 0:00:58  5120 samples/s  loss 0.4321\n");
}

TEST_F(ProgressTest, AnOpenLineIsEndedWhenItsOwnerGoes) {
  {
    ProgressBar progress(options(true));
    progress.start("pack", 0);
    progress.update({.done = 1, .total = 4});
    written();
  }
  EXPECT_EQ(written(), "\n");
}

TEST_F(ProgressTest, QuietPrintsNothing) {
  ProgressBarOptions quiet = options(true);
  quiet.quiet = true;
  {
    ProgressBar progress(quiet);
    progress.start("pack", 0);
    for (int i = 0; i < 10; ++i) {
      now_ += 10;
      progress.update(state_at(i));
      progress.message("hello");
    }
    progress.finish();
  }
  EXPECT_EQ(written(), "");
}

TEST_F(ProgressTest, UnknownTotalsAndStrangeNumbersArePrintable) {
  ProgressBar progress(options(true));
  progress.start("scan", 0);
  progress.update({.done = 17, .total = 0, .loss = NAN, .lr = INFINITY});
  EXPECT_EQ(written(), "\rscan  17  loss nan  lr inf\x1b[K");
}

TEST_F(ProgressTest, APhaseNeedNotOutliveTheCall) {
  ProgressBar progress(options(false));
  progress.start("train", 0);
  {
    std::string phase = "epoch 1/2";
    progress.update({.done = 1, .total = 4, .phase = phase});
    phase.assign(phase.size(), '#');
  }
  now_ += 3;
  progress.finish();
  EXPECT_EQ(written(), "train  epoch 1/2   25% 1/4  eta 0:00:09\n");
}

TEST(FormatDuration, HoursAndDays) {
  EXPECT_EQ(format_duration(0), "0:00:00");
  EXPECT_EQ(format_duration(-5), "0:00:00");
  EXPECT_EQ(format_duration(59.6), "0:01:00");
  EXPECT_EQ(format_duration(3723), "1:02:03");
  EXPECT_EQ(format_duration(2 * 86400 + 3 * 3600 + 4 * 60 + 5), "2d 03:04:05");
  EXPECT_EQ(format_duration(std::numeric_limits<double>::infinity()), format_duration(1e12));
}

}  // namespace
}  // namespace voca::engine
