#include "engine/rendezvous/rank_environment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "engine/rendezvous/job_secret.h"
#include "engine/rendezvous/slurm.h"
#include "tests/engine/support/files.h"

namespace voca::engine::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using Values = std::map<std::string, std::string>;

const std::string kSecret(64, '5');

/// Rank 5 of 8 on two nodes, as torchrun tells it.
Values torchrun() {
  return {{"RANK", "5"},
          {"WORLD_SIZE", "8"},
          {"LOCAL_RANK", "1"},
          {"LOCAL_WORLD_SIZE", "4"},
          {"GROUP_RANK", "1"},
          {"GROUP_WORLD_SIZE", "2"},
          {"MASTER_ADDR", "node-a"},
          {"MASTER_PORT", "29500"},
          {"TORCHELASTIC_RUN_ID", "run-7"},
          {"TORCHELASTIC_RESTART_COUNT", "2"},
          {"TORCHELASTIC_USE_AGENT_STORE", "True"},
          {"VOCA_JOB_SECRET", kSecret}};
}

/// Task 5 of 7, the second of three on the second node.
Values slurm() {
  return {{"SLURM_JOB_ID", "123456"},
          {"SLURM_STEP_ID", "2"},
          {"SLURM_STEP_NUM_TASKS", "7"},
          {"SLURM_STEP_NUM_NODES", "2"},
          {"SLURM_STEP_TASKS_PER_NODE", "4,3"},
          {"SLURM_STEP_NODELIST", "gpu[07-08]"},
          {"SLURM_NTASKS", "7"},
          {"SLURM_PROCID", "5"},
          {"SLURM_LOCALID", "1"},
          {"SLURM_NODEID", "1"},
          {"VOCA_JOB_SECRET", kSecret}};
}

/// As slurm(), on one node.
Values slurm_on_one_node() {
  Values values = slurm();
  values["SLURM_STEP_NUM_NODES"] = "1";
  values["SLURM_STEP_TASKS_PER_NODE"] = "7";
  values["SLURM_STEP_NODELIST"] = "gpu07";
  values["SLURM_NODEID"] = "0";
  values["SLURM_LOCALID"] = "5";
  return values;
}

Values operator+(Values base, const Values& changes) {
  for (const auto& [name, value] : changes) base[name] = value;
  return base;
}

class Environment : public ::testing::Test {
 protected:
  [[nodiscard]] RankEnvironment of(const Values& values) const {
    return rank_environment(EnvVars(values), folder_.path());
  }
  [[nodiscard]] std::string refusal(const Values& values) const {
    return message_of<UsageError>([&] { static_cast<void>(of(values)); });
  }
  TemporaryFolder folder_;
};

TEST_F(Environment, WithoutAnyVariableIsOneRank) {
  const RankEnvironment e = of({});
  EXPECT_EQ(e.rank, 0);
  EXPECT_EQ(e.world_size, 1);
  EXPECT_EQ(e.nodes, 1);
  EXPECT_EQ(e.secret, "");
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path())) << "one rank alone needs no secret";
}

TEST_F(Environment, ReadsTorchrunsContract) {
  const RankEnvironment e = of(torchrun());
  EXPECT_EQ(e.rank, 5);
  EXPECT_EQ(e.world_size, 8);
  EXPECT_EQ(e.local_rank, 1);
  EXPECT_EQ(e.local_world_size, 4);
  EXPECT_EQ(e.nodes, 2);
  EXPECT_EQ(e.node, 1);
  EXPECT_EQ(e.master_addr, "node-a");
  EXPECT_EQ(e.master_port, 29500);
  EXPECT_EQ(e.job, "run-7");
  EXPECT_EQ(e.restart_count, 2);
  EXPECT_EQ(e.secret, kSecret);
}

TEST_F(Environment, FindsTheNodesWhereOnlyRanksAreGiven) {
  Values values = torchrun();
  values.erase("GROUP_RANK");
  values.erase("GROUP_WORLD_SIZE");
  const RankEnvironment e = of(values);
  EXPECT_EQ(e.nodes, 2);
  EXPECT_EQ(e.node, 1);
}

