#include "tools/options/option_set.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "engine/base/atomic_file.h"
#include "engine/base/error.h"
#include "tests/data/support/scratch.h"
#include "tests/engine/support/mutate.h"

namespace voca::tools {
namespace {

using data::testing::message_of;
using data::testing::Scratch;

enum class Form : std::uint8_t { kShort, kLong };
constexpr auto names_of(Form /*tag*/) {
  return std::to_array<engine::Named<Form>>(
      {{"short", Form::kShort}, {"long", Form::kLong}, {"brief", Form::kShort}});
}
constexpr auto kOnOff = std::to_array<engine::Named<bool>>({{"on", true}, {"off", false}});

// One option of every kind, with the command line they are given.
struct Example {
  std::int64_t hidden = 768;
  std::uint64_t seed = 0;
  double lr = 3e-4;
  std::string select_by = "auc";
  bool use_contrastive = false;
  std::string resume;
  std::string list;
  std::string file;
  Form form = Form::kLong;
  bool tune = true;
  std::optional<double> weight = 1;
  int workers = 2;
  double share = 0.5;

  bool parse(const std::vector<const char*>& words) {
    OptionSet set("train", "Trains.");
    declare(set);
    return set.parse(words);
  }
  void declare(OptionSet& set) {
    set.add(file, {.name = "FILE", .help = "a file", .positional = true});
    set.add(hidden, {"hidden", "H", "width"});
    set.add(seed, {"seed", "S", "seed", kAny, Effect::kJob});
    set.add(lr, {"lr", "LR", "rate", {.max = 1e6}});
    set.add(select_by, {"select_by", "auc|acc", "measure"});
    set.add(use_contrastive, {"use_contrastive", "", "loss"});
    set.add(list, {"list", "F.pt[,G.pt...]", "files", kAny, Effect::kRank});
    set.add(resume, {.name = "resume",
                     .argument = "auto|PATH",
                     .help = "continue",
                     .effect = Effect::kRank,
                     .left_with_run = true,
                     .implied = "auto"});
    set.add(form, {"form", "", "enumeration"});
    set.add(tune, {"tune", "", "switch with a value"}, kOnOff);
    set.add(weight,
            {.name = "weight", .argument = "W|auto", .help = "number", .range = above(0), .none = "auto"});
    set.add(workers, {"workers", "N", "threads", between(0, 4, " cores")});
    set.add(share, {"share", "P", "share", kBelowOne});
  }
};

TEST(OptionSet, KeepsDefaultsOfWhatIsNotGiven) {
  Example e;
  EXPECT_TRUE(e.parse({}));
  EXPECT_EQ(e.hidden, 768);
  EXPECT_EQ(e.lr, 3e-4);
  EXPECT_EQ(e.select_by, "auc");
  EXPECT_FALSE(e.use_contrastive);
}

TEST(OptionSet, TakesUnderscoresDashesAndEqualSigns) {
  Example e;
  EXPECT_TRUE(e.parse({"--hidden", "64", "--select-by=acc", "--use-contrastive", "--lr=1e-3", "--seed",
                       "18446744073709551615"}));
  EXPECT_EQ(e.hidden, 64);
  EXPECT_EQ(e.select_by, "acc");
  EXPECT_TRUE(e.use_contrastive);
  EXPECT_EQ(e.lr, 1e-3);
  EXPECT_EQ(e.seed, 18446744073709551615U);
}

TEST(OptionSet, AnOptionGivenTwiceIsRefusedUnlessItSaysTheSame) {
  Example e;
  EXPECT_EQ(message_of([&] {
              e.parse({"--hidden", "64", "--hidden=32"});
            }),
            "--hidden: given twice (64, 32); give one");
  EXPECT_EQ(message_of([&] {
              e.parse({"--use_contrastive", "--use-contrastive=false"});
            }),
            "--use_contrastive: given twice (true, false); give one");
  EXPECT_EQ(message_of([&] {
              e.parse({"--list=a.pt", "--list", "b.pt"});
            }),
            "--list: given twice (a.pt, b.pt); give one, or both with a comma: --list a.pt,b.pt");
  EXPECT_EQ(message_of([&] {
              e.parse({"--resume", "--resume=x"});
            }),
            "--resume: given twice (auto, x); give one");
  // 768 is what --hidden would be anyway; still two values were given.
  EXPECT_EQ(message_of([&] {
              e.parse({"--hidden=768", "--hidden=3"});
            }),
            "--hidden: given twice (768, 3); give one");
  Example same;
  EXPECT_TRUE(same.parse({"--lr=0.1", "--lr", "1e-1", "--use_contrastive", "--use_contrastive=yes"}));
  EXPECT_EQ(same.lr, 0.1);
}

TEST(OptionSet, ASwitchTakesTrueAndFalseAsItsNextWord) {
  const auto value_of = [](const std::vector<const char*>& words) {
    Example e;
    EXPECT_TRUE(e.parse(words));
    return e.use_contrastive;
  };
  for (const char* on : {"true", "True", "yes", "on", "1"}) {
    EXPECT_TRUE(value_of({"--use_contrastive", on})) << on;
    EXPECT_TRUE(value_of({"--use_contrastive", on, "--hidden=3"})) << on;
  }
  for (const char* off : {"false", "FALSE", "no", "off", "0"})
    EXPECT_FALSE(value_of({"--use_contrastive", off})) << off;
  Example e;
  EXPECT_TRUE(e.parse({"--use_contrastive", "a.pt"}));
  EXPECT_EQ(e.file, "a.pt");
  EXPECT_EQ(message_of([&] {
              Example().parse({"a.pt", "--use_contrastive", "maybe"});
            }),
            "--use_contrastive: is \"maybe\"; it is a switch: leave the value out, or write true or false");
}

TEST(OptionSet, ValuesAreTypedFromTheParserOn) {
  Example e;
  EXPECT_TRUE(e.parse({"--form=brief", "--tune", "off", "--weight=auto", "--workers=4", "--share=0"}));
  EXPECT_EQ(e.form, Form::kShort);
  EXPECT_FALSE(e.tune);
  Example no;
  EXPECT_TRUE(no.parse({"--tune=false"}));
  EXPECT_FALSE(no.tune);
  EXPECT_EQ(e.weight, std::nullopt);
  EXPECT_EQ(e.workers, 4);
  EXPECT_EQ(e.share, 0);
  EXPECT_TRUE(e.parse({"--weight=2.5"}));
  EXPECT_EQ(e.weight, 2.5);
  const auto message = [](const char* word) { return message_of([&] { Example().parse({word}); }); };
  EXPECT_EQ(message("--form=tall"), "--form: \"tall\" is not one of short, long");
  EXPECT_EQ(message("--tune=maybe"), "--tune: \"maybe\" is not one of on, off");
  EXPECT_EQ(message("--weight=x"), "--weight: is \"x\", expected a number or auto");
  EXPECT_EQ(message("--weight=0"), "--weight: is 0, must be above 0");
  EXPECT_EQ(message("--workers=5"), "--workers: is 5, must be from 0 to 4 cores");
  EXPECT_EQ(message("--workers=99999999999"),
            "--workers: is 99999999999, beyond the numbers that it can hold; must be from 0 to 4 cores");
  EXPECT_EQ(message("--share=1"), "--share: is 1, must be at least 0 and below 1");
  EXPECT_EQ(message("--lr=1e7"), "--lr: is 10000000, must be at most 1000000");
}

TEST(OptionSet, RowsSayWhatNumbersDependOnAndWhatRanksAgreeOn) {
  Example e;
  OptionSet set("train", "Trains.");
  e.declare(set);
  const std::vector<const char*> words{"--resume=x", "--form=brief", "--weight=auto"};
  EXPECT_TRUE(set.parse(words));
  const nlohmann::ordered_json numbers = set.values_for_numbers(set.values());
  EXPECT_EQ(numbers.dump(),
            R"({"FILE":"","hidden":768,"lr":0.0003,"select_by":"auc","use_contrastive":false,"form":"short",)"
            R"("tune":"on","weight":"auto","workers":2,"share":0.5})");
  // What an earlier version recorded may matter.
  EXPECT_TRUE(set.values_for_numbers({{"unknown", 1}, {"seed", 1}}) ==
              nlohmann::ordered_json({{"unknown", 1}}));
  std::vector<std::string> names;
  for (const auto& [name, value] : set.values_of_all_ranks()) names.push_back(name + " " + value);
  EXPECT_THAT(names, ::testing::ElementsAre("FILE ", "--hidden 768", "--seed 0", "--lr 0.0003",
                                            "--select_by auc", "--use_contrastive false", "--form short",
                                            "--tune on", "--weight auto", "--workers 2", "--share 0.5"));
}

TEST(OptionSet, KnowsWhereAValueComesFrom) {
  const Scratch scratch;
  const std::string path = (scratch / "c.json").string();
  engine::write_file_atomically(path,
                                R"({"command": "train", "options": {"hidden": 32, "lr": 1, "resume": "x"}})");
  Example e;
  OptionSet set("train", "Trains.");
  e.declare(set);
  const std::vector<const char*> words{"--lr", "0.25", "--config", path.c_str()};
  EXPECT_TRUE(set.parse(words));
  EXPECT_EQ(set.origin(e.hidden), OptionSet::Origin::kConfig);
  EXPECT_EQ(set.origin(e.lr), OptionSet::Origin::kCommandLine);
  EXPECT_EQ(set.origin(e.seed), OptionSet::Origin::kDefault);
  EXPECT_EQ(set.origin(e.resume), OptionSet::Origin::kDefault);  // it is left with the run
  EXPECT_TRUE(set.given(e.hidden));
  EXPECT_FALSE(set.given(e.seed));
  EXPECT_EQ(set.name(e.use_contrastive), "use_contrastive");
  EXPECT_EQ(set.config(), path);
}

TEST(OptionSet, ReadsBackSingleValuesThatParse) {
  Example e;
  OptionSet set("train", "Trains.");
  e.declare(set);
  const nlohmann::ordered_json values{{"hidden", 5}, {"form", "short"}, {"workers", 99}, {"share", nullptr}};
  EXPECT_TRUE(set.read_back(values, e.hidden));
  EXPECT_TRUE(set.read_back(values, e.form));
  EXPECT_FALSE(set.read_back(values, e.workers));
  EXPECT_FALSE(set.read_back(values, e.share));
  EXPECT_FALSE(set.read_back(values, e.lr));
  EXPECT_EQ(e.hidden, 5);
  EXPECT_EQ(e.form, Form::kShort);
  EXPECT_EQ(e.workers, 2);
}

TEST(OptionSet, SaysWhatReplacesOptionsOfOtherPrograms) {
  const auto message = [](const char* word) { return message_of([&] { Example().parse({word}); }); };
  EXPECT_EQ(message("--learning-rate=3"), "--learning_rate: no such option of train; use --lr LR");
  EXPECT_EQ(message("--d_model=3"), "--d_model: no such option of train; use --hidden H");
  EXPECT_EQ(message("--no_use_contrastive"),
            "--no_use_contrastive: no such option of train; write --use_contrastive=false, or leave it out");
  // Not of an option that this command has not.
  EXPECT_EQ(message("--ckpt=x"), "--ckpt: no such option of train; see voca-engine train --help");
}

TEST(OptionSet, RepeatsItsCommandLineWithOtherValues) {
  Example e;
  OptionSet set("train", "Trains.");
  e.declare(set);
  const std::vector<const char*> words{"--use_contrastive", "true",   "--hidden",     "3",
                                       "--resume",          "--lr=1", "--resume=auto"};
  EXPECT_TRUE(set.parse(words));
  const std::vector<std::string> expected{"--hidden", "3", "--lr=1", "--use_contrastive=false", "--resume=x"};
  EXPECT_EQ(set.words_with({{e.use_contrastive, "false"}, {e.resume, "x"}}), expected);
}

TEST(OptionSet, AValueMayBeginWithADash) {
  Example e;
  EXPECT_TRUE(e.parse({"--hidden", "-5", "--lr=-1.5"}));
  EXPECT_EQ(e.hidden, -5);
  EXPECT_EQ(e.lr, -1.5);
}

TEST(OptionSet, AnOptionalValueMayBeLeftOut) {
  Example e;
  EXPECT_TRUE(e.parse({"--resume", "--hidden", "8"}));
  EXPECT_EQ(e.resume, "auto");
  EXPECT_EQ(e.hidden, 8);
  EXPECT_TRUE(e.parse({"--resume", "state.resume"}));
  EXPECT_EQ(e.resume, "state.resume");
}

TEST(OptionSet, SuggestsTheNearestName) {
  Example e;
  EXPECT_EQ(message_of([&] {
              e.parse({"--hiden", "3"});
            }),
            "--hiden: no such option of train; did you mean --hidden?");
  EXPECT_EQ(message_of([&] { e.parse({"--use-contrastiv"}); }),
            "--use_contrastiv: no such option of train; did you mean --use_contrastive?");
  EXPECT_EQ(message_of([&] { e.parse({"--zzzzzzzz"}); }),
            "--zzzzzzzz: no such option of train; see voca-engine train --help");
}

TEST(OptionSet, NamesTheOptionWhoseValueDoesNotParse) {
  Example e;
  EXPECT_EQ(message_of([&] { e.parse({"--hidden", "6x"}); }), "--hidden: is \"6x\", expected a whole number");
  EXPECT_EQ(message_of([&] {
              e.parse({"--hidden", "99999999999999999999"});
            }),
            "--hidden: is 99999999999999999999, beyond the numbers that it can hold");
  EXPECT_EQ(message_of([&] {
              e.parse({"--seed", "-1"});
            }),
            "--seed: is \"-1\", expected a whole number that is not negative");
  EXPECT_EQ(message_of([&] { e.parse({"--lr", "nan"}); }), "--lr: is \"nan\", expected a number");
  EXPECT_EQ(message_of([&] { e.parse({"--lr="}); }), "--lr: is \"\", expected a number");
  EXPECT_EQ(message_of([&] { e.parse({"--use_contrastive=maybe"}); }),
            "--use_contrastive: is \"maybe\"; it is a switch: leave the value out, or write true or false");
  EXPECT_EQ(message_of([&] { e.parse({"--hidden"}); }), "--hidden: needs a value: H");
  EXPECT_EQ(message_of([&] { e.parse({"--hidden", "--lr"}); }), "--hidden: needs a value: H");
}

TEST(OptionSet, TakesAsManyPositionalsAsItHas) {
  Example e;
  EXPECT_TRUE(e.parse({"a.pt", "--hidden", "3"}));
  EXPECT_EQ(e.file, "a.pt");
  EXPECT_EQ(message_of([&] {
              e.parse({"a.pt", "b.pt"});
            }),
            "train: \"b.pt\" is one FILE too many, \"a.pt\" is given");
  EXPECT_EQ(message_of([&] {
              e.parse({"a.pt", "-lr=3"});
            }),
            "train: \"-lr=3\" is not an option; did you mean --lr?");
  EXPECT_EQ(message_of([&] {
              e.parse({"a.pt", "-x"});
            }),
            "train: \"-x\" is not an option; options begin with --");
}

TEST(OptionSet, RequiresWhatIsNeeded) {
  Example e;
  OptionSet set("train", "Trains.");
  e.declare(set);
  EXPECT_TRUE(set.parse({}));
  EXPECT_EQ(message_of([&] { set.require(e.resume); }), "train: --resume auto|PATH is needed: continue");
  EXPECT_EQ(message_of([&] { set.require(e.file); }), "train: needs FILE: a file");
  set.require(e.select_by);
}

TEST(OptionSet, AConfigGivesDefaultsThatTheCommandLineOverrides) {
  const Scratch scratch;
  const std::string path = (scratch / "c.json").string();
  engine::write_file_atomically(path,
                                R"({"hidden": 32, "lr": 0.5, "use-contrastive": true, "select_by": "acc"})");
  Example e;
  EXPECT_TRUE(e.parse({"--lr", "0.25", "--config", path.c_str()}));
  EXPECT_EQ(e.hidden, 32);
  EXPECT_EQ(e.lr, 0.25);
  EXPECT_TRUE(e.use_contrastive);
  EXPECT_EQ(e.select_by, "acc");
}

TEST(OptionSet, ReadsItsOwnValuesBack) {
  Example first;
  OptionSet set("train", "Trains.");
  first.declare(set);
  const std::vector<const char*> words{"--hidden=24", "--lr=0.1", "--seed=18446744073709551615",
                                       "--use_contrastive"};
  EXPECT_TRUE(set.parse(words));
  const Scratch scratch;
  const std::string path = (scratch / "config.json").string();
  nlohmann::ordered_json values = set.values();
  values.erase("FILE");
  engine::write_file_atomically(path,
                                nlohmann::ordered_json{{"command", "train"}, {"options", values}}.dump());
  Example second;
  EXPECT_TRUE(second.parse({"--config", path.c_str()}));
  EXPECT_EQ(second.hidden, 24);
  EXPECT_EQ(second.lr, 0.1);
  EXPECT_EQ(second.seed, 18446744073709551615U);
  EXPECT_TRUE(second.use_contrastive);
}

TEST(OptionSet, AnyMutationOfAConfigIsTakenOrRefused) {
  const Scratch scratch;
  const std::string path = (scratch / "c.json").string();
  const std::string config =
      R"({"command":"train","options":{"hidden":8,"lr":1e-3,"use_contrastive":true,"seed":7}})";
  std::mt19937_64 random(6);
  int refused = 0;
  for (int i = 0; i < 2000; ++i) {
    std::ofstream(path, std::ios::binary) << engine::test::mutate(config, random);
    try {
      Example e;
      e.parse({"--config", path.c_str()});
    } catch (const engine::Error& error) {
      ++refused;
      EXPECT_TRUE(error.code() == engine::ExitCode::kUsage || error.code() == engine::ExitCode::kBadData)
          << error.what();
      EXPECT_THAT(error.what(), ::testing::StartsWith("--config " + path));
    }
  }
  EXPECT_GT(refused, 500);
}

TEST(OptionSet, NamesWhatIsWrongInAConfig) {
  const Scratch scratch;
  const std::string path = (scratch / "c.json").string();
  const auto message = [&](const std::string& text) {
    engine::write_file_atomically(path, text);
    Example e;
    return message_of([&] { e.parse({"--config", path.c_str()}); });
  };
  EXPECT_EQ(message("[1]"), "--config " + path + ": is not a JSON object of options");
  EXPECT_EQ(message("{\"hidden\": "), "--config " + path + ": is not JSON, at column 11");
  EXPECT_EQ(message("{\"hiden\": 3}"),
            "--config " + path + ": \"hiden\" is not an option of train; did you mean --hidden?");
  EXPECT_EQ(message("{\"select-by\": \"auc\", \"select_by\": \"acc\"}"),
            "--config " + path + ": \"select-by\" and \"select_by\" are one option; give one of them");
  EXPECT_EQ(message("{\"hidden\": \"x\"}"),
            "--config " + path + ": \"hidden\": is \"x\", expected a whole number");
  EXPECT_EQ(message("{\"hidden\": 2.5}"),
            "--config " + path + ": \"hidden\": is \"2.5\", expected a whole number");
  EXPECT_EQ(message("{\"hidden\": [3]}"), "--config " + path + ": \"hidden\": is [3], expected a value");
  EXPECT_EQ(message("{\"config\": \"x\"}").substr(0, 9), "--config ");
  EXPECT_EQ(message("{\"command\": \"other\", \"options\": {\"not_ours\": 1, \"hidden\": 8}}"), "");
  EXPECT_EQ(message("{\"options\": {\"lr\": 1}, \"hidden\": 8}"),
            "--config " + path +
                ": \"hidden\" is beside \"options\" and would have no effect; put it into \"options\"");
  EXPECT_EQ(message("{\"command\": \"train\", \"options\": {\"not_ours\": 1}}").substr(0, 9), "--config ");
}

std::string help_at(int columns) {
  OptionSet set("train", "Trains a detector from packed features, on one rank or several.");
  Example e;
  e.declare(set);
  ::setenv("COLUMNS", std::to_string(columns).c_str(), 1);
  ::testing::internal::CaptureStdout();
  const std::vector<const char*> words{"--help"};
  EXPECT_FALSE(set.parse(words));
  ::unsetenv("COLUMNS");
  return ::testing::internal::GetCapturedStdout();
}

TEST(OptionSet, HelpFitsTheColumns) {
  for (const int columns : {40, 60, 80, 120}) {
    std::istringstream help(help_at(columns));
    std::size_t longest = 0;
    for (std::string line; std::getline(help, line);) longest = std::max(longest, line.size());
    EXPECT_LE(longest, static_cast<std::size_t>(columns));
  }
  const auto lines = [](const std::string& text) { return std::count(text.begin(), text.end(), '\n'); };
  EXPECT_LT(lines(help_at(120)), lines(help_at(40)));
}

TEST(OptionSet, HelpListsEveryOptionWithItsDefault) {
  ::testing::internal::CaptureStdout();
  Example e;
  EXPECT_FALSE(e.parse({"--hidden", "3", "--help"}));
  const std::string help = ::testing::internal::GetCapturedStdout();
  for (const char* text :
       {"--hidden H", "(default: 768)", "--use_contrastive", "--resume auto|PATH", "--config FILE.json"})
    EXPECT_NE(help.find(text), std::string::npos) << text << "\n" << help;
  EXPECT_EQ(e.hidden, 768);
}

}  // namespace
}  // namespace voca::tools
