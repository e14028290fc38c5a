#include "tests/engine/rendezvous/support/forked_ranks.h"

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstring>
#include <exception>

#include "engine/base/error.h"
#include "engine/rendezvous/socket.h"

namespace voca::engine::test {
namespace {

constexpr int kMinute = 60;

}  // namespace

ReservedPort::ReservedPort(const std::string& host) {
  const Address wanted = resolve(host, 0).front();
  socket_ = UniqueFd(::socket(wanted.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  if (socket_.get() < 0 || ::setsockopt(socket_.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
      ::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&wanted.storage), wanted.length) != 0)
    return;
  number_ = local_address(socket_.get()).port();
}

RankEnvironment environment_of(int rank, int world_size, int port) {
  RankEnvironment environment;
  environment.rank = rank;
  environment.world_size = world_size;
  environment.local_rank = rank;
  environment.local_world_size = world_size;
  environment.master_port = port;
  environment.rendezvous_port = port;
  environment.job = "job";
  environment.secret = std::string(64, '5');
  return environment;
}

RankFacts agreeing_facts() {
  RankFacts facts = facts_of_this_process();
  facts.must_agree = {{"dataset", std::string(64, 'a')}, {"--lr", "0.0003"}};
  return facts;
}

void say(const std::string& text) {
  static_cast<void>(!::write(STDOUT_FILENO, text.data(), text.size()));
}

Ranks::~Ranks() {
  for (Process& process : processes_) {
    if (process.has_ended) continue;
    ::kill(process.pid, SIGKILL);
    ::waitpid(process.pid, nullptr, 0);
  }
}

void Ranks::start(const std::function<std::string()>& body) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const pid_t pid = ::fork();
  ASSERT_GE(pid, 0);
  if (pid > 0) {
    ::close(ends[1]);
    Process& process = processes_.emplace_back();
    process.pid = pid;
    process.output.reset(ends[0]);
    return;
  }
  ::dup2(ends[1], STDOUT_FILENO);
  ::dup2(ends[1], STDERR_FILENO);
  ::close(ends[0]);
  ::close(ends[1]);
  int code = 0;
  try {
    say(body());
  } catch (const Error& error) {
    say(error.what());
    code = static_cast<int>(error.code());
  } catch (const std::exception& error) {
    say(error.what());
    code = 1;
  }
  ::_exit(code);
}

void Ranks::start_all(int world_size, const std::function<std::string(int rank)>& body) {
  for (int rank = 0; rank < world_size; ++rank) start([&] { return body(rank); });
}

void Ranks::signal(int rank, int number) const {
  ASSERT_EQ(::kill(processes_[static_cast<std::size_t>(rank)].pid, number), 0);
}

void Ranks::read(Process& process, int milliseconds) {
  pollfd waited{process.output.get(), POLLIN, 0};
  if (::poll(&waited, 1, milliseconds) <= 0) return;
  char buffer[4096];
  const ssize_t got = ::read(process.output.get(), buffer, sizeof buffer);
  if (got > 0) process.said.append(buffer, static_cast<std::size_t>(got));
  if (got == 0) ::usleep(1000);
}

void Ranks::wait_until_said(int rank, const std::string& text) {
  Process& process = processes_[static_cast<std::size_t>(rank)];
  const Deadline deadline = seconds_from_now(kMinute);
  while (process.said.find(text) == std::string::npos) {
    ASSERT_GT(seconds_until(deadline), 0) << "rank " << rank << " has only said: " << process.said;
    read(process, 100);
  }
}

Ending Ranks::end_of(int rank) {
  Process& process = processes_[static_cast<std::size_t>(rank)];
  if (process.has_ended) return process.ending;
  const Deadline deadline = seconds_from_now(kMinute);
  int status = 0;
  while (::waitpid(process.pid, &status, WNOHANG) == 0) {
    if (seconds_until(deadline) <= 0) {
      ADD_FAILURE() << "rank " << rank << " hangs; it has said: " << process.said;
      ::kill(process.pid, SIGKILL);
      ::waitpid(process.pid, &status, 0);
      break;
    }
    read(process, 10);
  }
  for (std::size_t before = 0;; before = process.said.size()) {
    read(process, 0);
    if (process.said.size() == before) break;
  }
  process.has_ended = true;
  process.ending = {process.said, WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status)};
  return process.ending;
}

}  // namespace voca::engine::test