TEST_F(Environment, MeetsBesideThePortThatTorchrunsAgentHolds) {
  EXPECT_EQ(of(torchrun()).rendezvous_port, 30500);
  EXPECT_EQ(of(torchrun() + Values{{"TORCHELASTIC_USE_AGENT_STORE", ""}}).rendezvous_port, 30500);
  EXPECT_EQ(of(torchrun() + Values{{"MASTER_PORT", "65000"}}).rendezvous_port, 64000);
  EXPECT_EQ(of(torchrun() + Values{{"TORCHELASTIC_USE_AGENT_STORE", "False"}}).rendezvous_port, 29500);
  EXPECT_EQ(of(torchrun() + Values{{"TORCHELASTIC_USE_AGENT_STORE", ""}, {"TORCHELASTIC_RUN_ID", ""}})
                .rendezvous_port,
            29500);
  EXPECT_EQ(of(torchrun() + Values{{"VOCA_MEETING_PORT", "4000"}}).rendezvous_port, 4000);
  EXPECT_EQ(of(slurm() + Values{{"MASTER_PORT", "4001"}}).rendezvous_port, 4001);
}

TEST_F(Environment, OneNodeMeetsOnLoopbackWhateverItsNameIs) {
  const Values one_node{
      {"LOCAL_WORLD_SIZE", "8"}, {"LOCAL_RANK", "5"}, {"GROUP_RANK", "0"}, {"GROUP_WORLD_SIZE", "1"}};
  EXPECT_EQ(of(torchrun() + one_node).master_addr, "127.0.0.1");
  EXPECT_EQ(of(torchrun() + one_node + Values{{"MASTER_ADDR", "::1"}}).master_addr, "::1");
  EXPECT_EQ(of(slurm_on_one_node()).master_addr, "127.0.0.1");
}

