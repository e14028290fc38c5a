// Nothing that exists is destroyed by accident: outputs that are inputs, of another kind, or of another run.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>
#include <tuple>

#include "engine/base/atomic_file.h"
#include "engine/comm/communicator.h"
#include "tests/data/support/scratch.h"
#include "tests/tools/support/program.h"
#include "tests/tools/support/small_data.h"

namespace voca::tools::testing {
namespace {

namespace fs = std::filesystem;
using data::testing::Scratch;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

/// Of a file that must be there.
std::string existing_text(const fs::path& path) {
  return engine::read_text_file(path, std::size_t{1} << 24);
}

void write_text(const fs::path& path, const std::string& text) {
  std::ofstream(path) << text;
}

/// A tree, its packed file f.h5, and a checkpoint a.pt of the run a.run.
class Outputs : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch_ = new Scratch;
    make_small_tree(here() / "tree", 40);
    pack_small_tree(here() / "tree", here() / "f.h5");
    const Outcome trained = run(training("--save_path=a.pt", "--save_last=last.pt"), here());
    ASSERT_EQ(trained.exit_code, 0) << trained.err;
    write_text(here() / "notes.txt", "what I must not lose\n");
  }
  static void TearDownTestSuite() {
    delete scratch_;
    scratch_ = nullptr;
  }
  static fs::path here() { return scratch_->path(); }
  /// The exit code of a script in the folder, 128 + n where signal n ended it; `voca` is the program.
  static int shell(const std::string& script) {
    write_text(here() / "script.sh",
               "voca() { '" VOCA_PROGRAM "' \"$@\"; }\ncd '" + here().string() + "'\n" + script + "\n");
    return WEXITSTATUS(std::system(("bash '" + (here() / "script.sh").string() + "'").c_str()));
  }
  template <typename... More>
  static Words training(const More&... more) {
    return small_training("f.h5") + Words{"--epochs=1", more...};
  }
  static Words predicting(const std::string& out) {
    return {"predict", "--checkpoint=a.pt", "--features_root=f.h5", "--out=" + out};
  }
  /// Expects one line that begins with the option, holds `holds`, and `file` as it was.
  static void expect_kept(const fs::path& file, const Words& words, const std::string& begins,
                          const std::string& holds, int exit_code = 64) {
    const std::string before = fs::is_regular_file(here() / file) ? existing_text(here() / file) : "";
    const Outcome outcome = run(words, here());
    EXPECT_EQ(outcome.exit_code, exit_code) << outcome.err;
    EXPECT_THAT(outcome.message(), AllOf(StartsWith("voca-engine: " + begins), HasSubstr(holds)));
    EXPECT_EQ(outcome.out, "");
    if (before.empty()) return;
    EXPECT_TRUE(existing_text(here() / file) == before) << file << " was changed";
  }

 private:
  static Scratch* scratch_;
};
Scratch* Outputs::scratch_ = nullptr;

TEST_F(Outputs, ThatAreInputsAreRefusedByEveryCommand) {
  expect_kept("f.h5", training("--save_path=f.h5"), "--save_path f.h5", "--features_root names");
  expect_kept("f.h5", training("--save_path=b.pt", "--save_last=./f.h5"), "--save_last",
              "--features_root names");
  expect_kept("a.pt", training("--init_from=a.pt", "--save_path=a.pt", "--run_dir=other"), "--save_path a.pt",
              "--init_from names");
  expect_kept("a.pt", predicting("a.pt"), "--out a.pt", "--checkpoint names");
  expect_kept("f.h5", predicting("f.h5"), "--out f.h5", "--features_root names");
  expect_kept("last.pt", predicting("last.pt") + Words{"--checkpoint=a.pt,last.pt"}, "--", "last.pt");
  EXPECT_EQ(run({"inspect", "a.pt", "--export=w.safetensors"}, here()).exit_code, 0);
  expect_kept("w.safetensors", {"inspect", "w.safetensors", "--export=w.safetensors", "--overwrite"},
              "--export", "FILE names");
}

