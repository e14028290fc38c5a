#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace voca::tools::testing {

using Words = std::vector<std::string>;

/// How a run of the program ended.
struct Outcome {
  int exit_code = -1;  ///< −signal where a signal ended it
  std::string out;     ///< stdout
  std::string err;     ///< stderr
  /// The last line of stderr.
  [[nodiscard]] std::string message() const;
  /// stdout as JSON; a discarded value where it is none.
  [[nodiscard]] nlohmann::ordered_json json() const;
};

/// All of a file; "" where there is none.
[[nodiscard]] std::string read_text(const std::filesystem::path& path);
[[nodiscard]] std::vector<std::string> lines_of(const std::string& text);

/// What the system calls a process; "" where there is none.
[[nodiscard]] std::string name_of_process(pid_t pid);

/// The program (VOCA_PROGRAM) as a process of its own, in `folder`.
class Process {
 public:
  Process(const Words& words, const std::filesystem::path& folder,
          const std::map<std::string, std::string>& environment = {});
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  [[nodiscard]] pid_t pid() const { return pid_; }
  void signal(int number) const;
  /// What the system calls it.
  [[nodiscard]] std::string name() const { return name_of_process(pid_); }
  [[nodiscard]] bool running();
  /// Waits for its end.
  [[nodiscard]] Outcome wait();

 private:
  std::filesystem::path out_;
  std::filesystem::path err_;
  pid_t pid_ = -1;
  int status_ = 0;
  bool ended_ = false;
};

[[nodiscard]] Outcome run(const Words& words, const std::filesystem::path& folder,
                          const std::map<std::string, std::string>& environment = {});

/// a then b. An option --name=… of a that b gives again is left out: twice with two values is refused.
[[nodiscard]] Words operator+(Words a, const Words& b);

/// Options of a training that takes a fraction of a second an epoch on a tree of `features`, with dropout,
/// augmentation and every loss on.
[[nodiscard]] Words small_training(const std::filesystem::path& features);

/// metrics.jsonl without what may differ between equal runs: times.
[[nodiscard]] std::vector<nlohmann::ordered_json> metrics_of(const std::filesystem::path& run_dir);

}  // namespace voca::tools::testing