TEST_F(Environment, NamesTheVariableThatIsMissing) {
  for (const char* name : {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR"}) {
    Values values = torchrun();
    values.erase(name);
    EXPECT_THAT(refusal(values), StartsWith(std::string(name) + ": is not set"));
  }
}

struct Wrong {
  Values change;
  const char* message;
};

TEST_F(Environment, NamesTheVariableThatIsWrong) {
  const std::vector<Wrong> wrongs{
      {{{"RANK", "8"}}, "RANK: is \"8\", expected a whole number from 0 to 7"},
      {{{"RANK", "-1"}}, "RANK: is \"-1\""},
      {{{"RANK", "5 "}}, "RANK: is \"5 \""},
      {{{"WORLD_SIZE", "0"}}, "WORLD_SIZE: is \"0\""},
      {{{"WORLD_SIZE", "99999999999999999999"}}, "WORLD_SIZE: is"},
      {{{"WORLD_SIZE", "1"}}, "RANK: is \"5\", expected a whole number from 0 to 0"},
      {{{"LOCAL_RANK", "4"}}, "LOCAL_RANK: is \"4\", expected a whole number from 0 to 3"},
      {{{"LOCAL_RANK", "3"}, {"RANK", "2"}}, "LOCAL_RANK: is 3, more than RANK 2"},
      {{{"LOCAL_WORLD_SIZE", "9"}}, "LOCAL_WORLD_SIZE: is \"9\""},
      {{{"LOCAL_WORLD_SIZE", "8"}}, "LOCAL_WORLD_SIZE: is 8, which does not fit WORLD_SIZE 8 on 2 nodes"},
      {{{"GROUP_WORLD_SIZE", "1"}, {"GROUP_RANK", "0"}}, "LOCAL_WORLD_SIZE: is 4, which does not fit"},
      {{{"GROUP_RANK", "2"}}, "GROUP_RANK: is \"2\""},
      {{{"GROUP_WORLD_SIZE", ""}, {"LOCAL_WORLD_SIZE", "3"}},
       "GROUP_WORLD_SIZE: is not set, and WORLD_SIZE 8"},
      {{{"MASTER_PORT", "70000"}}, "MASTER_PORT: is \"70000\""},
      {{{"MASTER_PORT", "29500x"}}, "MASTER_PORT: is \"29500x\""},
      {{{"VOCA_MEETING_PORT", "0"}}, "VOCA_MEETING_PORT: is \"0\""},
      {{{"TORCHELASTIC_RESTART_COUNT", "many"}}, "TORCHELASTIC_RESTART_COUNT: is \"many\""},
      {{{"TORCHELASTIC_USE_AGENT_STORE", "maybe"}}, "TORCHELASTIC_USE_AGENT_STORE: is \"maybe\""}};
  for (const Wrong& wrong : wrongs)
    EXPECT_THAT(refusal(torchrun() + wrong.change), StartsWith(wrong.message));
}

TEST_F(Environment, ReadsASlurmStep) {
  const RankEnvironment e = of(slurm());
  EXPECT_EQ(e.rank, 5);
  EXPECT_EQ(e.world_size, 7);
  EXPECT_EQ(e.local_rank, 1);
  EXPECT_EQ(e.local_world_size, 3);
  EXPECT_EQ(e.nodes, 2);
  EXPECT_EQ(e.node, 1);
  EXPECT_EQ(e.master_addr, "gpu07");
  EXPECT_EQ(e.job, "123456.2");
  EXPECT_EQ(e.rendezvous_port, e.master_port);
  EXPECT_EQ(e.restart_count, 0);
  EXPECT_EQ(of(slurm() + Values{{"MASTER_ADDR", "10.0.0.7"}}).master_addr, "10.0.0.7");
  EXPECT_EQ(of(slurm() + Values{{"SLURM_RESTART_COUNT", "3"}}).restart_count, 3);
}

TEST_F(Environment, ReadsASlurmStepFromTheVariablesOfOlderSlurm) {
  const RankEnvironment e = of({{"SLURM_JOB_ID", "9"},
                                {"SLURM_STEP_ID", "0"},
                                {"SLURM_NTASKS", "8"},
                                {"SLURM_NNODES", "2"},
                                {"SLURM_NTASKS_PER_NODE", "4"},
                                {"SLURM_NODELIST", "b,a"},
                                {"SLURM_PROCID", "4"},
                                {"SLURM_LOCALID", "0"},
                                {"SLURM_NODEID", "1"},
                                {"VOCA_JOB_SECRET", kSecret}});
  EXPECT_EQ(e.world_size, 8);
  EXPECT_EQ(e.local_world_size, 4);
  EXPECT_EQ(e.master_addr, "b");
}

TEST_F(Environment, WhatTorchrunSaysGoesBeforeSlurm) {
  EXPECT_EQ(of(slurm() + torchrun()).world_size, 8);
  EXPECT_EQ(of(slurm() + Values{{"WORLD_SIZE", "1"}}).world_size, 1);
}

TEST_F(Environment, ReservedTasksAreNoRanks) {
  // The script of sbatch, the shell of salloc, an interactive step, a step of one task.
  const Values batch{
      {"SLURM_JOB_ID", "9"}, {"SLURM_NTASKS", "8"}, {"SLURM_PROCID", "0"}, {"SLURM_NNODES", "2"}};
  EXPECT_EQ(of(batch).world_size, 1);
  EXPECT_EQ(of(batch + Values{{"SLURM_STEP_ID", "4294967291"}}).world_size, 1);
  EXPECT_EQ(of(batch + Values{{"SLURM_STEP_ID", "4294967290"}}).world_size, 1);
  EXPECT_EQ(of(batch + Values{{"SLURM_STEP_ID", "0"}, {"SLURM_STEP_NUM_TASKS", "1"}}).world_size, 1);
}

TEST_F(Environment, StepsOfOneNodeMeetOnDifferentPorts) {
  std::set<int> ports;
  for (int job = 1000; job < 1010; ++job)
    for (int step = 0; step < 10; ++step) {
      const int port =
          of(slurm() + Values{{"SLURM_JOB_ID", std::to_string(job)}, {"SLURM_STEP_ID", std::to_string(step)}})
              .rendezvous_port;
      EXPECT_GE(port, 20000);
      EXPECT_LT(port, 32000) << "ephemeral ports begin at 32768";
      ports.insert(port);
    }
  EXPECT_EQ(ports.size(), 100U);
}

TEST_F(Environment, NamesTheSlurmVariableThatIsWrong) {
  const std::vector<Wrong> wrongs{
      {{{"SLURM_PROCID", "7"}}, "SLURM_PROCID: is \"7\""},
      {{{"SLURM_PROCID", ""}}, "SLURM_PROCID: is not set"},
      {{{"SLURM_JOB_ID", ""}}, "SLURM_JOB_ID: is not set"},
      {{{"SLURM_STEP_NUM_TASKS", "x"}}, "SLURM_STEP_NUM_TASKS: is \"x\""},
      {{{"SLURM_STEP_NUM_NODES", "8"}}, "SLURM_STEP_NUM_NODES: is \"8\""},
      {{{"SLURM_NODEID", "2"}}, "SLURM_NODEID: is \"2\""},
      {{{"SLURM_LOCALID", "3"}}, "SLURM_LOCALID: is \"3\", expected a whole number from 0 to 2"},
      {{{"SLURM_STEP_TASKS_PER_NODE", "4,2"}}, "SLURM_STEP_TASKS_PER_NODE: is \"4,2\", which makes 6 tasks"},
      {{{"SLURM_STEP_TASKS_PER_NODE", "7"}}, "SLURM_STEP_TASKS_PER_NODE: is \"7\", which is for 1 nodes"},
      {{{"SLURM_STEP_TASKS_PER_NODE", "4(y2)"}}, "SLURM_STEP_TASKS_PER_NODE: \"4(y2)\": expected 'x'"},
      {{{"SLURM_STEP_NODELIST", "gpu07"}}, "SLURM_STEP_NODELIST: is \"gpu07\", which names 1 nodes"},
      {{{"SLURM_STEP_NODELIST", "gpu[07"}}, "SLURM_STEP_NODELIST: \"gpu[07\": expected ']'"},
      {{{"SLURM_STEP_NODELIST", ""}}, "SLURM_NODELIST: is not set"},
      {{{"SLURM_PROCID", "0"}}, "SLURM_NODEID: rank 0 is on node 1"},
      {{{"MASTER_PORT", "0"}}, "MASTER_PORT: is \"0\""}};
  for (const Wrong& wrong : wrongs) EXPECT_THAT(refusal(slurm() + wrong.change), StartsWith(wrong.message));
}

TEST(NodeList, ExpandsAsSlurmWritesIt) {
  const auto expand = [](const std::string& list) { return expand_node_list("SLURM_NODELIST", list); };
  EXPECT_THAT(expand("login"), ElementsAre("login"));
  EXPECT_THAT(expand("node[01-04,7],gpu-a[1-2]b,login"),
              ElementsAre("node01", "node02", "node03", "node04", "node7", "gpu-a1b", "gpu-a2b", "login"));
  EXPECT_THAT(expand("n[9-11]"), ElementsAre("n9", "n10", "n11"));
  EXPECT_THAT(expand("n[098-101]"), ElementsAre("n098", "n099", "n100", "n101"));
  EXPECT_THAT(expand("r[1-2]n[3,5].cluster"),
              ElementsAre("r1n3.cluster", "r1n5.cluster", "r2n3.cluster", "r2n5.cluster"));
  EXPECT_THAT(expand("[1-2]"), ElementsAre("1", "2"));
  EXPECT_EQ(expand("n[1-65536]").size(), 65536U);
}

TEST(NodeList, RefusesWhatItCannotReadWithoutExpandingIt) {
  for (const char* list : {"",
                           ",",
                           "a,",
                           ",a",
                           "a[",
                           "a[]",
                           "a[1",
                           "a[1-]",
                           "a[-1]",
                           "a[2-1]",
                           "a]",
                           "a[1]]",
                           "a[1,]",
                           "a[x]",
                           "a[[1]]",
                           "a[1-65537]",
                           "a[1-999999999]",
                           "a[1-9999999999]",
                           "a[1-60000],b[1-60000]",
                           "a[1-999][1-999]",
                           "a[1-999][1-999][1-999][1-999]"}) {
    const std::string message =
        message_of<UsageError>([&] { static_cast<void>(expand_node_list("SLURM_NODELIST", list)); });
    EXPECT_THAT(message, StartsWith("SLURM_NODELIST: \"")) << list;
  }
  EXPECT_THAT(message_of<UsageError>([] { static_cast<void>(expand_node_list("X", std::string(300, 'a'))); }),
              HasSubstr("longer than 253"));
  EXPECT_THAT(
      message_of<UsageError>([] { static_cast<void>(expand_node_list("X", std::string(2'000'000, 'a'))); }),
      StartsWith("X: is 2000000 characters long"));
}

TEST(TaskCounts, ExpandAsSlurmWritesThem) {
  const auto expand = [](const std::string& list) {
    return expand_task_counts("SLURM_TASKS_PER_NODE", list);
  };
  EXPECT_THAT(expand("8"), ElementsAre(8));
  EXPECT_THAT(expand("4(x2),3"), ElementsAre(4, 4, 3));
  EXPECT_THAT(expand("1,2(x1),3"), ElementsAre(1, 2, 3));
  for (const char* list :
       {"", "0", "4(x0)", "4(x2", "4x2", "4(x2)3", "4,", "-1", "4(x65537)", "4(x99999999999)"})
    EXPECT_THAT(message_of<UsageError>([&] { static_cast<void>(expand(list)); }),
                StartsWith("SLURM_TASKS_PER_NODE: \""))
        << list;
}

class Secret : public Environment {
 protected:
  [[nodiscard]] std::string file(const std::string& text, mode_t mode) const {
    const std::string path = (folder_ / "given").string();
    write_bytes(path, text);
    EXPECT_EQ(::chmod(path.c_str(), mode), 0);
    return path;
  }
  [[nodiscard]] Values with_file(const std::string& path) const {
    return torchrun() + Values{{"VOCA_JOB_SECRET", ""}, {"VOCA_JOB_SECRET_FILE", path}};
  }
  [[nodiscard]] std::filesystem::path own() const {
    return folder_ / fmt::format("voca-engine-{}", ::geteuid());
  }
  static Values on_one_node() { return slurm_on_one_node() + Values{{"VOCA_JOB_SECRET", ""}}; }
};

TEST_F(Secret, ComesFromAFileOfTheUsersAlone) {
  EXPECT_EQ(of(with_file(file(kSecret + "\n", 0600))).secret, kSecret);
  EXPECT_EQ(of(with_file(file(kSecret, 0400))).secret, kSecret);
}

TEST_F(Secret, IsRefusedWhereOthersMayReadIt) {
  for (const mode_t mode : {0640U, 0604U, 0660U, 0601U})
    EXPECT_THAT(refusal(with_file(file(kSecret, mode))), HasSubstr("must be its user's alone"));
}

TEST_F(Secret, IsRefusedWhereAnotherUserOwnsIt) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root may give files away";
  const std::string path = file(kSecret, 0600);
  ASSERT_EQ(::chown(path.c_str(), 1234, 1234), 0);
  EXPECT_THAT(refusal(with_file(path)), HasSubstr("belongs to user 1234"));
}