TEST_F(Outputs, ThatAreInputsUnderAnotherNameAreRefused) {
  fs::create_symlink(here() / "f.h5", here() / "link.pt");
  fs::create_hard_link(here() / "f.h5", here() / "hard.pt");
  expect_kept("f.h5", training("--save_path=link.pt"), "--save_path link.pt", "--features_root names");
  expect_kept("f.h5", training("--save_path=hard.pt"), "--save_path hard.pt", "--features_root names");
  expect_kept("f.h5", predicting("hard.pt"), "--out hard.pt", "--features_root names");
}

TEST_F(Outputs, OfAnotherKindAreRefusedThoughOverwriteIsGiven) {
  for (const char* overwrite : {"--overwrite=false", "--overwrite"}) {
    expect_kept("notes.txt", training("--save_path=notes.txt", overwrite), "--save_path notes.txt",
                "is not a checkpoint");
    expect_kept("notes.txt", predicting("notes.txt") + Words{overwrite}, "--out notes.txt",
                "is not predictions");
    expect_kept("notes.txt", {"pack", "--features_root=tree", "--out=notes.txt", overwrite},
                "--out notes.txt", "is not a packed dataset");
    expect_kept("a.pt", {"pack", "--features_root=tree", "--out=a.pt", overwrite}, "--out a.pt",
                "is not a packed dataset");
  }
  write_text(here() / "n.safetensors", "not weights");
  expect_kept("n.safetensors", {"inspect", "a.pt", "--export=n.safetensors", "--overwrite"},
              "--export n.safetensors", "is not a .safetensors");
  write_text(here() / "g.h5.report.json", "my own report, not JSON");
  expect_kept("g.h5.report.json", {"pack", "--features_root=tree", "--out=g.h5"}, "--out g.h5.report.json",
              "is not a JSON report");
  EXPECT_FALSE(fs::exists(here() / "g.h5"));
}

TEST_F(Outputs, OfAnotherRunNeedOverwrite) {
  expect_kept("a.pt", training("--save_path=a.pt", "--run_dir=b.run"), "--save_path a.pt",
              "replace it with --overwrite");
  expect_kept("a.pt", training("--save_path=b.pt", "--save_last=a.pt", "--run_dir=b.run"), "--save_last a.pt",
              "--overwrite");
  expect_kept("a.pt", training("--save_path=a.pt", "--run_dir=b.run", "--resume=auto"), "--save_path a.pt",
              "is not of this run");
  EXPECT_EQ(run(predicting("p.csv"), here()).exit_code, 0);
  expect_kept("p.csv", predicting("p.csv"), "--out p.csv", "--overwrite");
  EXPECT_EQ(run(predicting("p.csv") + Words{"--overwrite"}, here()).exit_code, 0);
  EXPECT_EQ(run({"pack", "--features_root=tree", "--out=p.h5"}, here()).exit_code, 0);
  expect_kept("p.h5", {"pack", "--features_root=tree", "--out=p.h5"}, "--out p.h5", "--overwrite");
  EXPECT_EQ(run({"pack", "--features_root=tree", "--out=p.h5", "--overwrite"}, here()).exit_code, 0);
}

TEST_F(Outputs, OfTheRunItselfAreReplacedWhenItGoesOn) {
  const Words words = training("--save_path=own.pt", "--save_last=own_last.pt");
  ASSERT_EQ(run(words, here()).exit_code, 0);
  const Outcome again = run(words + Words{"--resume=auto"}, here());
  EXPECT_EQ(again.exit_code, 0) << again.err;
  const Outcome anew = run(words + Words{"--overwrite"}, here());
  EXPECT_EQ(anew.exit_code, 0) << anew.err;
}

TEST_F(Outputs, OfOneNameAreRefused) {
  expect_kept("x.pt", training("--save_path=x.pt", "--save_last=./x.pt"), "--save_last", "--save_path names");
  expect_kept("x", training("--run_dir=x", "--save_path=x/config.json"), "--save_path x/config.json",
              "--run_dir");
  expect_kept("x", training("--run_dir=x", "--save_path=x/checkpoints/best.pt"),
              "--save_path x/checkpoints/best.pt", "lies in the folder of the resume states");
  expect_kept("x.h5", training("--save_path=x.h5"), "--save_path x.h5", "name it .pt or .safetensors");
  expect_kept("x", predicting(""), "predict: --out preds.csv is needed", "where the CSV goes");
  expect_kept("x", {"inspect", "a.pt", "--export="}, "inspect: --export F.safetensors is needed",
              "write the weights");
  expect_kept("x", {"inspect", "a.pt", "--overwrite"}, "--overwrite", "--export names, which is not given");
}

