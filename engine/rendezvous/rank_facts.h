#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/rendezvous/wire.h"

namespace voca::engine {

/// What a rank tells the others of itself.
struct RankFacts {
  std::string host{};  ///< these two are for messages
  std::int64_t pid = 0;
  /// Names and values that all ranks must have alike, in the order in which differences are told: hashes
  /// ({"dataset", ...}, {"build", ...}) and what a person can read ({"--lr", "0.0003"}).
  std::vector<std::pair<std::string, std::string>> must_agree{};
};

/// Longer texts of facts are cut, a value that must agree to its beginning and its hash.
inline constexpr std::size_t kMaxFact = 256;
inline constexpr std::size_t kMaxFacts = 1024;

/// Host and process of this process, and nothing that must agree.
[[nodiscard]] RankFacts facts_of_this_process();

/// As kJoin, the message, carries them. Reading throws MalformedMessage.
void write_facts(MessageWriter& writer, const RankFacts& facts);
[[nodiscard]] RankFacts read_facts(MessageReader& reader);

/// "rank 3", "ranks 1, 3-5"; `ranks` ascend.
[[nodiscard]] std::string list_of_ranks(const std::vector<int>& ranks);
/// "rank 2 (host gpu07, pid 4711)"
[[nodiscard]] std::string describe(int rank, const RankFacts& facts);

/// "rank 2 (host gpu07, pid 4711) has been silent for 300.5 s; it was last at: evaluating"
[[nodiscard]] std::string silence(int rank, const RankFacts& facts, double seconds, const std::string& doing);

/// The rank that a line begins with as describe() names it, and whether the line is silence().
struct NamedRank {
  int rank = 0;
  std::int64_t pid = 0;
  bool is_silent = false;
};
[[nodiscard]] std::optional<NamedRank> named_rank(const std::string& line);

/// Where ranks differ from rank 0, in one line: "ranks 1, 3 differ from rank 0 in --lr: 0.001, 0.0003",
/// theirs first; "" where they agree. Hashes are told where nothing readable differs.
[[nodiscard]] std::string difference(const std::vector<RankFacts>& by_rank);

}  // namespace voca::engine
