#include "engine/rendezvous/slurm.h"

#include <algorithm>
#include <numeric>
#include <string_view>
#include <utility>

#include "engine/base/error.h"
#include "engine/base/text.h"

namespace voca::engine {
namespace {

// Host names have at most 253 characters, and Slurm's lists have a few brackets per name.
constexpr std::size_t kMaxList = std::size_t{1} << 20;
constexpr std::size_t kMaxName = 253;
constexpr std::size_t kMaxDigits = 9;

/// Parses a list from left to right; throws UsageError naming the variable on a syntax error.
class ListReader {
 public:
  ListReader(const std::string& variable, const std::string& list) : variable_(variable), list_(list) {
    if (list.size() > kMaxList)
      throw UsageError("{}: is {} characters long, more than {}", variable, list.size(), kMaxList);
  }

  [[nodiscard]] bool at_end() const { return at_ == list_.size(); }
  [[nodiscard]] bool at(char c) const { return !at_end() && list_[at_] == c; }
  bool skip(char c) {
    if (!at(c)) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!skip(c)) fail(std::string("expected '") + c + "'");
  }
  /// Text before the next of the characters `ends`.
  std::string_view word(std::string_view ends) {
    const std::size_t end = std::min(list_.find_first_of(ends, at_), list_.size());
    return std::string_view(list_).substr(std::exchange(at_, end), end - at_);
  }
  int number() { return *number_in<int>(digits()); }
  std::string_view digits() {
    const std::size_t end = std::min(list_.find_first_not_of("0123456789", at_), list_.size());
    const std::string_view text = std::string_view(list_).substr(at_, end - at_);
    if (text.empty() || text.size() > kMaxDigits) fail("expected a number of at most 9 digits");
    at_ = end;
    return text;
  }
  [[noreturn]] void fail(const std::string& what) const {
    constexpr std::size_t kShown = 100;
    throw UsageError("{}: \"{}{}\": {} at character {}", variable_, list_.substr(0, kShown),
                     list_.size() > kShown ? "…" : "", what, at_ + 1);
  }

 private:
  const std::string& variable_;
  const std::string& list_;
  std::size_t at_ = 0;
};

/// Parses "01-04,7]" after an opening bracket: "01", "02", "03", "04", "7".
std::vector<std::string> read_ranges(ListReader& reader) {
  std::vector<std::string> numbers;
  do {
    const std::string_view first_text = reader.digits();
    const int first = *number_in<int>(first_text);
    const int last = reader.skip('-') ? reader.number() : first;
    if (last < first) reader.fail("the range runs backwards");
    if (last - first >= kMaxRanks - static_cast<int>(numbers.size())) reader.fail("more nodes than 65536");
    for (int number = first; number <= last; ++number)
      numbers.push_back(fmt::format("{:0{}}", number, first_text.size()));
  } while (reader.skip(','));
  reader.expect(']');
  return numbers;
}

/// Parses one name with its brackets, up to the next comma.
std::vector<std::string> read_name(ListReader& reader) {
  std::vector<std::string> names{std::string(reader.word(",[]"))};
  while (reader.skip('[')) {
    const std::vector<std::string> numbers = read_ranges(reader);
    const std::string_view behind = reader.word(",[]");
    if (names.size() * numbers.size() > static_cast<std::size_t>(kMaxRanks))
      reader.fail("more nodes than 65536");
    std::vector<std::string> longer;
    longer.reserve(names.size() * numbers.size());
    for (const std::string& name : names)
      for (const std::string& number : numbers) longer.push_back(fmt::format("{}{}{}", name, number, behind));
    names = std::move(longer);
    if (names.back().size() > kMaxName) reader.fail("a name longer than 253 characters");
  }
  if (names[0].empty()) reader.fail("expected a name");
  if (names.back().size() > kMaxName) reader.fail("a name longer than 253 characters");
  return names;
}

/// First of `names` that is set, or else the last.
std::string first_set(const EnvVars& variables, std::initializer_list<const char*> names) {
  for (const char* name : names)
    if (variables.has(name)) return name;
  return *std::prev(names.end());
}

int required(const EnvVars& variables, const std::string& name, int low, int high) {
  const auto value = variables.number(name, low, high);
  if (!value) throw UsageError("{}: is not set, though this is a task of a Slurm step; srun sets it", name);
  return static_cast<int>(*value);
}

int tasks_of_step(const EnvVars& variables) {
  // Steps that Slurm itself creates, for sbatch scripts and salloc shells, have ids near 2^32.
  constexpr std::int64_t kFirstOfSlurm = 0xfffffff0;
  constexpr std::int64_t kLast = 0xffffffff;
  const std::int64_t step = variables.number("SLURM_STEP_ID", 0, kLast).value_or(kLast);
  if (const auto tasks = variables.number("SLURM_STEP_NUM_TASKS", 1, kMaxRanks))
    return static_cast<int>(*tasks);
  if (step >= kFirstOfSlurm) return 1;
  return static_cast<int>(variables.number("SLURM_NTASKS", 1, kMaxRanks).value_or(1));
}

/// Number of tasks on each node of the step.
std::vector<int> tasks_per_node(const EnvVars& variables, int nodes, int world_size) {
  const std::string lists = first_set(variables, {"SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"});
  std::vector<int> counts;
  std::string name = lists;
  if (variables.has(lists)) {
    counts = expand_task_counts(lists, variables.text(lists));
  } else {
    name = "SLURM_NTASKS_PER_NODE";
    counts.assign(static_cast<std::size_t>(nodes), required(variables, name, 1, world_size));
  }
  if (std::cmp_not_equal(counts.size(), nodes)) {
    throw UsageError("{}: is \"{}\", which is for {} nodes; the step has {}", name, variables.text(name),
                     counts.size(), nodes);
  }
  if (const std::int64_t sum = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
      sum != world_size) {
    throw UsageError("{}: is \"{}\", which makes {} tasks; the step has {}", name, variables.text(name), sum,
                     world_size);
  }
  return counts;
}

/// A port above the registered ports that services use most and below the ephemeral ones (32768 on Linux); it
/// differs between two steps on one node and between two jobs that share one.
int port_of(std::int64_t job, std::int64_t step) {
  return static_cast<int>(20000 + (job + 997 * step) % 12000);
}

/// First node of the list, where srun places task 0 by default.
std::string first_node(const EnvVars& variables, int nodes, int rank, int node) {
  const std::string name =
      first_set(variables, {"SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"});
  if (!variables.has(name)) {
    throw UsageError("{}: is not set, though the step has {} nodes; set MASTER_ADDR to the node of rank 0",
                     name, nodes);
  }
  const std::vector<std::string> names = expand_node_list(name, variables.text(name));
  if (names.size() < static_cast<std::size_t>(nodes)) {
    throw UsageError("{}: is \"{}\", which names {} nodes; the step has {}", name, variables.text(name),
                     names.size(), nodes);
  }
  if (rank == 0 && node != 0) {
    throw UsageError("SLURM_NODEID: rank 0 is on node {}, not the first one; set MASTER_ADDR to its name",
                     node);
  }
  return names[0];
}

}  // namespace

