#include "engine/base/cgroup.h"

#include <cstddef>
#include <fstream>
#include <sstream>

namespace voca::engine {
namespace {

namespace fs = std::filesystem;

/// A mounted hierarchy of groups.
struct Mount {
  fs::path root;   ///< the group that is seen at the mount point
  fs::path point;  ///< where
  int version = 2;
  std::string options;  ///< of version 1: its controllers among them
};

bool lists(std::string_view names, std::string_view name) {
  while (!names.empty()) {
    const std::size_t comma = names.find(',');
    if (names.substr(0, comma) == name) return true;
    names.remove_prefix(comma == names.npos ? names.size() : comma + 1);
  }
  return false;
}

/// A space, tab, newline or backslash of a path is written in octal there: "\040".
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

/// "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:7 - cgroup cgroup rw,memory"
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

/// Where `group` is below what the mount shows; empty: at its root, or not to be seen.
fs::path below(const Mount& mount, const fs::path& group) {
  const fs::path relative = group.lexically_relative(mount.root);
  return relative.empty() || *relative.begin() == ".." || relative == "." ? fs::path() : relative;
}

void add_groups(const Mount& mount, const fs::path& group, std::vector<Cgroup>& groups) {
  for (fs::path relative = below(mount, group);; relative = relative.parent_path()) {
    std::error_code error;
    const fs::path folder = relative.empty() ? mount.point : mount.point / relative;
    if (fs::is_directory(folder, error)) {
      // A mount's root that lies above the namespace is called "/..": nothing to say to anybody.
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
  // "0::/user.slice" of version 2, "4:cpu,cpuacct:/jobs/17" of version 1; a machine may have both.
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
