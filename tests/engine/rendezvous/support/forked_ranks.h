#pragma once

// Ranks as forked processes, on loopback ports of the system's choice.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "engine/base/unique_fd.h"
#include "engine/rendezvous/rank_environment.h"
#include "engine/rendezvous/rank_facts.h"

namespace voca::engine::test {

/// A free port of the loopback interface, kept for rank 0: bound here, so that nobody else gets it, and
/// shared, so that rank 0 can listen there.
class ReservedPort {
 public:
  explicit ReservedPort(const std::string& host = "127.0.0.1");
  /// 0 where the host has no such address.
  [[nodiscard]] int number() const { return number_; }

 private:
  UniqueFd socket_;
  int number_ = 0;
};

/// Of rank `rank` on a single node.
[[nodiscard]] RankEnvironment environment_of(int rank, int world_size, int port);
/// Facts of the calling process that agree with every other rank's.
[[nodiscard]] RankFacts agreeing_facts();

/// How a rank ended: what it printed or threw, and its exit code (negative: a signal).
struct Ending {
  std::string said;
  int code = 0;
};

/// Forks ranks and ends those that are left.
class Ranks {
 public:
  Ranks() = default;
  ~Ranks();
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;

  /// Starts the next rank. What `body` returns is what it said; what it throws is told with the exit code of
  /// the program.
  void start(const std::function<std::string()>& body);
  /// Starts ranks 0 to world_size − 1.
  void start_all(int world_size, const std::function<std::string(int rank)>& body);
  void signal(int rank, int number) const;
  /// Waits until the rank has said `text` or ended.
  void wait_until_said(int rank, const std::string& text);
  /// Waits for it; a rank that does not end within a minute is killed and fails the test.
  [[nodiscard]] Ending end_of(int rank);

 private:
  struct Process {
    pid_t pid = -1;
    UniqueFd output;
    std::string said{};
    bool has_ended = false;
    Ending ending{};
  };
  void read(Process& process, int milliseconds);

  std::vector<Process> processes_;
};

/// Says something to the parent at once.
void say(const std::string& text);

}  // namespace voca::engine::test
