#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/rendezvous/wire.h"

namespace voca::engine {

/// Facts that a rank reports to the others.
struct RankFacts {
  std::string host{};  ///< host and pid are for messages only
  std::int64_t pid = 0;
  /// Names and values that all ranks must agree on, in the order in which differences are reported: hashes
  /// ({"dataset", ...}, {"build", ...}) and readable values ({"--lr", "0.0003"}).
  std::vector<std::pair<std::string, std::string>> must_agree{};
};

/// Maximum length of a fact. Longer ones are truncated, longer must_agree values to their beginning and hash.
inline constexpr std::size_t kMaxFact = 256;
inline constexpr std::size_t kMaxFacts = 1024;

/// Host and pid of this process; must_agree is empty.
[[nodiscard]] RankFacts facts_of_this_process();

/// Serialisation as part of a kJoin message. Reading throws MalformedMessage.
void write_facts(MessageWriter& writer, const RankFacts& facts);
[[nodiscard]] RankFacts read_facts(MessageReader& reader);

/// "rank 3", "ranks 1, 3-5"; `ranks` must be ascending.
[[nodiscard]] std::string list_of_ranks(const std::vector<int>& ranks);
/// "rank 2 (host gpu07, pid 4711)"
[[nodiscard]] std::string describe(int rank, const RankFacts& facts);

/// "rank 2 (host gpu07, pid 4711) has been silent for 300.5 s; it was last at: evaluating"
[[nodiscard]] std::string silence(int rank, const RankFacts& facts, double seconds, const std::string& doing);

/// Rank at the beginning of a line, as written by describe(), and whether the line is a silence() message.
struct NamedRank {
  int rank = 0;
  std::int64_t pid = 0;
  bool is_silent = false;
};
[[nodiscard]] std::optional<NamedRank> named_rank(const std::string& line);

/// Differences from rank 0, in one line: "ranks 1, 3 differ from rank 0 in --lr: 0.001, 0.0003", the ranks'
/// own value first; "" if all ranks agree. Hashes are reported only if no readable value differs.
[[nodiscard]] std::string difference(const std::vector<RankFacts>& by_rank);

}  // namespace voca::engine