TEST_F(Outputs, AreCheckedBeforeTheWork) {
  for (const std::string& out : {std::string("no/x.csv"), std::string("notes.txt/x.csv")}) {
    const Outcome outcome = run(predicting(out), here());
    EXPECT_EQ(outcome.exit_code, 74);
    EXPECT_THAT(outcome.err, StartsWith("voca-engine: --out " + out)) << "before anything else is said";
  }
  expect_kept("no", {"pack", "--features_root=tree", "--out=no/x.h5"}, "--out no/x.h5", "does not exist", 74);
  expect_kept("no", {"inspect", "a.pt", "--export=no/x.safetensors"}, "--export no/x.safetensors",
              "does not exist", 74);
  expect_kept("tree", predicting("tree"), "--out tree", "is a folder");
  for (const char* run_dir : {"notes.txt", "notes.txt/run"}) {
    const Outcome outcome = run(training(std::string("--run_dir=") + run_dir), here());
    EXPECT_EQ(outcome.exit_code, 64);
    EXPECT_THAT(outcome.message(),
                AllOf(StartsWith("voca-engine: --run_dir"), HasSubstr("notes.txt is a file")));
  }
  // A place that permissions alone do not tell of.
  expect_kept("no", predicting("/proc/x.csv"), "--out /proc/x.csv", "cannot write into /proc", 74);
  expect_kept("no", training("--save_path=/proc/x.pt", "--run_dir=y.run"), "--save_path /proc/x.pt",
              "cannot write into /proc", 74);
  // A name for which there is room, but not for that of the file it is written as first.
  const std::string name(250, 'z');
  expect_kept("no", predicting(name), "--out " + name, "File name too long", 74);
  expect_kept("no", training("--save_last=" + name, "--run_dir=y.run"), "--save_last " + name,
              "File name too long", 74);
  EXPECT_FALSE(fs::exists(here() / "no"));
  for (const auto& entry : fs::directory_iterator(here()))
    EXPECT_FALSE(entry.path().filename().string().starts_with("."))
        << entry.path() << ": nothing stays of the checks";
}

TEST_F(Outputs, MayBeADeviceWherePredictionsGo) {
  EXPECT_EQ(run(predicting("/dev/null"), here()).exit_code, 0);
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  expect_kept("no", training("--save_path=/dev/null"), "--save_path /dev/null", "is not a regular file");
}

TEST_F(Outputs, WhatADescriptorsNameLeadsToIsWrittenTo) {
  const std::string predict = "voca predict --checkpoint a.pt --features_root f.h5 --quiet --out ";
  ASSERT_EQ(shell(predict + "- > asked.csv"), 0);
  const std::string csv = existing_text(here() / "asked.csv");
  ASSERT_THAT(csv, StartsWith("id,label,"));
  EXPECT_EQ(shell("echo before > d.csv; " + predict + "/dev/fd/3 3>> d.csv > /dev/null"), 0);
  EXPECT_EQ(existing_text(here() / "d.csv"), "before\n" + csv);
  // Of stdout there is the CSV alone.
  EXPECT_EQ(shell("ln -s /proc/self/fd/1 out; " + predict + "out > e.csv"), 0);
  EXPECT_EQ(existing_text(here() / "e.csv"), csv);
  EXPECT_TRUE(fs::is_symlink(here() / "out"));
  EXPECT_EQ(shell("mkfifo pipe; cat pipe > g.csv & " + predict + "pipe > /dev/null; wait"), 0);
  EXPECT_EQ(existing_text(here() / "g.csv"), csv);
  EXPECT_TRUE(fs::is_fifo(here() / "pipe"));
  expect_kept("no", training("--save_path=/dev/fd/1", "--run_dir=fd.run"), "--save_path /dev/fd/1",
              "is not a regular file");
}

