#include "data/packed/trial_run.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <new>
#include <utility>

#include "engine/base/error.h"
#include "engine/base/path_status.h"
#include "engine/base/system_limits.h"
#include "engine/base/terminal.h"
#include "engine/base/unique_fd.h"

namespace voca::data {
namespace {

/// CPU time limit of the child: opening reads an index of a few megabytes in a fraction of a second.
constexpr rlim_t kSeconds = 2;
constexpr std::uint64_t kBytesPerSecond = std::uint64_t{16} << 20;

/// Tags of the child's messages: each is a tag, a text and a NUL.
constexpr char kObject = '@';
constexpr char kTexts = 'T';  // an object, whose strings follow, each in a kText
constexpr char kText = 't';
constexpr char kDone = '=';
constexpr char kOutOfMemory = 'm';
constexpr char kBadData = 'd';
constexpr char kFailure = 'f';

void append(std::string& messages, char tag, std::string_view text) {
  messages.push_back(tag);
  messages.append(text);
  messages.push_back('\0');
}

void send(int pipe, char tag, std::string_view text) {
  std::string message;
  append(message, tag, text);
  engine::write_at_once(pipe, message);
}

/// Default signal handlers, no core file, no output on stderr, limited CPU time, killed with the parent.
void confine(std::uint64_t file_bytes) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::prctl(PR_SET_DUMPABLE, 0);
  for (const int number : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT})
    static_cast<void>(::signal(number, SIG_DFL));
  if (const int nowhere = ::open("/dev/null", O_WRONLY | O_CLOEXEC); nowhere >= 0)
    static_cast<void>(::dup2(nowhere, STDERR_FILENO));
  const rlim_t seconds = kSeconds + file_bytes / kBytesPerSecond;
  const rlimit limit{seconds, seconds};
  ::setrlimit(RLIMIT_CPU, &limit);
}

[[noreturn]] void run_child(int pipe, std::uint64_t file_bytes,
                            const std::function<void(const TrialReport&)>& work) {
  confine(file_bytes);
  try {
    work({.begin = [&](std::string_view object) { send(pipe, kObject, object); },
          .found =
              [&](const std::string& object, const std::vector<std::string>& texts) {
                std::string messages;
                append(messages, kTexts, object);
                for (const std::string& text : texts) append(messages, kText, text);
                engine::write_at_once(pipe, messages);
              }});
    send(pipe, kDone, "");
  } catch (const std::bad_alloc&) {
    send(pipe, kOutOfMemory, "");
  } catch (const engine::IoError& error) {
    send(pipe, kFailure, error.what());
  } catch (const std::exception& error) {
    send(pipe, kBadData, error.what());
  }
  ::_exit(0);
}

struct AllSignalsBlocked {
  AllSignalsBlocked() {
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
  }
  ~AllSignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &before, nullptr); }
  AllSignalsBlocked(const AllSignalsBlocked&) = delete;
  AllSignalsBlocked& operator=(const AllSignalsBlocked&) = delete;

  sigset_t before{};
};

/// Reads everything from the pipe until the other end is closed.
std::string receive(int pipe) {
  std::string text;
  std::array<char, 4096> buffer{};
  for (;;) {
    const ssize_t count = engine::uninterrupted([&] { return ::read(pipe, buffer.data(), buffer.size()); });
    if (count <= 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(count));
  }
}

/// AddressSanitizer does not take its allocator's locks before a fork, so in the child of a multi-threaded
/// process one may stay locked.
bool child_might_wait_for_ever() {
#if defined(__SANITIZE_ADDRESS__)
  const std::filesystem::directory_iterator threads("/proc/self/task");
  return std::distance(begin(threads), end(threads)) > 1;
#else
  return false;
#endif
}

/// What the child has said, up to its last complete message.
struct Said {
  std::string object = "the file";  ///< that it read last
  TextsOfObjects found;
  char last = kObject;  ///< tag of the last message, which tells how the child ended
  std::string text;     ///< of that message
};

Said listen_to(std::string_view received) {
  Said said;
  std::vector<std::string>* texts = nullptr;
  for (std::size_t end = 0; (end = received.find('\0')) != std::string_view::npos;
       received.remove_prefix(end + 1)) {
    const std::string_view message = received.substr(0, end);
    if (message.empty()) continue;
    said.last = message.front();
    said.text = message.substr(1);
    if (said.last == kObject) said.object = said.text;
    if (said.last == kTexts) {
      texts = &said.found[said.text];
      texts->clear();
    }
    if (said.last == kText && texts != nullptr) texts->push_back(said.text);
  }
  return said;
}

}  // namespace

TextsOfObjects run_trial(const std::string& path, std::uint64_t file_bytes,
                         const std::function<void(const TrialReport&)>& work) {
  if (child_might_wait_for_ever()) {
    TextsOfObjects found;
    work({.begin = [](std::string_view) {},
          .found = [&](const std::string& object,
                       const std::vector<std::string>& texts) { found[object] = texts; }});
    return found;
  }
  const auto cannot = [&](int error_number) {
    const bool files = error_number == EMFILE || error_number == ENFILE;
    return engine::IoError("{}: cannot start the process that opens it first: {}; {}", path,
                           std::strerror(error_number),
                           files ? engine::kRaiseFileLimit : engine::kRaiseProcessLimits);
  };
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw cannot(errno);
  const engine::UniqueFd from_child(ends[0]);
  std::string received;
  {
    engine::UniqueFd to_parent(ends[1]);
    pid_t child = 0;
    {
      const AllSignalsBlocked blocked;
      child = ::fork();
      if (child == 0) run_child(to_parent.get(), file_bytes, work);
    }
    if (child < 0) throw cannot(errno);
    to_parent = engine::UniqueFd();
    received = receive(from_child.get());
    engine::uninterrupted([&] { return ::waitpid(child, nullptr, 0); });
  }
  Said said = listen_to(received);
  if (said.last == kDone) return std::move(said.found);
  if (said.last == kOutOfMemory) throw std::bad_alloc();
  if (said.last == kFailure) throw engine::IoError("{}", said.text);
  if (said.last == kBadData) throw engine::DataError("{}", said.text);
  throw engine::DataError(
      "{}: damaged: the HDF5 library crashes on {}, or does not return; copy the file again", path,
      said.object);
}

}  // namespace voca::data
