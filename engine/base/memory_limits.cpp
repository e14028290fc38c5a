#include "engine/base/memory_limits.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <fstream>
#include <map>
#include <optional>
#include <sstream>
#include <string_view>

#include "engine/base/cgroup.h"
#include "engine/base/text.h"

namespace voca::engine {
namespace {

namespace fs = std::filesystem;

/// cgroup version 1 writes "no limit" as the largest multiple of a page.
constexpr std::uint64_t kNoLimit = std::uint64_t{1} << 62;

/// The only number in a file.
std::optional<std::uint64_t> number_of(const fs::path& path) {
  std::string text;
  if (!(std::ifstream(path) >> text)) return std::nullopt;
  return number_in<std::uint64_t>(text);  // nullopt for "max"
}

/// Numbers by name; lines are "name: 12 kB" or "name 12".
std::map<std::string, std::uint64_t> numbers_in(const fs::path& path) {
  std::ifstream file(path);
  std::map<std::string, std::uint64_t> numbers;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string name;
    std::string value;
    std::string unit;
    words >> name >> value >> unit;
    if (name.ends_with(':')) name.pop_back();
    if (const std::optional<std::uint64_t> parsed = number_in<std::uint64_t>(value))
      numbers[name] = unit == "kB" ? *parsed * 1024 : *parsed;
  }
  return numbers;
}

std::uint64_t sum(const std::map<std::string, std::uint64_t>& numbers,
                  std::initializer_list<const char*> names) {
  std::uint64_t result = 0;
  for (const char* name : names)
    if (const auto found = numbers.find(name); found != numbers.end()) result += found->second;
  return result;
}

/// Minimum of what several limits leave.
class Least {
 public:
  void consider(std::uint64_t limit, std::uint64_t used, const std::string& what) {
    const std::uint64_t left = limit - std::min(limit, used);
    if (least_ && left >= least_->bytes) return;
    least_ = FreeMemory{.bytes = static_cast<std::size_t>(left), .limit = what};
  }
  [[nodiscard]] FreeMemory result() const { return least_.value_or(FreeMemory{}); }

 private:
  std::optional<FreeMemory> least_;
};

void consider_machine(const fs::path& root, Least& least) {
  const std::map<std::string, std::uint64_t> memory = numbers_in(root / "proc/meminfo");
  if (memory.contains("MemAvailable")) {
    least.consider(memory.at("MemAvailable"), 0, "MemAvailable");
  } else if (memory.contains("MemFree")) {  // kernels before 3.14
    least.consider(sum(memory, {"MemFree", "Buffers", "Cached"}), sum(memory, {"Shmem"}), "MemAvailable");
  }
}

/// A machine that does not overcommit limits address space, as a process's limits do.
void consider_commitment(const fs::path& root, Least& least) {
  if (number_of(root / "proc/sys/vm/overcommit_memory") != 2) return;
  const std::map<std::string, std::uint64_t> memory = numbers_in(root / "proc/meminfo");
  if (!memory.contains("CommitLimit")) return;
  const std::uint64_t limit = memory.at("CommitLimit");
  least.consider(limit, sum(memory, {"Committed_AS"}),
                 fmt::format("commit limit {}, vm.overcommit_memory 2", memory_text(limit)));
}

/// The page cache counts as used by a group but is reclaimable.
void consider_cgroup(const Cgroup& group, Least& least) {
  const std::map<std::string, std::uint64_t> statistics = numbers_in(group.folder / "memory.stat");
  const bool second = group.version == 2;
  const std::uint64_t cached = second ? sum(statistics, {"inactive_file", "active_file", "slab_reclaimable"})
                                      : sum(statistics, {"total_inactive_file", "total_active_file"});
  const std::uint64_t used =
      number_of(group.folder / (second ? "memory.current" : "memory.usage_in_bytes")).value_or(0);
  const auto consider = [&](const char* file, const char* what) {
    const std::optional<std::uint64_t> limit = number_of(group.folder / file);
    if (!limit || *limit >= kNoLimit) return;
    least.consider(*limit, used - std::min(used, cached),
                   fmt::format("cgroup {} {} of {}", what, memory_text(*limit), group.name));
  };
  if (!second) return consider("memory.limit_in_bytes", "limit");
  consider("memory.max", "limit");
  consider("memory.high", "memory.high");  // above it the kernel throttles the group and reclaims memory
}

/// Parses "Max address space    8589934592    unlimited    bytes", where the first number applies.
void consider_process(const fs::path& root, Least& least) {
  const std::map<std::string, std::uint64_t> status = numbers_in(root / "proc/self/status");
  std::ifstream file(root / "proc/self/limits");
  for (std::string line; std::getline(file, line);) {
    for (const auto& [name, used, option] :
         {std::array{"Max address space", "VmSize", "-v"}, std::array{"Max data size", "VmData", "-d"}}) {
      if (!line.starts_with(name)) continue;
      std::string value;
      std::istringstream(line.substr(std::string_view(name).size())) >> value;
      if (const std::optional<std::uint64_t> limit = number_in<std::uint64_t>(value)) {
        least.consider(*limit, sum(status, {used}), fmt::format("ulimit {} {}", option, memory_text(*limit)));
      }
    }
  }
}

}  // namespace

std::string FreeMemory::text() const {
  return memory_text(bytes) + " can be taken" + (limit.empty() ? "" : fmt::format(" ({})", limit));
}

FreeMemory free_host_memory(const fs::path& root) {
  Least least;
  consider_machine(root, least);
  for (const Cgroup& group : cgroups_of_process("memory", root)) consider_cgroup(group, least);
  consider_commitment(root, least);
  consider_process(root, least);
  return least.result();
}

FreeMemory free_addresses(const fs::path& root) {
  Least least;
  consider_commitment(root, least);
  consider_process(root, least);
  return least.result();
}

std::string memory_text(std::size_t bytes) {
  double amount = static_cast<double>(bytes) / 1048576.0;
  for (const char* unit : {"MiB", "GiB"}) {
    if (amount < 1024) return fmt::format("{:.1f} {}", amount, unit);
    amount /= 1024;
  }
  return fmt::format("{:.1f} TiB", amount);
}

}  // namespace voca::engine
