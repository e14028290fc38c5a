#include "engine/rendezvous/rank_facts.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <map>
#include <regex>

#include "engine/base/digest.h"

namespace voca::engine {
namespace {

constexpr std::size_t kHashInMessages = 12;
/// Maximum number of differences reported; users fix one at a time.
constexpr std::size_t kMaxTold = 4;

std::string cut(const std::string& text) {
  return text.substr(0, kMaxFact);
}

/// Shortens a long value, such as a list of files, to its beginning (for users) and its hash (for the
/// comparison).
std::string shortened(const std::string& value) {
  if (value.size() <= kMaxFact) return value;
  constexpr std::size_t kHashDigits = 64;
  constexpr std::string_view kBetween = "... ";
  return value.substr(0, kMaxFact - kHashDigits - kBetween.size()) + std::string(kBetween) +
         sha256_hex(value);
}

bool is_hash(const std::string& value) {
  constexpr std::size_t kShortestHash = 32;
  return value.size() >= kShortestHash && value.find_first_not_of("0123456789abcdef") == std::string::npos;
}

using Value = std::optional<std::string>;

Value value_of(const RankFacts& facts, const std::string& name) {
  for (const auto& [key, value] : facts.must_agree)
    if (key == name) return value;
  return std::nullopt;
}

std::string told(const Value& value) {
  if (!value) return "absent";
  if (value->empty()) return "\"\"";
  return is_hash(*value) ? value->substr(0, kHashInMessages) : *value;
}

/// Names in rank 0's order, then names that only other ranks have.
std::vector<std::string> all_names(const std::vector<RankFacts>& by_rank) {
  std::vector<std::string> names;
  std::map<std::string, bool> seen;
  for (const RankFacts& facts : by_rank) {
    for (const auto& [name, value] : facts.must_agree)
      if (!std::exchange(seen[name], true)) names.push_back(name);
  }
  return names;
}

}  // namespace

RankFacts facts_of_this_process() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) name[0] = '\0';
  return {name.data(), ::getpid(), {}};
}

void write_facts(MessageWriter& writer, const RankFacts& facts) {
  if (facts.must_agree.size() > kMaxFacts) {
    throw InternalError("{} facts for ranks to agree on, expected at most {}", facts.must_agree.size(),
                        kMaxFacts);
  }
  writer.text(cut(facts.host)).u64(static_cast<std::uint64_t>(facts.pid));
  writer.u32(static_cast<std::uint32_t>(facts.must_agree.size()));
  for (const auto& [name, value] : facts.must_agree) writer.text(cut(name)).text(shortened(value));
}

RankFacts read_facts(MessageReader& reader) {
  RankFacts facts;
  facts.host = reader.text(kMaxFact);
  facts.pid = static_cast<std::int64_t>(reader.u64());
  const std::uint32_t count = reader.u32();
  if (count > kMaxFacts)
    throw MalformedMessage(fmt::format("{} facts, expected at most {}", count, kMaxFacts));
  for (std::uint32_t i = 0; i < count; ++i) {
    std::string name = reader.text(kMaxFact);
    std::string value = reader.text(kMaxFact);
    facts.must_agree.emplace_back(std::move(name), std::move(value));
  }
  return facts;
}

std::string list_of_ranks(const std::vector<int>& ranks) {
  std::string list = ranks.size() == 1 ? "rank " : "ranks ";
  for (std::size_t first = 0; first < ranks.size();) {
    std::size_t last = first;
    while (last + 1 < ranks.size() && ranks[last + 1] == ranks[last] + 1) ++last;
    if (last == first + 1) last = first;  // "1, 2" rather than "1-2"
    if (first > 0) list += ", ";
    list += last == first ? fmt::format("{}", ranks[first]) : fmt::format("{}-{}", ranks[first], ranks[last]);
    first = last + 1;
  }
  return list;
}

std::string describe(int rank, const RankFacts& facts) {
  return fmt::format("rank {} (host {}, pid {})", rank, facts.host, facts.pid);
}

std::string silence(int rank, const RankFacts& facts, double seconds, const std::string& doing) {
  return fmt::format("{} has been silent for {:.1f} s; it was last at: {}", describe(rank, facts), seconds,
                     doing);
}

std::optional<NamedRank> named_rank(const std::string& line) {
  static const std::regex form(R"(rank (\d{1,9}) \(host [^,]*, pid (\d{1,18})\)( has been silent for )?.*)");
  std::smatch parts;
  if (!std::regex_match(line, parts, form)) return std::nullopt;
  return NamedRank{
      .rank = std::stoi(parts[1].str()), .pid = std::stoll(parts[2].str()), .is_silent = parts[3].matched};
}

std::string difference(const std::vector<RankFacts>& by_rank) {
  std::vector<std::string> readable;
  std::vector<std::string> hashes;
  for (const std::string& name : all_names(by_rank)) {
    const Value expected = value_of(by_rank.front(), name);
    std::map<Value, std::vector<int>> others;
    for (std::size_t rank = 1; rank < by_rank.size(); ++rank) {
      const Value value = value_of(by_rank[rank], name);
      if (value != expected) others[value].push_back(static_cast<int>(rank));
    }
    for (const auto& [value, ranks] : others) {
      const bool both_hashes = (!value || is_hash(*value)) && (!expected || is_hash(*expected));
      (both_hashes ? hashes : readable)
          .push_back(fmt::format("{} differ{} from rank 0 in {}: {}, {}", list_of_ranks(ranks),
                                 ranks.size() == 1 ? "s" : "", name, told(value), told(expected)));
    }
  }
  const std::vector<std::string>& differences = readable.empty() ? hashes : readable;
  std::string line;
  for (std::size_t i = 0; i < std::min(differences.size(), kMaxTold); ++i)
    line += (i == 0 ? "" : "; ") + differences[i];
  if (differences.size() > kMaxTold) line += fmt::format("; and {} more", differences.size() - kMaxTold);
  return line;
}

}  // namespace voca::engine
