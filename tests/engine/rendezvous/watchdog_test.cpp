#include "engine/rendezvous/watchdog.h"

#include <signal.h>

#include <thread>

#include "engine/comm/communication_error.h"
#include "tests/engine/rendezvous/support/forked_ranks.h"

namespace voca::engine::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr RendezvousOptions kPatient{40};
/// Longer than a loaded machine holds a thread up.
constexpr double kCommTimeout = 3;
constexpr double kNever = 1000;
/// After a kill, or beyond the time-out.
constexpr double kAllowedSeconds = 5;

void sleep_for(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

/// A main thread that makes progress until its process is ended.
[[noreturn]] void work_forever(Watchdog& watchdog) {
  for (;;) {
    watchdog.doing("step 12");
    sleep_for(0.05);
  }
}

/// `world_size` ranks of which each runs `body` under a watchdog, once all are watched.
void start_watched(Ranks& ranks, const ReservedPort& port, int world_size, double timeout,
                   const std::function<std::string(int rank, Watchdog&, Rendezvous&)>& body) {
  ranks.start_all(world_size, [&](int rank) {
    Rendezvous rendezvous(environment_of(rank, world_size, port.number()), agreeing_facts(), kPatient);
    Watchdog watchdog(rendezvous, timeout);
    rendezvous.store().add("watched", 1);
    while (rendezvous.store().add("watched", 0) < world_size) sleep_for(0.01);
    say("watched;");
    return body(rank, watchdog, rendezvous);
  });
}

void expect_others_end(Ranks& ranks, int world_size, int culprit, double within,
                       const ::testing::Matcher<std::string>& with) {
  const Deadline limit = seconds_from_now(within);
  for (int rank = 0; rank < world_size; ++rank) {
    if (rank == culprit) continue;
    const Ending ending = ranks.end_of(rank);
    EXPECT_THAT(ending.said, with) << "of rank " << rank;
    EXPECT_EQ(ending.code, 74) << "of rank " << rank;
  }
  EXPECT_GT(seconds_until(limit), 0) << "the others are to end within " << within << " s";
}

TEST(Watchdog, AKilledRankEndsTheJobOnAllOthersByName) {
  constexpr int kRanks = 4;
  for (const int lost : {0, 2}) {
    const ReservedPort port;
    Ranks ranks;
    start_watched(ranks, port, kRanks, kNever, [&](int rank, Watchdog& watchdog, Rendezvous&) -> std::string {
      if (rank != lost) work_forever(watchdog);
      watchdog.doing("all-reduce of gradients 3");
      sleep_for(kNever);  // its heartbeats go on
      return "";
    });
    for (int rank = 0; rank < kRanks; ++rank) ranks.wait_until_said(rank, "watched;");
    sleep_for(1.5);  // some heartbeats
    ranks.signal(lost, SIGKILL);
    EXPECT_EQ(ranks.end_of(lost).code, -SIGKILL);
    expect_others_end(ranks, kRanks, lost, kAllowedSeconds,
                      AllOf(HasSubstr(fmt::format("voca-engine: rank {} (host ", lost)),
                            HasSubstr("was lost"), HasSubstr("it was last at: all-reduce of gradients 3\n")));
  }
}

void expect_stop_ends_the_job(int stopped) {
  constexpr int kRanks = 3;
  const ReservedPort port;
  Ranks ranks;
  start_watched(ranks, port, kRanks, kCommTimeout,
                [](int, Watchdog& watchdog, Rendezvous&) -> std::string { work_forever(watchdog); });
  for (int rank = 0; rank < kRanks; ++rank) ranks.wait_until_said(rank, "watched;");
  sleep_for(1.5);
  ranks.signal(stopped, SIGSTOP);
  expect_others_end(ranks, kRanks, stopped, kCommTimeout + kAllowedSeconds,
                    AllOf(HasSubstr(fmt::format("voca-engine: rank {} (host ", stopped)),
                          HasSubstr("has been silent for "), HasSubstr("it was last at: step 12")));
  // Awake again it finds out by itself.
  ranks.signal(stopped, SIGCONT);
  EXPECT_EQ(ranks.end_of(stopped).code, 74);
}

TEST(Watchdog, AStoppedRankEndsTheJobAfterTheTimeOut) {
  expect_stop_ends_the_job(1);
}

TEST(Watchdog, AStoppedRankZeroEndsTheJobAfterTheTimeOut) {
  expect_stop_ends_the_job(0);
}

TEST(Watchdog, AJobThatIsStoppedAsAWholeGoesOn) {
  constexpr int kRanks = 3;
  const ReservedPort port;
  Ranks ranks;
  start_watched(ranks, port, kRanks, kCommTimeout, [](int, Watchdog& watchdog, Rendezvous&) {
    for (int step = 0; step < 60; ++step) {  // stopped in the first, to the end of the last
      watchdog.doing("a step");
      sleep_for(0.1);
    }
    return std::string("done");
  });
  for (int rank = 0; rank < kRanks; ++rank) ranks.wait_until_said(rank, "watched;");
  for (int rank = 0; rank < kRanks; ++rank) ranks.signal(rank, SIGSTOP);
  sleep_for(2 * kCommTimeout);
  for (int rank = 0; rank < kRanks; ++rank) ranks.signal(rank, SIGCONT);
  for (int rank = 0; rank < kRanks; ++rank) EXPECT_EQ(ranks.end_of(rank).said, "watched;done");
}

TEST(Watchdog, ARankWithoutProgressEndsTheJobWithWhatEachWasDoing) {
  constexpr int kRanks = 3;
  const ReservedPort port;
  Ranks ranks;
  start_watched(ranks, port, kRanks, kCommTimeout,
                [](int rank, Watchdog& watchdog, Rendezvous&) -> std::string {
                  if (rank != 1) work_forever(watchdog);
                  watchdog.doing("reading real/video_7.npz");
                  sleep_for(kNever);
                  return "";
                });
  for (int rank = 0; rank < kRanks; ++rank) ranks.wait_until_said(rank, "watched;");
  expect_others_end(
      ranks, kRanks, -1, kCommTimeout + kAllowedSeconds,
      AllOf(HasSubstr("voca-engine: rank 1 (host "), HasSubstr("has made no progress for "),
            HasSubstr("rank 0 at step 12 for "), HasSubstr("rank 1 at reading real/video_7.npz for ")));
}

TEST(Watchdog, ARankThatLeavesInOrderDisturbsNobody) {
  const ReservedPort port;
  Ranks ranks;
  start_watched(ranks, port, 3, kCommTimeout, [](int rank, Watchdog& watchdog, Rendezvous&) -> std::string {
    // Rank 0 first of all: its store and coordinator serve until the others are done.
    for (int step = 0; step < 20 * rank; ++step) {
      watchdog.doing("evaluation");
      sleep_for(0.05);
    }
    return "done";
  });
  for (int rank = 0; rank < 3; ++rank) {
    const Ending ending = ranks.end_of(rank);
    EXPECT_EQ(ending.said, "watched;done");
    EXPECT_EQ(ending.code, 0);
  }
}

TEST(Watchdog, ARankThatFailsTellsTheOthersWhy) {
  const ReservedPort port;
  Ranks ranks;
  start_watched(ranks, port, 3, kNever, [](int rank, Watchdog& watchdog, Rendezvous&) -> std::string {
    if (rank != 2) work_forever(watchdog);
    try {
      throw IoError("runs/last.pt: cannot write: No space left on device");
    } catch (const IoError& error) {
      watchdog.fail(error.what());
      throw;
    }
  });
  expect_others_end(ranks, 3, 2, kAllowedSeconds,
                    AllOf(HasSubstr("rank 2 (host "), HasSubstr("failed: runs/last.pt: cannot write")));
  EXPECT_EQ(ranks.end_of(2).said, "watched;runs/last.pt: cannot write: No space left on device");
}

TEST(Watchdog, ARankThatUnwindsIsNotTakenForOneThatLeavesInOrder) {
  for (const int failing : {0, 1}) {
    const ReservedPort port;
    Ranks ranks;
    start_watched(ranks, port, 3, kNever, [&](int rank, Watchdog& watchdog, Rendezvous&) -> std::string {
      if (rank != failing) work_forever(watchdog);
      throw IoError("a disk is full");
    });
    expect_others_end(ranks, 3, failing, kAllowedSeconds,
                      AllOf(HasSubstr(fmt::format("rank {} (host ", failing)), HasSubstr("failed")));
    const Ending ending = ranks.end_of(failing);
    EXPECT_EQ(ending.said, "watched;a disk is full");
    EXPECT_EQ(ending.code, 74);
  }
}

TEST(Watchdog, RanksThatHaveAgreedToStopMayDoSoByAnException) {
  const ReservedPort port;
  Ranks ranks;
  start_watched(ranks, port, 3, kCommTimeout, [](int rank, Watchdog& watchdog, Rendezvous&) -> std::string {
    sleep_for(0.7 * rank);
    watchdog.leave();
    throw Interrupted("stopped by SIGTERM");
  });
  for (int rank = 0; rank < 3; ++rank) {
    const Ending ending = ranks.end_of(rank);
    EXPECT_EQ(ending.said, "watched;stopped by SIGTERM");
    EXPECT_EQ(ending.code, 75);
  }
}

TEST(Watchdog, AMainThreadThatGotAnErrorLearnsItsCause) {
  const ReservedPort port;
  Ranks ranks;
  start_watched(ranks, port, 3, kNever, [](int rank, Watchdog& watchdog, Rendezvous&) -> std::string {
    if (rank == 2) sleep_for(kNever);
    // As after a collective that broke: the thread ends in its own way, and only it says why.
    throw CommunicationError("all-reduce broke: {}", watchdog.reason(seconds_from_now(60)));
  });
  for (int rank = 0; rank < 3; ++rank) ranks.wait_until_said(rank, "watched;");
  ranks.signal(2, SIGKILL);
  for (const int rank : {0, 1}) {
    const Ending ending = ranks.end_of(rank);
    EXPECT_THAT(ending.said, HasSubstr("watched;all-reduce broke: rank 2 (host "));
    EXPECT_EQ(ending.said.find("voca-engine:"), std::string::npos) << ending.said;
    EXPECT_EQ(ending.code, 74);
  }
}

TEST(Watchdog, WithoutAFailureThereIsNoReason) {
  const ReservedPort port;
  Ranks ranks;
  start_watched(ranks, port, 2, kNever, [](int, Watchdog& watchdog, Rendezvous& rendezvous) -> std::string {
    std::string reason = watchdog.reason(seconds_from_now(0.2));
    rendezvous.store().add("done", 1);
    while (rendezvous.store().add("done", 0) < 2) sleep_for(0.01);
    return reason;
  });
  for (const int rank : {0, 1}) EXPECT_EQ(ranks.end_of(rank).said, "watched;");
}

TEST(Watchdog, AStoreRequestIsAnsweredByTheReasonOfTheEnd) {
  const ReservedPort port;
  Ranks ranks;
  ranks.start_all(3, [&](int rank) -> std::string {
    Rendezvous rendezvous(environment_of(rank, 3, port.number()), agreeing_facts(), kPatient);
    say("met;");
    return rendezvous.store().get("never set", seconds_from_now(kNever));
  });
  for (int rank = 0; rank < 3; ++rank) ranks.wait_until_said(rank, "met;");
  ranks.signal(1, SIGKILL);
  expect_others_end(ranks, 3, 1, kAllowedSeconds, AllOf(HasSubstr("rank 1 (host "), HasSubstr("was lost")));
}

TEST(Watchdog, AWorldOfOneIsNotWatched) {
  Rendezvous rendezvous(RankEnvironment{}, agreeing_facts(), kPatient);
  Watchdog watchdog(rendezvous, 0.1, [](const std::string& reason) { ADD_FAILURE() << reason; });
  sleep_for(0.5);
  EXPECT_EQ(watchdog.reason(seconds_from_now(0)), "");
}

TEST(Watchdog, TheCallbackReplacesTheEndOfTheProcess) {
  const ReservedPort port;
  Ranks ranks;
  ranks.start_all(2, [&](int rank) -> std::string {
    Rendezvous rendezvous(environment_of(rank, 2, port.number()), agreeing_facts(), kPatient);
    Watchdog watchdog(rendezvous, kNever, [](const std::string& reason) {
      say("called: " + reason);
      ::_exit(7);
    });
    say("watched;");
    sleep_for(kNever);
    return "";
  });
  for (const int rank : {0, 1}) ranks.wait_until_said(rank, "watched;");
  ranks.signal(1, SIGKILL);
  const Ending ending = ranks.end_of(0);
  EXPECT_THAT(ending.said, HasSubstr("called: rank 1 (host "));
  EXPECT_EQ(ending.code, 7);
}

}  // namespace
}  // namespace voca::engine::test
