#include <fcntl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdlib>

#include "tools/commands.h"

namespace {

/// What libraries read of the environment when they are loaded, so the program starts itself again; where
/// that fails it goes on as it is.
///
/// libgomp's threads spin some milliseconds at each barrier before they sleep. On a machine that other jobs
/// share, spinning takes the core from the thread that is waited for: steps of a small model became up to 25
/// times slower. 10000 turns of spinning cost nothing on an idle machine.
///
/// OpenBLAS starts a thread a core, each with a buffer of 128 MiB of addresses, which it waits for without
/// end under a `ulimit -v` that has no room, even at exit. We use none of these threads.
void tell_libraries(char** argv) {
  bool told = false;
  const auto set = [&](const char* name, const char* value) {
    if (std::getenv(name) == nullptr) told |= ::setenv(name, value, 0) == 0;
  };
  if (std::getenv("OMP_WAIT_POLICY") == nullptr) set("GOMP_SPINCOUNT", "10000");
  set("OPENBLAS_NUM_THREADS", "1");
  if (told) ::execv("/proc/self/exe", argv);
}

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
  tell_libraries(argv);
  take_its_name();
  const char* const* words = argv;
  return voca::tools::run_program({words + 1, words + (argc > 0 ? argc : 1)});
}