TEST_F(Outputs, ThroughALinkReplaceItsTarget) {
  fs::create_directories(here() / "elsewhere");
  for (const char* name : {"l.csv", "l.h5", "l.pt"})
    fs::create_symlink(fs::path("elsewhere") / name, here() / name);
  for (const char* overwrite :
       {"--overwrite=false", "--overwrite"}) {  // made through the dangling link, then replaced
    EXPECT_EQ(run(predicting("l.csv") + Words{overwrite}, here()).exit_code, 0);
    EXPECT_EQ(run({"pack", "--features_root=tree", "--out=l.h5", overwrite}, here()).exit_code, 0);
    EXPECT_EQ(run(training("--save_path=l.pt", overwrite), here()).exit_code, 0);
    for (const char* name : {"l.csv", "l.h5", "l.pt"}) {
      EXPECT_TRUE(fs::is_symlink(here() / name)) << name;
      EXPECT_TRUE(fs::is_regular_file(here() / "elsewhere" / name)) << name;
    }
  }
  fs::create_symlink("nowhere/x.csv", here() / "lost.csv");
  expect_kept("no", predicting("lost.csv"), "--out lost.csv", "does not exist", 74);
}

TEST_F(Outputs, EndQuietlyWhenTheirReaderHasReadEnough) {
  // Through the gate the writer waits until nobody can read any more.
  ASSERT_EQ(shell("mkfifo gate"), 0);
  for (const char* command : {"predict --device cpu --checkpoint a.pt --features_root f.h5",
                              "eval --device cpu --checkpoint a.pt --features_root f.h5",
                              "predict --device cpu --checkpoint a.pt --features_root f.h5 --out /dev/stdout",
                              "inspect a.pt", "help"}) {
    EXPECT_EQ(shell(std::string("{ read -r _ < gate; voca ") + command +
                    " 2> said; } | { exec <&-; echo > gate; }; exit ${PIPESTATUS[0]}"),
              128 + SIGPIPE)
        << command;
    EXPECT_EQ(existing_text(here() / "said"), "") << command;
  }
  // Nobody reads what it says meanwhile: the work is done all the same.
  const std::string train =
      "voca train --features_root f.h5 --hidden 16 --num_layers 1 --num_heads 2 --seq_len 12 --batch_size 8 "
      "--epochs 1 ";
  EXPECT_EQ(shell(train + "--save_path quiet.pt 2>&1 > /dev/null | :; exit ${PIPESTATUS[0]}"), 0);
  EXPECT_EQ(run({"inspect", "quiet.pt", "--verify"}, here()).exit_code, 0);
}

TEST_F(Outputs, HalfWrittenByAKilledProcessAreSwept) {
  const std::vector<std::string> leftovers{".s.h5.Ab12zZ",  ".s.h5.report.json.Ab12zZ",
                                           ".s.pt.Ab12zZ",  ".s_last.pt.Ab12zZ",
                                           ".s.csv.Ab12zZ", ".s.safetensors.Ab12zZ"};
  for (const std::string& name : leftovers) write_text(here() / name, "half");
  EXPECT_EQ(run({"pack", "--features_root=tree", "--out=s.h5"}, here()).exit_code, 0);
  EXPECT_EQ(run(training("--save_path=s.pt", "--save_last=s_last.pt"), here()).exit_code, 0);
  EXPECT_EQ(run(predicting("s.csv"), here()).exit_code, 0);
  EXPECT_EQ(run({"inspect", "a.pt", "--export=s.safetensors"}, here()).exit_code, 0);
  for (const std::string& name : leftovers) EXPECT_FALSE(fs::exists(here() / name)) << name;
}

