// One call fails, of every kind, in every command: it ends with an error that names the file or as if nothing
// had been, what was there before is whole, nothing half done stays, and the next try comes to the same end
// as a run without faults. tests/preload/fail_call.cpp makes the calls fail.

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <regex>
#include <set>
#include <sstream>
#include <thread>

#include "tests/data/support/scratch.h"
#include "tests/tools/support/program.h"
#include "tests/tools/support/small_data.h"

namespace voca::tools::testing {
namespace {

namespace fs = std::filesystem;
using data::testing::Scratch;

/// A command, what it writes, and how it may end. The same words bring it to its end where it failed.
struct Tried {
  std::string name;
  Words words;
  std::vector<std::string> outputs;  ///< files that are whole, old or new
  std::vector<int> codes = {0, 74};
};

const Words kTrain{"train",
                   "--features_root=f.h5",
                   "--hidden=16",
                   "--num_layers=1",
                   "--num_heads=2",
                   "--seq_len=8",
                   "--batch_size=4",
                   "--epochs=2",
                   "--log_every=1",
                   "--num_workers=1",
                   "--threads=2",
                   "--save_path=t.pt",
                   "--save_last=l.pt",
                   "--quiet",
                   "--dropout=0.2",
                   "--checkpoint_every=2steps",
                   "--resume=auto"};

std::vector<Tried> commands() {
  const Words inference{"--checkpoint=a.pt", "--features_root=f.h5", "--threads=2", "--num_workers=1",
                        "--quiet"};
  const Words plan{"plan",           "--features_root=f.h5", "--hidden=16",
                   "--num_layers=1", "--num_heads=2",        "--threads=2"};
  return {
      {"Synth",
       {"synth", "--out=new/tree", "--videos=3", "--frames_min=5", "--frames_max=6", "--visual_dim=4",
        "--audio_dim=4", "--quiet"},
       {}},
      {"Pack",
       {"pack", "--features_root=tree", "--out=p.h5", "--overwrite", "--num_workers=2", "--quiet"},
       {"p.h5"}},
      {"Inspect", {"inspect", "f.h5", "--verify"}, {}},
      {"InspectRun", {"inspect", "a.run"}, {}},
      {"Export", {"inspect", "a.pt", "--export=w.safetensors", "--overwrite"}, {"w.safetensors"}},
      {"Train", kTrain, {"t.pt", "l.pt"}},
      {"Resume", kTrain + Words{"--save_path=r.pt", "--save_last=rl.pt"}, {"r.pt", "rl.pt"}},
      {"TrainOnATree", kTrain + Words{"--features_root=tree", "--epochs=1"}, {"t.pt", "l.pt"}},
      {"Launch",  // the k-th call of each of its three processes
       Words{"launch", "--nproc_per_node=2", "--grace_period=5", "--"} + kTrain + Words{"--comm_timeout=20"},
       {"t.pt", "l.pt"}},
      {"Eval", Words{"eval"} + inference, {}},
      {"Predict", Words{"predict", "--out=preds.csv", "--overwrite"} + inference, {"preds.csv"}},
      {"Plan", plan, {}},
      {"Doctor", {"doctor"}, {}, {0, 70, 74}},  // that something cannot be written is what it says
  };
}

struct Kind {
  const char* name;
  int error_number;
};
constexpr Kind kKinds[] = {{"open", EMFILE}, {"read", EIO},    {"write", ENOSPC},  {"sync", EIO},
                           {"close", EIO},   {"rename", EIO},  {"remove", EACCES}, {"mkdir", ENOSPC},
                           {"stat", EIO},    {"room", ENOSPC}, {"map", ENOMEM},    {"list", EIO},
                           {"link", EACCES}, {"lock", ENOLCK}, {"thread", EAGAIN}};

std::string bytes_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// What stays of something half done.
std::vector<std::string> half_done(const fs::path& folder) {
  const std::regex temporary(R"(\..+\.[A-Za-z0-9]{6})");
  std::vector<std::string> found;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (std::regex_match(entry.path().filename().string(), temporary)) found.push_back(entry.path().string());
  }
  return found;
}

/// A prepared folder; each try has a copy of it.
class FailingCalls : public ::testing::TestWithParam<Tried> {
 protected:
  static void SetUpTestSuite() {
    scratch_ = new Scratch;
    const fs::path base = scratch_->path() / "base";
    make_small_tree(base / "tree", 20);
    pack_small_tree(base / "tree", base / "f.h5");
    pack_small_tree(base / "tree", base / "p.h5", 1);
    ASSERT_EQ(run(kTrain + Words{"--save_path=a.pt", "--save_last=al.pt"}, base).exit_code, 0);
    ASSERT_EQ(run(kTrain + Words{"--save_path=r.pt", "--save_last=rl.pt", "--max_steps=3"}, base).exit_code,
              0);
    ASSERT_EQ(run({"inspect", "r.pt", "--export=w.safetensors"}, base).exit_code, 0);
    std::ofstream(base / "preds.csv") << "id,label,split,logit,prob_real\n";
  }
  static void TearDownTestSuite() {
    delete scratch_;
    scratch_ = nullptr;
  }
  void SetUp() override {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "the preloaded library and the sanitizers replace the same functions";
#endif
  }

