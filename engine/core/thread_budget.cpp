#include "engine/core/thread_budget.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <string_view>

#include "engine/base/cgroup.h"
#include "engine/core/device.h"

namespace voca::engine {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxThreads = 1024;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

/// First number of "4" or, with nested levels, "4,2"; nullopt for text that OpenMP ignores.
std::optional<int> omp_number(std::string_view text) {
  while (text.starts_with(' ')) text.remove_prefix(1);
  int number = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view after(rest, static_cast<std::size_t>(text.data() + text.size() - rest));
  const bool whole = after.find_first_not_of(' ') == after.npos || after.starts_with(',');
  if (error != std::errc{} || !whole || number < 1) return std::nullopt;
  return std::min(number, kMaxThreads);
}

std::optional<double> quotient(double quota, double period) {
  if (!(quota > 0) || !(period > 0)) return std::nullopt;
  return quota / period;
}

/// Version 2: "max 100000" or "150000 100000", in µs.
std::optional<double> quota_of_v2(const fs::path& folder) {
  std::ifstream file(folder / "cpu.max");
  std::string quota;
  double period = 100000;
  if (!(file >> quota) || quota == "max") return std::nullopt;
  file >> period;
  return quotient(std::strtod(quota.c_str(), nullptr), period);
}

/// Version 1: two files; a quota of −1 is unlimited.
std::optional<double> quota_of_v1(const fs::path& folder) {
  double quota = -1;
  double period = -1;
  std::ifstream(folder / "cpu.cfs_quota_us") >> quota;
  std::ifstream(folder / "cpu.cfs_period_us") >> period;
  return quotient(quota, period);
}

std::string counted(int number, const char* what) {
  return fmt::format("{} {}{}", number, what, number == 1 ? "" : "s");
}

/// Divides the CPUs among ranks. A quota covers all ranks, and so do the cores, unless the launcher gave each
/// rank its own.
ThreadBudget share_of_cpus(int ranks, const ThreadLimits& limits) {
  const bool have_own_cores = limits.affinity < limits.online;
  const bool divided = ranks > 1 && !have_own_cores;
  const int by_cores = divided ? std::max(1, limits.affinity / ranks) : limits.affinity;
  const std::string among = ranks > 1 ? fmt::format(", shared by {} ranks", ranks) : "";
  if (limits.cpu_quota) {
    const double share = *limits.cpu_quota / ranks;
    // A single rank rounds a fractional CPU up: throttled at times, but never idle with quota left.
    const double whole = ranks == 1 ? std::ceil(share) : std::floor(share);
    if (whole < by_cores) {
      return {std::max(1, static_cast<int>(whole)),
              fmt::format("the cgroup's quota is {:.4g} CPU{}", *limits.cpu_quota,
                          *limits.cpu_quota == 1 ? "" : "s") +
                  among};
    }
  }
  if (have_own_cores) return {by_cores, counted(limits.affinity, "core") + " of its affinity"};
  return {by_cores, counted(limits.online, "core") + " online" + among};
}

}  // namespace

std::optional<double> cgroup_cpu_quota(const fs::path& root) {
  std::optional<double> least;
  for (const Cgroup& group : cgroups_of_process("cpu", root)) {
    const std::optional<double> quota =
        group.version == 2 ? quota_of_v2(group.folder) : quota_of_v1(group.folder);
    if (quota) least = std::min(least.value_or(*quota), *quota);
  }
  return least;
}

ThreadLimits ThreadLimits::of_process() {
  ThreadLimits limits;
  limits.online = std::max(1, static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN)));
  limits.affinity = std::max(1, static_cast<int>(usable_cores().size()));
  limits.cpu_quota = cgroup_cpu_quota();
  limits.omp_num_threads = environment("OMP_NUM_THREADS");
  limits.omp_thread_limit = environment("OMP_THREAD_LIMIT");
  return limits;
}

int ThreadLimits::usable_cpus() const {
  if (!cpu_quota || *cpu_quota >= affinity) return affinity;
  return std::max(1, static_cast<int>(std::ceil(*cpu_quota)));
}

ThreadBudget thread_budget(int ranks_here, const ThreadLimits& limits) {
  ThreadBudget budget;
  if (const std::optional<int> asked = omp_number(limits.omp_num_threads)) {
    budget = {*asked, fmt::format("OMP_NUM_THREADS is {}", *asked)};
  } else {
    budget = share_of_cpus(std::max(1, ranks_here), limits);
  }
  const std::optional<int> limit = omp_number(limits.omp_thread_limit);
  if (limit && *limit < budget.threads) budget = {*limit, fmt::format("OMP_THREAD_LIMIT is {}", *limit)};
  return budget;
}

ThreadBudget thread_budget(int ranks_here) {
  return thread_budget(ranks_here, ThreadLimits::of_process());
}

}  // namespace voca::engine
