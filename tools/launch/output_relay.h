#pragma once

#include <cstddef>
#include <deque>
#include <string>
#include <string_view>

namespace voca::tools {

/// What stands before each line of a rank, where there are several.
[[nodiscard]] inline std::string rank_prefix(int rank) {
  return "[rank " + std::to_string(rank) + "] ";
}

/// Cuts what one rank prints into lines and puts a prefix before each. What a carriage return would have
/// overwritten on a terminal is left out: of a bar that redraws itself, its last state remains.
class LineCutter {
 public:
  /// A longer line comes out in parts of this many bytes, each with the prefix.
  static constexpr std::size_t kMaxLine = std::size_t{64} << 10;

  explicit LineCutter(std::string prefix) : prefix_(std::move(prefix)) {}
  /// Appends to `lines` the lines that `bytes` complete.
  void add(std::string_view bytes, std::string& lines);
  /// Appends what is left of a line that was not ended.
  void finish(std::string& lines);

 private:
  void emit(std::string_view line, std::string& lines) const;

  std::string prefix_;
  std::string open_;  // a line without its end
};

/// Where the lines of all ranks go, to stdout and stderr in one order: both may be the same file, and no line
/// may break into another. Nothing here blocks: a reader that has stopped must not keep the launcher from its
/// signals. A stream that nobody reads any more is no reason to end a training; what goes
/// there is dropped.
class OutputRelay {
 public:
  enum class Stream { kOut, kErr };

  OutputRelay(int out, int err) : descriptors_{out, err} {}

  /// Queues whole lines.
  void add(Stream stream, std::string lines);
  /// Too much is queued: ranks are not read from until the reader has caught up.
  [[nodiscard]] bool is_full() const { return queued_ > kMaxQueued; }
  /// What poll() has to find writable before write_some(); −1 when nothing is queued.
  [[nodiscard]] int waiting_for() const;
  /// Writes as much as does not block.
  void write_some();
  /// Whether something that was meant for stdout did not get there.
  [[nodiscard]] bool lost_results() const { return broken_[0]; }

 private:
  static constexpr std::size_t kMaxQueued = std::size_t{256} << 10;
  struct Chunk {
    std::size_t stream;
    std::string text;
  };
  void write_front();

  int descriptors_[2];
  bool broken_[2]{};
  std::deque<Chunk> queue_;
  std::size_t written_ = 0;  // of the first chunk
  std::size_t queued_ = 0;   // bytes
};

}  // namespace voca::tools
