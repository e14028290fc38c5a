#include "engine/telemetry/run_folder.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "engine/base/atomic_file.h"
#include "engine/base/error.h"
#include "tests/engine/support/files.h"

namespace voca::engine {
namespace {

using nlohmann::ordered_json;
using ::testing::HasSubstr;

class RunFolderTest : public ::testing::Test {
 protected:
  static std::string read(const std::filesystem::path& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }
  static void write(const std::filesystem::path& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
  }

  test::TemporaryFolder folder_;
  std::filesystem::path root_ = folder_.path();
};

ordered_json record(const std::string& kind, std::int64_t epoch, std::int64_t step) {
  return {{"kind", kind}, {"epoch", epoch}, {"step", step}, {"loss", 1.0 / static_cast<double>(step + 1)}};
}

/// What a run of `epochs` epochs, four steps each, tells from its beginning up to some step, as a trainer
/// does: steps, an epoch's line after its last step, the test at the end.
std::vector<ordered_json> story(std::int64_t epochs, std::int64_t from_step, std::int64_t to_step) {
  std::vector<ordered_json> lines;
  for (std::int64_t step = from_step + 1; step <= to_step; ++step) {
    lines.push_back(record("step", (step - 1) / 4 + 1, step));
    if (step % 4 == 0) lines.push_back(record("epoch", (step - 1) / 4 + 1, step));
    if (step == 4 * epochs) lines.push_back(record("test", epochs, step));
  }
  return lines;
}

TEST_F(RunFolderTest, IsMadeWithItsParents) {
  const RunFolder folder(root_ / "a" / "b");
  EXPECT_TRUE(std::filesystem::is_directory(root_ / "a" / "b"));
  EXPECT_FALSE(RunFolder::has_metrics(folder.path()));
  EXPECT_NO_THROW(RunFolder(root_ / "a" / "b"));
}

TEST_F(RunFolderTest, AFileInItsPlaceIsNamed) {
  write(root_ / "taken", "x");
  try {
    const RunFolder folder(root_ / "taken" / "run");
    FAIL();
  } catch (const IoError& error) {
    EXPECT_THAT(error.what(), HasSubstr((root_ / "taken").string()));
  }
}

TEST_F(RunFolderTest, ConfigIsReplacedWhole) {
  RunFolder folder(root_);
  folder.write_config({{"hidden", 768}, {"lr", 3e-4}});
  EXPECT_EQ(read(RunFolder::config_path(folder.path())), "{\n  \"hidden\": 768,\n  \"lr\": 0.0003\n}\n");
  folder.write_config({{"hidden", 64}});
  EXPECT_EQ(ordered_json::parse(read(RunFolder::config_path(folder.path()))), ordered_json({{"hidden", 64}}));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(root_), {}), 1) << "a temporary file stayed";
}

TEST_F(RunFolderTest, LinesKeepTheirOrderAndAreThereAtOnce) {
  RunFolder folder(root_);
  folder.start_metrics();
  folder.append({{"kind", "step"}, {"epoch", 0}, {"step", 1}, {"loss", 0.5}, {"cls", 0.25}});
  EXPECT_EQ(read(RunFolder::metrics_path(folder.path())),
            R"({"kind":"step","epoch":0,"step":1,"loss":0.5,"cls":0.25})"
            "\n");
  folder.append(record("epoch", 0, 1));
  EXPECT_THAT(read(RunFolder::metrics_path(folder.path())),
              ::testing::EndsWith(record("epoch", 0, 1).dump() + "\n"));
  EXPECT_TRUE(RunFolder::has_metrics(folder.path()));
}

TEST_F(RunFolderTest, WhatAKilledRunLeftHalfWrittenIsSwept) {
  write(root_ / ".config.json.Ab12zZ", "{");
  write(root_ / ".metrics.jsonl.Ab12zZ", "{");
  const RunFolder folder(root_);
  EXPECT_TRUE(std::filesystem::is_empty(root_));
}

TEST_F(RunFolderTest, RecordsThatCannotBeLookedAtAreNotTakenForNone) {
  RunFolder folder(root_);
  std::filesystem::create_symlink("metrics.jsonl", root_ / "metrics.jsonl");  // ELOOP, whoever asks
  EXPECT_THROW(static_cast<void>(RunFolder::has_metrics(folder.path())), IoError);
  EXPECT_THROW(folder.resume_metrics(1, 4), IoError);
}

TEST_F(RunFolderTest, NumbersThatAreNotFiniteBecomeNull) {
  RunFolder folder(root_);
  folder.start_metrics();
  folder.append({{"kind", "step"}, {"epoch", 0}, {"step", 1}, {"loss", NAN}, {"grad_norm", INFINITY}});
  EXPECT_EQ(read(RunFolder::metrics_path(folder.path())),
            R"({"kind":"step","epoch":0,"step":1,"loss":null,"grad_norm":null})"
            "\n");
}

TEST_F(RunFolderTest, DoublesComeBackExactly) {
  RunFolder folder(root_);
  folder.start_metrics();
  const double values[] = {0.1, 1.0 / 3.0, 5e-324, 1.7976931348623157e308, -2.5};
  for (const double value : values)
    folder.append({{"kind", "step"}, {"epoch", 0}, {"step", 1}, {"loss", value}});
  std::ifstream file(RunFolder::metrics_path(folder.path()));
  for (const double value : values) {
    std::string line;
    ASSERT_TRUE(std::getline(file, line));
    EXPECT_EQ(ordered_json::parse(line)["loss"].get<double>(), value);
  }
}

TEST_F(RunFolderTest, AFreshStartForgetsAnEarlierRun) {
  RunFolder folder(root_);
  folder.start_metrics();
  folder.append(record("step", 0, 1));
  folder.start_metrics();
  EXPECT_FALSE(RunFolder::has_metrics(folder.path()));
}

