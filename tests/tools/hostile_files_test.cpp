// Files that are no more than JSON and text, made to hurt: each ends in one line and exit code 65, and what
// it says reaches a terminal as text.

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <hdf5.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>

#include "data/packed/dataset.h"
#include "engine/base/atomic_file.h"
#include "engine/base/file_kind.h"
#include "engine/base/text.h"
#include "engine/checkpoint/safetensors/safetensors.h"
#include "tests/data/support/scratch.h"
#include "tests/engine/support/mutate.h"
#include "tests/tools/support/program.h"
#include "tools/banner.h"
#include "tools/result.h"

namespace voca::tools {
namespace {

using data::testing::Scratch;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::Outcome;
using testing::run;

const std::string kDeep(200'000, '[');
const std::string kRecord = R"({"kind":"step","epoch":1,"step":1,"loss":0.5})";
constexpr const char* kClear =
    "\\u009b2J\\u001b[2J\\u202e";  // C1's CSI, ESC [ and an override of direction, in JSON

class HostileFiles : public ::testing::Test {
 protected:
  void write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((scratch_ / name).parent_path());
    std::ofstream(scratch_ / name, std::ios::binary) << text;
  }
  [[nodiscard]] Outcome run_here(const testing::Words& words) const {
    return run(words, scratch_.path(), {{"COLUMNS", "200"}});
  }
  void expect_refused(const testing::Words& words, int code, const std::string& what) const {
    const Outcome outcome = run_here(words);
    EXPECT_EQ(outcome.exit_code, code) << outcome.err;
    EXPECT_THAT(outcome.message(), AllOf(HasSubstr("voca-engine: "), HasSubstr(what)));
    EXPECT_LT(outcome.err.size(), 2000U);
  }
  /// That nothing a terminal obeys is in it, but line ends.
  static void expect_text(const std::string& out) { EXPECT_EQ(engine::printable_lines(out), out); }

  Scratch scratch_;
};

TEST_F(HostileFiles, ADeepRunFolderIsRefused) {
  write("run/config.json", kDeep + std::string(kDeep.size(), ']'));
  expect_refused({"inspect", "run"}, 65, "run/config.json: nested deeper than 64 levels");
  write("run/config.json", R"({"command":"train","options":{"run_dir":)" + kDeep + "}}");
  expect_refused({"eval", "--checkpoint", "run", "--features_root", "x.h5"}, 65,
                 "run/config.json: nested deeper");
  write("run/config.json", "{}");
  write("run/metrics.jsonl", kRecord + "\n{\"kind\":" + kDeep + "\n");
  expect_refused({"inspect", "run"}, 65, "run/metrics.jsonl: line 2: nested deeper");
}

TEST_F(HostileFiles, ARecordThatIsNoneIsNamedByItsLine) {
  write("run/config.json", "{}");
  for (const char* line :
       {R"({"kind":5})", R"({"kind":"step"})", "5", "x", R"({"kind":"epoch","epoch":"1","step":1})"}) {
    write("run/metrics.jsonl", kRecord + "\n" + line + "\n" + kRecord + "\n");
    expect_refused({"inspect", "run"}, 65, "run/metrics.jsonl: line 2 is not a record of a training");
  }
  // A crash cuts the last line short.
  write("run/metrics.jsonl", kRecord + "\n" + kRecord.substr(0, 20));
  const Outcome outcome = run_here({"inspect", "run", "--json"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_EQ(outcome.json()["metrics_lines"], 1);
}

TEST_F(HostileFiles, AConfigOfOptionsIsBounded) {
  write("c.json", "{\"lr\":" + kDeep + std::string(kDeep.size(), ']') + "}");
  expect_refused({"plan", "--config", "c.json"}, 65, "--config c.json: nested deeper than 64 levels");
  std::string keys = "{";
  for (int i = 0; i < 50'000; ++i) keys += "\"" + std::to_string(i) + "\":0,";
  keys.back() = '}';
  write("c.json", keys);
  expect_refused({"plan", "--config", "c.json"}, 65, "--config c.json: an object of more than 10000 keys");
  write("c.json", "{\"lr\":[\"" + std::string(100'000, 'x') + "\"]}");
  expect_refused({"plan", "--config", "c.json"}, 64, R"("lr": is ["xxx)");
  write("c.json", "{\"lr\":1,\"lr\":2}");
  expect_refused({"plan", "--config", "c.json"}, 65, "has the key \"lr\" twice");
}

TEST_F(HostileFiles, MetadataOfWeightsIsBounded) {
  engine::write_safetensors(scratch_ / "a.safetensors", {}, {{"config", kDeep}});
  expect_refused({"eval", "--checkpoint", "a.safetensors", "--features_root", "x.h5"}, 65,
                 "a.safetensors: metadata config: nested deeper");
  engine::write_safetensors(scratch_ / "b.safetensors", {}, {{"config", "not JSON"}});
  expect_refused({"eval", "--checkpoint", "b.safetensors", "--features_root", "x.h5"}, 65,
                 "holds no weights");
}

TEST_F(HostileFiles, TheHeaderOfAResumeStateIsBounded) {
  const std::string key(engine::kResumeStateKey);
  engine::write_safetensors(scratch_ / "a.resume", {}, {{key, kDeep}});
  expect_refused({"inspect", "a.resume"}, 65, "a.resume: damaged: its header: nested deeper");
  engine::write_safetensors(scratch_ / "b.resume", {}, {{key, "not JSON"}});
  expect_refused({"inspect", "b.resume"}, 65, "b.resume: damaged: its header");
  expect_refused({"eval", "--checkpoint", "b.resume", "--features_root", "x.h5"}, 65,
                 "b.resume: is a resume state");
  engine::write_safetensors(scratch_ / "c.resume", {}, {{key, R"({"x": "\u001b[2J"})"}});
  const Outcome outcome = run_here({"inspect", "c.resume"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  expect_text(outcome.out);
}

TEST_F(HostileFiles, WeightsInVeryManyPlacesAreRefusedSoon) {
  // Each of 20 000 tensors looks like the beginning of another copy of the network.
  constexpr std::size_t kTensors = 20'000;
  std::string header = "{";
  for (std::size_t i = 0; i < kTensors; ++i) {
    header += fmt::format(R"({}"p{}.v_proj.0.weight":{{"dtype":"F32","shape":[1],"data_offsets":[{},{}]}})",
                          i > 0 ? "," : "", i, 4 * i, 4 * i + 4);
  }
  header += "}";
  std::string length(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) length[i] = static_cast<char>(header.size() >> (8 * i));
  write("a.safetensors", length + header + std::string(4 * kTensors, '\0'));
  expect_refused({"eval", "--checkpoint", "a.safetensors", "--features_root", "x.h5"}, 65,
                 "a.safetensors: has weights of CrossModalTransformer in more than 64 places");
}

/// Sets an attribute of a packed file to a text.
void set_attribute(const std::filesystem::path& path, const char* name, const std::string& text) {
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  const hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, text.size());
  const hid_t space = H5Screate(H5S_SCALAR);
  ASSERT_GE(H5Adelete(file, name), 0);
  const hid_t attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
  ASSERT_GE(H5Awrite(attribute, type, text.data()), 0);
  H5Aclose(attribute);
  H5Sclose(space);
  H5Tclose(type);
  H5Fclose(file);
}

TEST_F(HostileFiles, AnExpressionThatADatasetNamesIsNotRun) {
  // On a name of many a's it takes for ever; another overflows the stack on a long one.
  data::testing::write_video(scratch_ / "tree/real" / std::string(200, 'a'), 9, 9, 0);
  for (const char* video : {"tree/real/b1", "tree/real/c", "tree/fake/d", "tree/fake/e", "tree/fake/b2"})
    data::testing::write_video(scratch_ / video, 9, 9, 1);
  ASSERT_EQ(run_here({"pack", "--features_root", "tree", "--out", "f.h5", "--group_by", "[bc]"}).exit_code,
            0);
  EXPECT_EQ(identities_text(data::Dataset(scratch_ / "f.h5")), "all 2 groups are apart");
  set_attribute(scratch_ / "f.h5", "group_by", "(a*)*x");
  EXPECT_EQ(identities_text(data::Dataset(scratch_ / "f.h5")), "all 2 groups are apart");
}

TEST_F(HostileFiles, APackedFileWithoutItsHashIsNotSaidToBeVerified) {
  for (const char* video : {"tree/real/a", "tree/real/b", "tree/fake/c", "tree/fake/d"})
    data::testing::write_video(scratch_ / video, 9, 9, 1);
  ASSERT_EQ(run_here({"pack", "--features_root", "tree", "--out", "f.h5"}).exit_code, 0);
  const Outcome whole = run_here({"inspect", "f.h5", "--verify"});
  EXPECT_THAT(whole.out,
              HasSubstr("\nverified: the index and the frames of every video are what was packed\n"));
  const hid_t file = H5Fopen((scratch_ / "f.h5").c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  ASSERT_GE(H5Adelete(file, "content_hash"), 0);
  H5Fclose(file);
  const Outcome without = run_here({"inspect", "f.h5", "--verify"});
  EXPECT_EQ(without.exit_code, 0);
  EXPECT_THAT(without.out, HasSubstr("\nnot verified: the file carries no content_hash"));
  EXPECT_EQ(run_here({"inspect", "f.h5", "--verify", "--json"}).json()["verified"], false);
}

TEST_F(HostileFiles, NothingInThemIsObeyedByATerminal) {
  write("c.json", std::string("{\"") + kClear + "\\n\":1}");
  const Outcome unknown = run_here({"plan", "--config", "c.json"});
  EXPECT_EQ(unknown.exit_code, 64);
  EXPECT_THAT(unknown.message(), HasSubstr(R"("\u009b2J\x1b[2J\u202e\x0a" is not an option of plan)"));
  expect_text(unknown.err);

  write("run/config.json", std::string("{\"note\":\"") + kClear + "\x7f\"}");
  write("run/metrics.jsonl", std::string("{\"kind\":\"") + kClear + "\",\"epoch\":1,\"step\":1,\"" + kClear +
                                 "\":\"" + kClear + "\"}\n");
  const Outcome shown = run_here({"inspect", "run"});
  EXPECT_EQ(shown.exit_code, 0) << shown.err;
  EXPECT_THAT(shown.out, HasSubstr("\\u009b2J"));
  expect_text(shown.out);
  // For programs the text is what it is.
  const Outcome json = run_here({"inspect", "run", "--json"});
  EXPECT_EQ(json.json()["config"]["note"], "\u009b2J\x1b[2J\u202e\x7f");
  expect_text(json.out);

  engine::write_safetensors(scratch_ / "a.safetensors", {}, {{"\u009b2J", "\u202e\x1b[2J"}});
  const Outcome weights = run_here({"inspect", "a.safetensors"});
  EXPECT_EQ(weights.exit_code, 0) << weights.err;
  expect_text(weights.out);
}

TEST_F(HostileFiles, AFileNamedInOtherBytesIsToldInUtf8) {
  const std::string name = "w\xFF\u009b.safetensors";
  engine::write_safetensors(scratch_ / name, {}, {});
  const Outcome json = run_here({"inspect", name, "--json"});
  EXPECT_EQ(json.exit_code, 0) << json.err;
  EXPECT_EQ(json.json()["path"], "w\uFFFD\u009b.safetensors");
  const Outcome text = run_here({"inspect", name});
  EXPECT_THAT(text.out, HasSubstr("w\\xff\\u009b.safetensors: safetensors"));
  const Outcome missing = run_here({"inspect", "no\xFF\n\u009b"});
  EXPECT_EQ(missing.exit_code, 74);
  expect_text(missing.err);
}

/// Rows go to a file as they are, and to a terminal as text.
TEST_F(HostileFiles, RowsOfDataAreTextOnATerminal) {
  const auto printed = [&](int descriptor) {
    const int before = ::dup(STDOUT_FILENO);
    std::cout.flush();
    ::dup2(descriptor, STDOUT_FILENO);
    print_data("\u009b2J,1\n");
    std::cout.flush();
    ::dup2(before, STDOUT_FILENO);
    ::close(before);
  };
  const int terminal = ::posix_openpt(O_RDWR | O_NOCTTY);
  ASSERT_GE(terminal, 0);
  ASSERT_EQ(::grantpt(terminal) + ::unlockpt(terminal), 0);
  const int end = ::open(::ptsname(terminal), O_RDWR | O_NOCTTY);
  ASSERT_GE(end, 0);
  printed(end);
  std::array<char, 64> shown{};
  ASSERT_GT(::read(terminal, shown.data(), shown.size() - 1), 0);
  EXPECT_STREQ(shown.data(), "\\u009b2J,1\r\n");
  ::close(end);
  ::close(terminal);
  const int file = ::open((scratch_ / "rows").c_str(), O_RDWR | O_CREAT, 0600);
  printed(file);
  ::close(file);
  EXPECT_EQ(engine::read_text_file(scratch_ / "rows", 100), "\u009b2J,1\n");
}

/// Whatever becomes of a run folder: it is described, or refused in one line that names the file.
TEST_F(HostileFiles, AnyMutationOfARunFolderIsReadOrRefused) {
  const std::string config =
      R"({"command":"train","version":"0.1.0","options":{"lr":0.001,"batch_size":16},"world_size":1})";
  const std::string metrics = kRecord + "\n" + R"({"kind":"epoch","epoch":1,"step":9,"val_auc":null})" + "\n";
  std::mt19937_64 random(5);
  for (int i = 0; i < 60; ++i) {
    write("run/config.json", i % 2 == 0 ? config : engine::test::mutate(config, random));
    write("run/metrics.jsonl", i % 2 != 0 ? metrics : engine::test::mutate(metrics, random));
    const Outcome outcome = run_here({"inspect", "run"});
    if (outcome.exit_code == 0) continue;
    EXPECT_EQ(outcome.exit_code, 65) << outcome.err;
    EXPECT_THAT(outcome.message(), HasSubstr(i % 2 == 0 ? "run/metrics.jsonl: line " : "run/config.json: "));
  }
}

}  // namespace
}  // namespace voca::tools
