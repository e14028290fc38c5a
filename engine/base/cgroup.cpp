#include "engine/base/cgroup.h"

#include <fmt/format.h>

#include <cstddef>
#include <fstream>
#include <sstream>

namespace voca::engine {
namespace {

namespace fs = std::filesystem;

/// A mounted cgroup hierarchy.
struct Mount {
  fs::path root;   ///< group visible at the mount point
  fs::path point;  ///< mount point
  int version = 2;
  std::string options;  ///< version 1: includes its controllers
};

/// Whether a list separated by commas has this name.
bool lists(std::string_view names, std::string_view name) {
  return fmt::format(",{},", names).find(fmt::format(",{},", name)) != std::string::npos;
}

/// Decodes mountinfo paths, where space, tab, newline and backslash are octal escapes: "\040".
std::string without_escapes(const std::string& text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool escaped =
        text[i] == '\\' && i + 3 < text.size() && text.find_first_not_of("01234567", i + 1) >= i + 4;
    result += escaped ? static_cast<char>(std::stoi(text.substr(i + 1, 3), nullptr, 8)) : text[i];
    if (escaped) i += 3;
  }
  return result;
}

/// Parses lines such as "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:7 - cgroup cgroup rw,memory".
std::vector<Mount> read_mounts(const fs::path& root) {
  std::ifstream file(root / "proc/self/mountinfo");
  std::vector<Mount> mounts;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string skipped;
    std::string group;
    std::string point;
    words >> skipped >> skipped >> skipped >> group >> point;
    while (words >> skipped && skipped != "-") {
    }
    std::string type;
    std::string options;
    words >> type >> skipped >> options;
    if (type != "cgroup" && type != "cgroup2") continue;
    mounts.push_back({.root = without_escapes(group),
                      .point = root / fs::path(without_escapes(point)).relative_path(),
                      .version = type == "cgroup" ? 1 : 2,
                      .options = options});
  }
  return mounts;
}

/// Path of `group` relative to the mount's root; empty if it is the root or not visible.
fs::path below(const Mount& mount, const fs::path& group) {
  const fs::path relative = group.lexically_relative(mount.root);
  return relative.empty() || *relative.begin() == ".." || relative == "." ? fs::path() : relative;
}

void add_groups(const Mount& mount, const fs::path& group, std::vector<Cgroup>& groups) {
  for (fs::path relative = below(mount, group);; relative = relative.parent_path()) {
    std::error_code error;
    const fs::path folder = relative.empty() ? mount.point : mount.point / relative;
    if (fs::is_directory(folder, error)) {
      // "/.." is a mount root above the namespace: meaningless to users.
      const fs::path seen = mount.root.string().starts_with("/..") ? fs::path("/") : mount.root;
      const fs::path name = relative.empty() ? seen : seen / relative;
      groups.push_back({.folder = folder, .name = name.string(), .version = mount.version});
    }
    if (relative.empty()) return;
  }
}

}  // namespace

std::vector<Cgroup> cgroups_of_process(std::string_view controller, const fs::path& root) {
  const std::vector<Mount> mounts = read_mounts(root);
  std::ifstream file(root / "proc/self/cgroup");
  std::vector<Cgroup> groups;
  // "0::/user.slice" (version 2), "4:cpu,cpuacct:/jobs/17" (version 1); a machine may have both.
  for (std::string line; std::getline(file, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = first == line.npos ? line.npos : line.find(':', first + 1);
    if (second == line.npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const int version = controllers.empty() ? 2 : 1;
    if (version == 1 && !lists(controllers, controller)) continue;
    for (const Mount& mount : mounts) {
      if (mount.version != version || (version == 1 && !lists(mount.options, controller))) continue;
      add_groups(mount, line.substr(second + 1), groups);
      break;  // the same hierarchy may be mounted in several places
    }
  }
  return groups;
}

}  // namespace voca::engine