  static fs::path log() {
    return scratch_->path() / "log";
  }
  static fs::path work() {
    return scratch_->path() / "work";
  }

  /// The command in a fresh copy; nothing where it does not end.
  static std::optional<Outcome> attempt(const Words& words, const std::string& kind, long at,
                                        int error_number) {
    fs::remove(log());
    Process process(words, work(),
                    {{"LD_PRELOAD", VOCA_FAIL_CALL_LIBRARY},
                     {"VOCA_FAIL_KIND", kind},
                     {"VOCA_FAIL_PATH", work().string()},
                     {"VOCA_FAIL_AT", std::to_string(at)},
                     {"VOCA_FAIL_ERRNO", std::to_string(error_number)},
                     {"VOCA_FAIL_LOG", log().string()},
                     {"OMP_WAIT_POLICY", "passive"},
                     {"HOME", (work() / "home").string()},
                     {"XDG_CACHE_HOME", (work() / "home/cache").string()},
                     {"COLUMNS", "200"}});
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(120);
    while (process.running()) {
      if (std::chrono::steady_clock::now() > deadline) return std::nullopt;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return process.wait();
  }
  static void begin_anew() {
    fs::remove_all(work());
    fs::copy(scratch_->path() / "base", work(), fs::copy_options::recursive);
  }
  static std::string logged(const std::string& begin) {
    std::ifstream lines(log());
    for (std::string line; std::getline(lines, line);)
      if (line.starts_with(begin)) return line.substr(begin.size());
    return {};
  }
  /// How many calls of each kind the process that made most of them made.
  static std::map<std::string, long> counted() {
    std::map<std::string, long> calls;
    for (const Kind& kind : kKinds) calls[kind.name] = 0;
    std::ifstream lines(log());
    std::string word, kind;
    for (long count = 0; lines >> word >> kind >> count;) calls[kind] = std::max(calls[kind], count);
    return calls;
  }
  static std::map<std::string, std::string> contents(const Tried& tried) {
    std::map<std::string, std::string> all;
    for (const std::string& name : tried.outputs) all[name] = bytes_of(work() / name);
    return all;
  }

  void sweep(std::size_t picks) {
    const Tried& tried = GetParam();
    begin_anew();
    const auto before = contents(tried);
    const auto smooth = attempt(tried.words, "none", 0, 0);
    ASSERT_TRUE(smooth && smooth->exit_code == 0) << smooth->err;
    const auto after = contents(tried);
    const std::map<std::string, long> calls = counted();
    for (const Kind& kind : kKinds) {
      for (const long at : spread(calls.at(kind.name), picks)) {
        SCOPED_TRACE(std::string(kind.name) + " " + std::to_string(at) + " of " +
                     std::to_string(calls.at(kind.name)));
        try_one(tried, kind, at, before, after);
      }
    }
  }

  /// So many of 1 … n, the first and the last among them.
  static std::set<long> spread(long n, std::size_t picks) {
    std::set<long> chosen;
    for (std::size_t i = 0; n > 0 && i < picks; ++i)
      chosen.insert(1 +
                    (n - 1) * static_cast<long>(i) / static_cast<long>(std::max<std::size_t>(picks - 1, 1)));
    return chosen;
  }

  static void try_one(const Tried& tried, const Kind& kind, long at,
                      const std::map<std::string, std::string>& before,
                      const std::map<std::string, std::string>& after) {
    begin_anew();
    const auto outcome = attempt(tried.words, kind.name, at, kind.error_number);
    const std::string what = logged("failed ");
    ASSERT_TRUE(outcome) << what << ": does not end";
    if (what.empty()) return;  // another order of threads: it was not reached
    const std::string told = what + ": exit " + std::to_string(outcome->exit_code) + ": " + outcome->err;
    EXPECT_EQ(std::count(tried.codes.begin(), tried.codes.end(), outcome->exit_code), 1) << told;
    if (outcome->exit_code != 0) {
      EXPECT_TRUE(outcome->message().starts_with("voca-engine: ")) << told;
      expect_named(what, outcome->message(), told);
    }
    for (const auto& [name, bytes] : contents(tried)) {
      const bool whole = bytes == after.at(name) || (outcome->exit_code != 0 && bytes == before.at(name));
      EXPECT_TRUE(whole) << name << " is neither what it was nor what it should be; " << told;
    }
    const bool removal_failed = std::string(kind.name) == "remove";
    const std::vector<std::string> stays = half_done(work());
    EXPECT_TRUE(stays.empty() || removal_failed) << stays.front() << " stays; " << told;
    if (outcome->exit_code == 0) return;
    const auto again = attempt(tried.words, "none", 0, 0);
    ASSERT_TRUE(again) << told;
    EXPECT_EQ(again->exit_code, 0) << "again: " << again->err << "\nafter " << told;
    EXPECT_TRUE(contents(tried) == after) << "the next try comes to another end; after " << told;
    EXPECT_EQ(half_done(work()), std::vector<std::string>()) << "after the next try; " << told;
  }

  /// The message names what failed: the file, the one it was a temporary of, or the folder of either.
  static void expect_named(const std::string& what, const std::string& message, const std::string& told) {
    const std::size_t space = what.find(' ');
    if (what.starts_with("pthread_create")) {
      EXPECT_NE(message.find("ulimit -u"), std::string::npos) << told;
      return;
    }
    const fs::path path = what.substr(space + 1);
    std::string name = path.filename().string();
    if (name.starts_with(".") && name.rfind('.') > 0) name = name.substr(1, name.rfind('.') - 1);
    const bool named = message.find(name) != std::string::npos || path == work() ||
                       message.find(path.parent_path().filename().string()) != std::string::npos;
    EXPECT_TRUE(named) << told;
  }

  static Scratch* scratch_;
};
Scratch* FailingCalls::scratch_ = nullptr;

TEST_P(FailingCalls, LeaveEverythingWhole) {
  sweep(3);
}

/// Of the parameter, in the place of its bytes.
[[maybe_unused]] void PrintTo(const Tried& tried, std::ostream* out) {
  *out << tried.name;
}

using SlowFailingCalls = FailingCalls;
TEST_P(SlowFailingCalls, LeaveEverythingWhole) {
  sweep(25);
}

std::string name_of(const ::testing::TestParamInfo<Tried>& info) {
  return info.param.name;
}
INSTANTIATE_TEST_SUITE_P(Each, FailingCalls, ::testing::ValuesIn(commands()), name_of);
INSTANTIATE_TEST_SUITE_P(Slow, SlowFailingCalls, ::testing::ValuesIn(commands()), name_of);

}  // namespace
}  // namespace voca::tools::testing