TEST_F(RunFolderTest, AFreshStartLeavesWhatALinkLeadsTo) {
  RunFolder folder(root_);
  const std::filesystem::path mine = root_ / "mine";
  write_file_atomically(mine, "mine");
  std::filesystem::create_symlink(mine, RunFolder::metrics_path(folder.path()));
  folder.start_metrics();
  folder.append(record("step", 0, 1));
  EXPECT_EQ(read_text_file(mine, 100), "mine");
  EXPECT_FALSE(std::filesystem::is_symlink(RunFolder::metrics_path(folder.path())));
}

TEST_F(RunFolderTest, APipeIsNotWaitedFor) {
  const RunFolder folder(root_);
  ASSERT_EQ(::mkfifo(RunFolder::metrics_path(folder.path()).c_str(), 0600), 0);
  EXPECT_THROW(visit_metrics(RunFolder::metrics_path(folder.path()), [](const auto&, auto) {}), DataError);
}

TEST_F(RunFolderTest, AResumedRunLeavesTheFileOfAnUninterruptedOne) {
  constexpr std::int64_t epochs = 3;
  std::string uninterrupted;
  for (const ordered_json& line : story(epochs, 0, 4 * epochs)) uninterrupted += line.dump() + "\n";
  for (std::int64_t told = 0; told <= 4 * epochs; ++told) {  // steps told before the crash
    for (std::int64_t saved = 0; saved <= told; ++saved) {   // the state it continues from
      // A state saved at the end of an epoch is of the next one, or still of this one if its evaluation is to
      // come: then the epoch's line will be told again.
      for (const std::int64_t done : {saved / 4, saved % 4 == 0 && saved > 0 ? saved / 4 - 1 : saved / 4}) {
        {
          RunFolder folder(root_);
          folder.start_metrics();
          for (const ordered_json& line : story(epochs, 0, told)) folder.append(line);
        }
        RunFolder folder(root_);
        folder.resume_metrics(done, saved);
        if (done < saved / 4) folder.append(record("epoch", done + 1, saved));
        if (saved == 4 * epochs) folder.append(record("test", epochs, saved));
        for (const ordered_json& line : story(epochs, saved, 4 * epochs)) folder.append(line);
        ASSERT_EQ(read(RunFolder::metrics_path(folder.path())), uninterrupted)
            << told << " told, resumed at " << saved;
      }
    }
  }
}

TEST_F(RunFolderTest, ALineCutShortIsRepaired) {
  const std::string first = record("step", 0, 1).dump() + "\n";
  const std::string second = record("step", 0, 2).dump() + "\n";
  for (std::size_t length = 0; length <= second.size(); ++length) {
    write(root_ / "metrics.jsonl", first + second.substr(0, length));
    RunFolder folder(root_);
    folder.resume_metrics(0, 2);
    // Whole but for its newline it is a record.
    const std::string expected = length + 1 < second.size() ? first : first + second;
    EXPECT_EQ(read(RunFolder::metrics_path(folder.path())), expected) << length;
    folder.append(record("step", 0, 3));
    EXPECT_EQ(read(RunFolder::metrics_path(folder.path())),
              fmt::format("{}{}\n", expected, record("step", 0, 3).dump()));
  }
}

TEST_F(RunFolderTest, WhatStandsInTheMiddleIsNotThrownAway) {
  const std::string good = record("step", 0, 1).dump() + "\n";
  for (const std::string bad :
       {"{\"kind\":\"st\n", "\n", "[1]\n", "{\"kind\":\"step\",\"epoch\":0}\n",
        "{\"kind\":7,\"epoch\":0,\"step\":1}\n", "{\"kind\":\"step\",\"epoch\":0,\"step\":1.5}\n"}) {
    const std::string text = fmt::format("{}{}{}", good, bad, good);
    write(root_ / "metrics.jsonl", text);
    RunFolder folder(root_);
    try {
      folder.resume_metrics(0, 2);
      FAIL() << bad;
    } catch (const DataError& error) {
      EXPECT_THAT(error.what(), HasSubstr("metrics.jsonl: line 2 "));
    }
    EXPECT_EQ(read(root_ / "metrics.jsonl"), text);
  }
}

TEST_F(RunFolderTest, ResumingWithoutAFileBeginsOne) {
  RunFolder folder(root_);
  folder.resume_metrics(2, 7);
  folder.append(record("step", 2, 8));
  EXPECT_EQ(read(RunFolder::metrics_path(folder.path())), record("step", 2, 8).dump() + "\n");
}

TEST_F(RunFolderTest, AppendingNeedsAnOpenFileAndARecord) {
  RunFolder folder(root_);
  EXPECT_THROW(folder.append(record("step", 0, 1)), InternalError);
  folder.start_metrics();
  EXPECT_THROW(folder.append({{"kind", "step"}}), InternalError);
  EXPECT_FALSE(RunFolder::has_metrics(folder.path()));
}

TEST_F(RunFolderTest, ADiskWithoutRoomIsNamed) {
  RunFolder folder(root_);
  folder.start_metrics();
  const auto before = std::signal(SIGXFSZ, SIG_IGN);  // as the program has it: an error of the write
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &limit), 0);
  const rlimit none{.rlim_cur = 0, .rlim_max = limit.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &none), 0);
  std::string said;
  try {
    folder.append(record("step", 0, 1));
  } catch (const IoError& error) {
    said = error.what();
  }
  ::setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, before);
  EXPECT_THAT(said, HasSubstr("metrics.jsonl: cannot write: File too large"));
}

}  // namespace
}  // namespace voca::engine
