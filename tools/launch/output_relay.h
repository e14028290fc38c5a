#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <string_view>

namespace voca::tools {

/// Prefix of each line of a rank, if there are several ranks.
[[nodiscard]] inline std::string rank_prefix(int rank) {
  return "[rank " + std::to_string(rank) + "] ";
}

/// Splits the output of one rank into lines. Text that a carriage return would overwrite on a terminal is
/// dropped: a redrawn progress bar is reduced to its last state.
class LineCutter {
 public:
  /// Longer lines are split into parts of this many bytes.
  static constexpr std::size_t kMaxLine = std::size_t{64} << 10;
  /// Receives a line without its line end.
  using Visit = std::function<void(std::string_view line)>;

  /// Visits the lines that `bytes` complete.
  void add(std::string_view bytes, const Visit& visit);
  /// Visits the remaining line, which has no line end.
  void finish(const Visit& visit);

 private:
  std::string open_;  // a line without its line end
};

/// Writes the lines of all ranks to stdout and stderr in one order: both may be the same file, and no line
/// may break into another. Nothing here blocks, so that a stalled reader does not keep the launcher from its
/// signals. Output to a stream without a reader is dropped: that is no reason to end a training.
class OutputRelay {
 public:
  enum class Stream : std::uint8_t { kOut, kErr };

  OutputRelay(int out, int err) : descriptors_{out, err} {}

  /// Queues whole lines.
  void add(Stream stream, std::string lines);
  /// Whether too much is queued: ranks are not read from until the reader has caught up.
  [[nodiscard]] bool is_full() const { return queued_ > kMaxQueued; }
  /// Descriptor that must be writable before write_some(); −1 if nothing is queued.
  [[nodiscard]] int waiting_for() const;
  /// Writes as much as possible without blocking.
  void write_some();
  /// Whether output for stdout was lost.
  [[nodiscard]] bool lost_results() const { return broken_[0]; }

 private:
  static constexpr std::size_t kMaxQueued = std::size_t{256} << 10;
  struct Chunk {
    std::size_t stream;
    std::string text;  ///< not written yet
  };

  int descriptors_[2];
  bool broken_[2]{};
  std::deque<Chunk> queue_;
  std::size_t queued_ = 0;  // bytes
};

}  // namespace voca::tools
