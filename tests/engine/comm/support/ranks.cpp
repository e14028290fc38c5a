#include "tests/engine/comm/support/ranks.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#include "engine/comm/communication_error.h"

namespace voca::engine::testing {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kPoll{1};

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void write_file(const std::filesystem::path& path, const std::string& text) {
  const std::filesystem::path temporary = path.string() + fmt::format(".{}", ::getpid());
  std::ofstream(temporary, std::ios::binary) << text;
  std::filesystem::rename(temporary, path);
}

[[noreturn]] void run_rank(int rank, const std::filesystem::path& folder,
                           const std::function<std::string(int, KeyValueStore&)>& body) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  int code = 0;
  std::string text;
  try {
    FileStore store(folder / "store");
    text = body(rank, store);
  } catch (const std::exception& error) {
    code = 1;
    text = error.what();
  }
  write_file(folder / fmt::format("rank{}", rank), text);
  ::_exit(code);
}

}  // namespace

std::filesystem::path FileStore::path(const std::string& key) const {
  std::string name;
  for (const char c : key) name += c == '/' ? '%' : c;
  return folder_ / name;
}

void FileStore::set(const std::string& key, const std::string& value) {
  write_file(path(key), value);
}

std::string FileStore::get(const std::string& key, Deadline deadline) {
  while (!has(key)) {
    if (Clock::now() > deadline) throw CommunicationError("nobody set {}", key);
    std::this_thread::sleep_for(kPoll);
  }
  return read_file(path(key));
}

std::int64_t FileStore::add(const std::string& key, std::int64_t amount) {
  const int lock = ::open((path(key).string() + ".lock").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  ::flock(lock, LOCK_EX);
  const std::string text = read_file(path(key));
  const std::int64_t sum = (text.empty() ? 0 : std::stoll(text)) + amount;
  write_file(path(key), std::to_string(sum));
  ::close(lock);
  return sum;
}

bool FileStore::has(const std::string& key) {
  return std::filesystem::exists(path(key));
}

std::vector<Ending> run_ranks(int world_size, const std::function<std::string(int, KeyValueStore&)>& body) {
  std::string pattern = (std::filesystem::temp_directory_path() / "voca-ranks-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp " + pattern);
  const std::filesystem::path folder = pattern;
  std::filesystem::create_directory(folder / "store");

  std::vector<pid_t> ranks;
  for (int rank = 0; rank < world_size; ++rank) {
    const pid_t child = ::fork();
    if (child == 0) run_rank(rank, folder, body);
    ranks.push_back(child);
  }
  std::vector<Ending> endings(ranks.size());
  std::size_t running = ranks.size();
  const auto start = Clock::now();
  while (running > 0) {
    const bool too_long = Clock::now() - start > std::chrono::minutes(1);
    for (const pid_t child : ranks)
      if (too_long && child > 0) ::kill(child, SIGKILL);
    for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
      int status = 0;
      if (ranks[rank] <= 0 || ::waitpid(ranks[rank], &status, WNOHANG) <= 0) continue;
      ranks[rank] = 0;
      --running;
      endings[rank].seconds = std::chrono::duration<double>(Clock::now() - start).count();
      if (WIFSIGNALED(status)) endings[rank].signal = WTERMSIG(status);
      if (WIFEXITED(status)) endings[rank].code = WEXITSTATUS(status);
      endings[rank].text = read_file(folder / fmt::format("rank{}", rank));
    }
    std::this_thread::sleep_for(kPoll);
  }
  std::filesystem::remove_all(folder);
  return endings;
}

}  // namespace voca::engine::testing
