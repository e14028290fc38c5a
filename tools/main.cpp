#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>

#include "tools/commands.h"

namespace {

/// Whether `variables`, ended by null, sets the variable that `setting` (NAME=value) sets.
[[gnu::no_sanitize("address", "undefined", "thread")]] bool sets(char* const* variables, const char* setting,
                                                                 std::size_t name_length) {
  for (; *variables != nullptr; ++variables) {
    std::size_t i = 0;
    while (i < name_length && (*variables)[i] == setting[i]) ++i;
    if (i == name_length) return true;
  }
  return false;
}

/// What libraries read of the environment when they are loaded, so the program starts itself again; where
/// that fails it goes on as it is.
///
/// libgomp's threads spin some milliseconds at each barrier before they sleep. On a machine that other jobs
/// share, spinning takes the core from the thread that is waited for: steps of a small model became up to 25
/// times slower. 10000 turns of spinning cost nothing on an idle machine.
///
/// OpenBLAS starts a thread a core, each with a buffer of 128 MiB of addresses. Under a `ulimit -u` that has
/// no room for them it ends the process, and under such a `ulimit -v` it waits for them without end, even at
/// exit. We use none of these threads.
///
/// Called before any library is initialised: OpenBLAS starts its threads then. Neither the C library nor a
/// sanitizer is ready, so nothing is called but the system.
[[gnu::no_sanitize("address", "undefined", "thread")]] void tell_libraries(int, char** argv,
                                                                           char** variables) {
  static char spin_count[] = "GOMP_SPINCOUNT=10000";
  static char blas_threads[] = "OPENBLAS_NUM_THREADS=1";
  constexpr std::size_t kMostVariables = 4096;
  static char* told[kMostVariables];
  std::size_t count = 0;
  while (variables[count] != nullptr) ++count;
  if (count + 3 > kMostVariables) return;
  for (std::size_t i = 0; i < count; ++i) told[i] = variables[i];
  const std::size_t before = count;
  if (!sets(variables, "OMP_WAIT_POLICY=", 16) && !sets(variables, spin_count, 15))
    told[count++] = spin_count;
  if (!sets(variables, blas_threads, 21)) told[count++] = blas_threads;
  if (count > before) ::syscall(SYS_execve, "/proc/self/exe", argv, told);
}

[[gnu::section(".preinit_array"), gnu::used]] void (*const before_libraries)(int, char**,
                                                                             char**) = tell_libraries;

/// A process is called by the file it was started from: /proc/self/exe, above and by `launch`, would
/// make it "exe" in ps, top, pgrep and the kernel's log. That path is right all the same: it is this very
/// program even when another has been installed in its place.
void take_its_name() {
  ::prctl(PR_SET_NAME, "voca-engine");
}

/// A program started with stdin, stdout or stderr closed would get these numbers for the next files it opens,
/// and write its progress into them. They are opened the wrong way round: what is read from or written to a
/// closed one is still an error, and a result that nobody gets is not taken for done.
void open_standard_descriptors() {
  for (int descriptor = 0; descriptor <= 2; ++descriptor) {
    // The lowest number that is free is taken: the closed one.
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
