#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>

#include "tools/commands.h"

namespace {

// For functions that run before the C library and sanitizers are ready: they make only system calls.
#define VOCA_BEFORE_EVERYTHING __attribute__((no_sanitize("address", "undefined", "thread")))

/// Whether the null-terminated `variables` set the variable that `setting` (NAME=value) sets.
VOCA_BEFORE_EVERYTHING bool sets(char* const* variables, const char* setting) {
  for (; *variables != nullptr; ++variables) {
    std::size_t i = 0;
    while (setting[i] != '=' && (*variables)[i] == setting[i]) ++i;
    if (setting[i] == '=' && (*variables)[i] == '=') return true;
  }
  return false;
}

/// Sets environment variables that libraries read when they are loaded, by re-executing the program. If that
/// fails, the program continues without them.
///
/// libgomp's threads spin for some milliseconds at each barrier before they sleep. On a machine shared with
/// other jobs, spinning takes the core from the thread that the others wait for: steps of a small model
/// became up to 25 times slower. 10000 spins cost nothing on an idle machine.
///
/// Must run before libgomp is initialised.
VOCA_BEFORE_EVERYTHING void tell_libraries(int, char** argv, char** variables) {
  static char spin_count[] = "GOMP_SPINCOUNT=10000";
  std::size_t count = 0;
  while (variables[count] != nullptr) ++count;
  auto** const told = static_cast<char**>(__builtin_alloca((count + 2) * sizeof(char*)));
  std::size_t in_all = 0;
  for (; in_all < count; ++in_all) told[in_all] = variables[in_all];
  if (!sets(variables, "OMP_WAIT_POLICY=") && !sets(variables, spin_count)) told[in_all++] = spin_count;
  told[in_all] = nullptr;
  if (in_all > count) ::syscall(SYS_execve, "/proc/self/exe", argv, told);
}

[[gnu::section(".preinit_array"), gnu::used]] void (*const kBeforeLibraries)(int, char**,
                                                                             char**) = tell_libraries;

/// Sets the name of the process. /proc/self/exe, which is executed above and by `launch`, would make it "exe"
/// in ps, top, pgrep and the kernel's log. That path is still the right one: it is this very program even if
/// another has been installed in its place.
void take_its_name() {
  ::prctl(PR_SET_NAME, "voca-engine");
}

/// Opens stdin, stdout and stderr if they are closed: the next files opened would otherwise get their
/// numbers, and progress would be written into them. They are opened in the wrong direction, so that using a
/// closed one is still an error and a result that nobody receives does not count as success.
void open_standard_descriptors() {
  for (int descriptor = 0; descriptor <= 2; ++descriptor) {
    // open() returns the lowest free number: the closed one.
    if (::fcntl(descriptor, F_GETFD) == -1)
      static_cast<void>(::open("/dev/null", descriptor == 0 ? O_WRONLY : O_RDONLY));
  }
}

}  // namespace

int main(int argc, char** argv) {
  open_standard_descriptors();
  take_its_name();
  const char* const* words = argv;
  return voca::tools::run_program({words + 1, words + (argc > 0 ? argc : 1)});
}