TEST_F(Secret, ThatIsNoneIsRefusedByItsName) {
  EXPECT_THAT(refusal(with_file(file("short\n", 0600))), HasSubstr("given: holds 5 characters"));
  EXPECT_THAT(refusal(with_file(file(std::string(5000, 'x'), 0600))), HasSubstr("characters, expected"));
  EXPECT_THAT(refusal(with_file(folder_.path().string())), HasSubstr("is not a file"));
  EXPECT_THAT(refusal(torchrun() + Values{{"VOCA_JOB_SECRET", "short"}}),
              StartsWith("VOCA_JOB_SECRET: holds 5 characters"));
  EXPECT_THAT(refusal(torchrun() + Values{{"VOCA_JOB_SECRET_FILE", "/x"}}),
              StartsWith("VOCA_JOB_SECRET_FILE: is set beside VOCA_JOB_SECRET"));
  EXPECT_THAT(message_of<IoError>([&] { static_cast<void>(of(with_file((folder_ / "absent").string()))); }),
              HasSubstr("absent: No such file"));
}

TEST_F(Secret, NeverStandsInAMessage) {
  const std::string text = "a-secret-that-is-well-known-to-this-test";
  EXPECT_THAT(refusal(with_file(file(text, 0644))), ::testing::Not(HasSubstr(text)));
  EXPECT_THAT(refusal(torchrun() + Values{{"VOCA_JOB_SECRET", "tooshort"}}),
              ::testing::Not(HasSubstr("tooshort")));
}

