#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>

#include "tools/commands.h"

namespace {

// Of what runs before the C library and a sanitizer are ready: it calls nothing but the system.
#define VOCA_BEFORE_EVERYTHING [[gnu::no_sanitize("address", "undefined", "thread")]]

/// Whether `variables`, ended by null, sets the variable that `setting` (NAME=value) sets.
VOCA_BEFORE_EVERYTHING bool sets(char* const* variables, const char* setting) {
  for (; *variables != nullptr; ++variables) {
    std::size_t i = 0;
    while (setting[i] != '=' && (*variables)[i] == setting[i]) ++i;
    if (setting[i] == '=' && (*variables)[i] == '=') return true;
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
/// Called before any library is initialised, for that is when OpenBLAS starts its threads.
VOCA_BEFORE_EVERYTHING void tell_libraries(int, char** argv, char** variables) {
  static char spin_count[] = "GOMP_SPINCOUNT=10000";
  static char blas_threads[] = "OPENBLAS_NUM_THREADS=1";
  std::size_t count = 0;
  while (variables[count] != nullptr) ++count;
  auto** const told = static_cast<char**>(__builtin_alloca((count + 3) * sizeof(char*)));
  std::size_t in_all = 0;
  for (; in_all < count; ++in_all) told[in_all] = variables[in_all];
  if (!sets(variables, "OMP_WAIT_POLICY=") && !sets(variables, spin_count)) told[in_all++] = spin_count;
  if (!sets(variables, blas_threads)) told[in_all++] = blas_threads;
  told[in_all] = nullptr;
  if (in_all > count) ::syscall(SYS_execve, "/proc/self/exe", argv, told);
}

[[gnu::section(".preinit_array"), gnu::used]] void (*const kBeforeLibraries)(int, char**,
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
