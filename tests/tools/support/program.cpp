#include "tests/tools/support/program.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>

extern char** environ;  // NOLINT(readability-redundant-declaration): POSIX leaves it to the program

namespace voca::tools::testing {
std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

namespace {

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> result;
  for (std::string& word : words) result.push_back(word.data());
  result.push_back(nullptr);
  return result;
}

Words environment_with(const std::map<std::string, std::string>& changes) {
  Words result;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    if (!changes.contains(text.substr(0, text.find('=')))) result.push_back(text);
  }
  for (const auto& [name, value] : changes) result.push_back(name + "=" + value);
  return result;
}

}  // namespace

std::string name_of_process(pid_t pid) {
  std::string name = read_text("/proc/" + std::to_string(pid) + "/comm");
  if (name.ends_with('\n')) name.pop_back();
  return name;
}

std::string Outcome::message() const {
  std::string text = err;
  while (text.ends_with('\n')) text.pop_back();
  const std::size_t newline = text.rfind('\n');
  return newline == std::string::npos ? text : text.substr(newline + 1);
}

nlohmann::ordered_json Outcome::json() const {
  return nlohmann::ordered_json::parse(out, nullptr, /*allow_exceptions=*/false);
}

Process::Process(const Words& words, const std::filesystem::path& folder,
                 const std::map<std::string, std::string>& environment) {
  static int count = 0;
  const std::string stem = "program-" + std::to_string(::getpid()) + "-" + std::to_string(count++);
  out_ = std::filesystem::temp_directory_path() / (stem + ".out");
  err_ = std::filesystem::temp_directory_path() / (stem + ".err");
  Words all = Words{VOCA_PROGRAM} + words;
  Words variables = environment_with(environment);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  constexpr int kFlags = O_WRONLY | O_CREAT | O_TRUNC;
  ::posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, out_.c_str(), kFlags, 0600);
  ::posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, err_.c_str(), kFlags, 0600);
  ::posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
  const int failed =
      ::posix_spawn(&pid_, VOCA_PROGRAM, &actions, nullptr, pointers(all).data(), pointers(variables).data());
  ::posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) throw std::runtime_error(std::string("cannot start ") + VOCA_PROGRAM);
}

Process::~Process() {
  if (!ended_) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, &status_, 0);
  }
  std::error_code error;
  std::filesystem::remove(out_, error);
  std::filesystem::remove(err_, error);
}

void Process::signal(int number) const {
  ::kill(pid_, number);
}

bool Process::running() {
  if (!ended_ && ::waitpid(pid_, &status_, WNOHANG) == pid_) ended_ = true;
  return !ended_;
}

Outcome Process::wait() {
  if (!ended_) ::waitpid(pid_, &status_, 0);
  ended_ = true;
  const int code = WIFSIGNALED(status_) ? -WTERMSIG(status_) : WEXITSTATUS(status_);
  return {code, read_text(out_), read_text(err_)};
}

Outcome run(const Words& words, const std::filesystem::path& folder,
            const std::map<std::string, std::string>& environment) {
  return Process(words, folder, environment).wait();
}

Words operator+(Words a, const Words& b) {
  const auto name_of = [](const std::string& word) { return word.substr(0, word.find('=')); };
  for (const std::string& word : b) {
    if (word.size() < 3 || !word.starts_with("--")) continue;
    std::erase_if(a, [&](const std::string& given) { return name_of(given) == name_of(word); });
  }
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

Words small_training(const std::filesystem::path& features) {
  return {"train",
          "--features_root=" + features.string(),
          "--hidden=16",
          "--num_layers=2",
          "--num_heads=2",
          "--seq_len=12",
          "--batch_size=8",
          "--epochs=4",
          "--warmup_epochs=1",
          "--lr=1e-3",
          "--dropout=0.2",
          "--augment_prob=0.5",
          "--use_contrastive",
          "--label_smoothing=0.1",
          "--log_every=1"};
}

std::vector<nlohmann::ordered_json> metrics_of(const std::filesystem::path& run_dir) {
  std::vector<nlohmann::ordered_json> lines;
  std::istringstream text(read_text(run_dir / "metrics.jsonl"));
  for (std::string line; std::getline(text, line);) {
    lines.push_back(nlohmann::ordered_json::parse(line));
    lines.back().erase("seconds");
    lines.back().erase("samples_per_s");
  }
  return lines;
}

}  // namespace voca::tools::testing