TEST_F(Secret, OfSeveralNodesMustBeGiven) {
  const std::string message = refusal(with_file(""));
  EXPECT_THAT(message, StartsWith("VOCA_JOB_SECRET_FILE: is not set, and ranks on 2 nodes"));
  EXPECT_THAT(message, HasSubstr("openssl rand -hex 32"));
  EXPECT_FALSE(std::filesystem::exists(own()));
}

TEST_F(Secret, OfOneNodeIsTheUsersOwn) {
  const std::string secret = of(on_one_node()).secret;
  EXPECT_EQ(secret.size(), 64U);
  EXPECT_EQ(of(on_one_node() + Values{{"SLURM_PROCID", "6"}, {"SLURM_LOCALID", "6"}}).secret, secret);
  struct stat status {};
  ASSERT_EQ(::stat(own().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777U, 0700U);
  ASSERT_EQ(::stat((own() / "secret").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777U, 0600U);
}

TEST_F(Secret, OfOneNodeIsTheSameForRanksThatStartAtOnce) {
  for (int round = 0; round < 20; ++round) {
    std::array<std::string, 8> secrets;
    {
      std::vector<std::jthread> ranks;
      for (std::string& secret : secrets) ranks.emplace_back([&] { secret = user_secret(folder_.path()); });
    }
    for (const std::string& secret : secrets) EXPECT_EQ(secret, secrets[0]);
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(own()), {}), 1) << "temporary files stayed";
    std::filesystem::remove_all(own());
  }
}

TEST_F(Secret, OfOneNodeIsNotTakenFromWhereOthersCouldHavePutIt) {
  const auto refused = [&] { return refusal(on_one_node()); };
  std::filesystem::create_directory(own());
  ASSERT_EQ(::chmod(own().c_str(), 0755), 0);
  EXPECT_THAT(refused(), HasSubstr("is not a folder of this user alone"));
  ASSERT_EQ(::chmod(own().c_str(), 0700), 0);
  write_bytes(own() / "secret", kSecret);
  ASSERT_EQ(::chmod((own() / "secret").c_str(), 0644), 0);
  EXPECT_THAT(refused(), HasSubstr("must be its user's alone"));

  // Links lead to what others chose.
  std::filesystem::rename(own(), folder_ / "elsewhere");
  std::filesystem::create_directory_symlink(folder_ / "elsewhere", own());
  EXPECT_THAT(refused(), HasSubstr("is not a folder of this user alone"));
}

TEST(FreshSecret, IsAnotherEachTime) {
  EXPECT_EQ(fresh_secret().size(), 64U);
  EXPECT_NE(fresh_secret(), fresh_secret());
}

}  // namespace
}  // namespace voca::engine::test