/// Starts the command and sends the signal once a name that begins so lies in the folder; tries again where
/// the command was faster.
void expect_stopped(const Words& words, const fs::path& folder, const std::string& begins, int signal) {
  const std::set<fs::path> before{fs::directory_iterator(folder), {}};
  for (int tries = 0; tries < 20; ++tries) {
    Process process(words, folder);
    const auto begun = [&] {
      std::error_code error;
      for (fs::recursive_directory_iterator entry(folder, error), end; !error && entry != end;
           entry.increment(error))
        if (entry->path().filename().string().starts_with(begins)) return true;
      return false;
    };
    while (process.running() && !begun()) continue;
    process.signal(signal);
    const Outcome outcome = process.wait();
    EXPECT_FALSE(begun()) << "something stays";
    if (outcome.exit_code == 0) {
      for (const auto& entry : fs::directory_iterator(folder))
        if (!before.contains(entry.path())) fs::remove_all(entry.path());
      continue;
    }
    EXPECT_EQ(outcome.exit_code, -signal) << outcome.err;
    EXPECT_THAT(outcome.message(), HasSubstr("stopped by")) << outcome.err;
    return;
  }
  ADD_FAILURE() << "never in time";
}

TEST_F(Outputs, OfAPackOrSynthThatIsStoppedLeaveNothing) {
  const fs::path folder = here() / "stopped";
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) {
    fs::create_directories(folder);
    expect_stopped({"synth", "--out=tree", "--videos=1000", "--frames_max=60", "--quiet"}, folder, ".synth.",
                   signal);
    EXPECT_TRUE(fs::is_empty(folder));
    make_small_tree(folder / "tree", 400);
    expect_stopped({"pack", "--features_root=tree", "--out=k.h5", "--num_workers=1", "--quiet"}, folder,
                   ".k.h5.", signal);
    EXPECT_EQ(std::distance(fs::directory_iterator(folder), {}), 1);
    fs::remove_all(folder);
  }
}

TEST_F(Outputs, ThatWillNotBeWrittenAreSaidBeforeTheTraining) {
  expect_kept("no", training("--no_val", "--save_path=n.pt", "--save_last=m.pt"), "--save_path",
              "nothing is selected");
  write_text(here() / "n.json", R"({"no_val": true, "save_path": "n.pt", "save_last": "m.pt"})");
  const Outcome outcome = run(training("--config=n.json"), here(), {{"COLUMNS", "200"}});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("note: --save_path n.pt will not be written"));
  EXPECT_FALSE(fs::exists(here() / "n.pt"));
  EXPECT_TRUE(fs::exists(here() / "m.pt"));
}

TEST_F(Outputs, AFolderOfAnotherProgramIsNoRunFolder) {
  fs::create_directories(here() / "theirs" / "checkpoints");
  write_text(here() / "theirs" / "config.json", "{\"model_type\": \"bert\"}\n");
  write_text(here() / "theirs" / "checkpoints" / "epoch_3.pt", "a model of theirs");
  expect_kept("theirs/config.json", training("--run_dir=theirs", "--overwrite"), "--run_dir theirs",
              "not of a training");
  fs::remove(here() / "theirs" / "config.json");
  const Words words = training("--run_dir=theirs");
  ASSERT_EQ(run(words, here()).exit_code, 0);
  ASSERT_EQ(run(words + Words{"--overwrite"}, here()).exit_code, 0);
  EXPECT_EQ(existing_text(here() / "theirs" / "checkpoints" / "epoch_3.pt"), "a model of theirs");
}

TEST_F(Outputs, OfTheRunDoNotGoIntoTheData) {
  for (const char* run_dir : {"tree", "tree/real", "tree/runs/1"}) {
    expect_kept("no", small_training("tree") + Words{std::string("--run_dir=") + run_dir}, "--run_dir",
                "lies in the feature tree");
  }
  EXPECT_FALSE(fs::exists(here() / "tree" / "runs"));
}

TEST_F(Outputs, ThatNobodyGetsAreNotTakenForDone) {
  const auto exit_code_of = [](const std::string& words) {
    const std::string command =
        "cd '" + here().string() + "' && exec '" VOCA_PROGRAM "' " + words + " >&- 2>/dev/null";
    return WEXITSTATUS(std::system(command.c_str()));
  };
  EXPECT_EQ(exit_code_of("predict --checkpoint a.pt --features_root f.h5"), 74);
  EXPECT_EQ(exit_code_of("eval --checkpoint a.pt --features_root f.h5"), 74);
  EXPECT_EQ(exit_code_of("inspect a.pt"), 74);
}