std::vector<std::string> expand_node_list(const std::string& variable, const std::string& list) {
  ListReader reader(variable, list);
  std::vector<std::string> names;
  do {
    const std::vector<std::string> more = read_name(reader);
    names.insert(names.end(), more.begin(), more.end());
    if (names.size() > static_cast<std::size_t>(kMaxRanks)) reader.fail("more nodes than 65536");
  } while (reader.skip(','));
  if (!reader.at_end()) reader.fail("expected ','");
  return names;
}

std::vector<int> expand_task_counts(const std::string& variable, const std::string& list) {
  ListReader reader(variable, list);
  std::vector<int> counts;
  do {
    const int count = reader.number();
    int times = 1;
    if (reader.skip('(')) {
      reader.expect('x');
      times = reader.number();
      reader.expect(')');
    }
    if (count < 1 || count > kMaxRanks || times < 1) reader.fail("expected from 1 to 65536 tasks on a node");
    if (times > kMaxRanks - static_cast<int>(counts.size())) reader.fail("more nodes than 65536");
    counts.insert(counts.end(), static_cast<std::size_t>(times), count);
  } while (reader.skip(','));
  if (!reader.at_end()) reader.fail("expected ','");
  return counts;
}

RankEnvironment slurm_environment(const EnvVars& variables) {
  RankEnvironment e;
  e.world_size = tasks_of_step(variables);
  if (e.world_size == 1) return e;
  e.rank = required(variables, "SLURM_PROCID", 0, e.world_size - 1);
  e.nodes =
      required(variables, first_set(variables, {"SLURM_STEP_NUM_NODES", "SLURM_NNODES"}), 1, e.world_size);
  e.node = required(variables, "SLURM_NODEID", 0, e.nodes - 1);
  e.local_world_size = tasks_per_node(variables, e.nodes, e.world_size)[static_cast<std::size_t>(e.node)];
  e.local_rank = required(variables, "SLURM_LOCALID", 0, e.local_world_size - 1);
  constexpr std::int64_t kLastId = 0xffffffff;
  const auto job = variables.number("SLURM_JOB_ID", 0, kLastId);
  if (!job) throw UsageError("SLURM_JOB_ID: is not set, though this is a task of a Slurm step; srun sets it");
  const std::int64_t step = variables.number("SLURM_STEP_ID", 0, kLastId).value_or(0);
  e.job = fmt::format("{}.{}", *job, step);
  e.master_addr = variables.text("MASTER_ADDR");
  if (e.master_addr.empty() && e.nodes > 1) e.master_addr = first_node(variables, e.nodes, e.rank, e.node);
  e.master_port = static_cast<int>(variables.number("MASTER_PORT", 1, 65535).value_or(port_of(*job, step)));
  // Counts how often Slurm requeued the job.
  e.restart_count = static_cast<int>(variables.number("SLURM_RESTART_COUNT", 0, 1 << 20).value_or(0));
  return e;
}

}  // namespace voca::engine