TEST_F(Outputs, StayCleanWithStdinStdoutAndStderrClosed) {
  const std::string command =
      "cd '" + here().string() +
      "' && exec '" VOCA_PROGRAM
      "' train --features_root f.h5 --hidden 16 --num_layers 1 --num_heads 2 --seq_len 12 "
      "--batch_size 8 --epochs 2 --log_every 1 --save_path closed.pt <&- >&- 2>&-";
  EXPECT_EQ(std::system(command.c_str()), 0);
  std::ifstream lines(here() / "closed.run" / "metrics.jsonl");
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count)
    EXPECT_TRUE(nlohmann::json::parse(line, nullptr, false).is_object()) << line;
  EXPECT_GE(count, 4);
  const Outcome inspected = run({"inspect", "closed.pt", "--verify"}, here());
  EXPECT_EQ(inspected.exit_code, 0) << inspected.err;
}

/// A command of a shell that closes the descriptors of `closed`, a bit each.
std::string with_closed(int closed, const std::string& words) {
  std::string command = "exec '" VOCA_PROGRAM "' " + words;
  for (const auto& [bit, closing, open] :
       {std::tuple{1, " <&-", " </dev/null"}, std::tuple{2, " >&-", " >/dev/null"},
        std::tuple{4, " 2>&-", " 2>/dev/null"}})
    command += (closed & bit) != 0 ? closing : open;
  return command;
}

TEST_F(Outputs, OfAJobStayCleanWhicheverDescriptorsAreClosed) {
  for (int closed = 1; closed < 8; ++closed) {
    for (const int ranks : {1, 2}) {
      if (ranks > 1 && !engine::with_gloo()) continue;
      SCOPED_TRACE(fmt::format("closed {}, {} ranks", closed, ranks));
      const std::string name = fmt::format("closed{}{}", closed, ranks);
      const std::string words = fmt::format(
          "launch --nproc_per_node {0} -- train --features_root f.h5 --hidden 16 --num_layers 1 --num_heads "
          "2 --seq_len 12 --batch_size 8 --epochs 1 --log_every 1 --run_dir {1} --save_path {1}.pt",
          ranks, name);
      // What several ranks print passes through the launcher, which finds that nobody gets it.
      const int expected = ranks > 1 && (closed & 2) != 0 ? 74 : 0;
      const int status =
          std::system(("cd '" + here().string() + "' && " + with_closed(closed, words)).c_str());
      EXPECT_EQ(WEXITSTATUS(status), expected);
      std::ifstream lines(here() / name / "metrics.jsonl");
      bool tested = false;
      for (std::string line; std::getline(lines, line);) {
        const nlohmann::json record = nlohmann::json::parse(line, nullptr, false);
        ASSERT_TRUE(record.is_object()) << line;
        tested |= record["kind"] == "test";
      }
      EXPECT_TRUE(tested);
      EXPECT_EQ(run({"inspect", name + ".pt", "--verify"}, here()).exit_code, 0);
    }
  }
}

TEST_F(Outputs, OfALauncherThatAreClosedDoNotKeepSignalsFromIt) {
  const pid_t launcher = ::fork();
  ASSERT_GE(launcher, 0);
  if (launcher == 0) {
    static_cast<void>(::chdir(here().c_str()) == 0);
    const std::string command = with_closed(
        7,
        "launch -- train --features_root f.h5 --hidden 16 --num_layers 1 --num_heads 2 --seq_len 12 "
        "--batch_size 8 --epochs 100000 --log_every 1 --run_dir stopped");
    ::execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
    ::_exit(99);
  }
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (std::chrono::steady_clock::now() < deadline &&
         !std::filesystem::exists(here() / "stopped/metrics.jsonl"))
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  ::kill(launcher, SIGTERM);
  int status = 0;
  while (std::chrono::steady_clock::now() < deadline && ::waitpid(launcher, &status, WNOHANG) == 0)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  ::kill(launcher, SIGKILL);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 75);
}

}  // namespace
}  // namespace voca::tools::testing
