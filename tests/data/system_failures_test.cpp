#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <new>

#include "data/packed/dataset.h"
#include "data/packed/pack.h"
#include "data/tree/npz.h"
#include "data/tree/retry.h"
#include "engine/base/error.h"
#include "engine/base/unique_fd.h"
#include "tests/data/support/scratch.h"

// What the system fails in is an error of it: nothing is left out, made up or lost over it.

namespace voca::data {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using testing::message_of;
using testing::Scratch;

/// Without root's rights while this lives, where the test runs as root: files may be forbidden then.
class Unprivileged {
 public:
  Unprivileged() : root_(::geteuid() == 0) {
    constexpr uid_t kNobody = 65534;
    if (root_ && ::seteuid(kNobody) != 0) throw engine::IoError("seteuid: {}", std::strerror(errno));
  }
  ~Unprivileged() {
    if (root_ && ::seteuid(0) != 0) std::abort();
  }
  Unprivileged(const Unprivileged&) = delete;
  Unprivileged& operator=(const Unprivileged&) = delete;

 private:
  bool root_;
};

/// A limit of this process, as it was before when this goes.
class Limit {
 public:
  Limit(__rlimit_resource resource, rlim_t value) : resource_(resource) {
    ::getrlimit(resource, &before_);
    const rlimit now{value, before_.rlim_max};
    ::setrlimit(resource, &now);
  }
  ~Limit() { ::setrlimit(resource_, &before_); }
  Limit(const Limit&) = delete;
  Limit& operator=(const Limit&) = delete;

 private:
  __rlimit_resource resource_;
  rlimit before_{};
};

/// The first descriptor that is free: as a limit, not one more file can be opened.
rlim_t first_free_descriptor() {
  const int descriptor = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  ::close(descriptor);
  return static_cast<rlim_t>(descriptor);
}

/// Four videos of each class, open to everyone.
void write_tree(const Scratch& scratch) {
  for (int i = 0; i < 4; ++i) {
    testing::write_video(scratch / ("tree/real/v" + std::to_string(i)), 3, 4, i);
    testing::write_video(scratch / ("tree/fake/v" + std::to_string(i)), 4, 3, i);
  }
  fs::permissions(scratch.path(), fs::perms::all);
}

PackReport pack_into(const Scratch& scratch, const std::string& name) {
  PackOptions options;
  options.features_root = scratch / "tree";
  options.out = scratch / name;
  return pack_features(options);
}

/// Packs without root's rights; what it threw as an IoError, "" otherwise.
std::string failure_of_packing(const Scratch& scratch) {
  const Unprivileged nobody;
  try {
    pack_into(scratch, "a.h5");
  } catch (const engine::IoError& error) {
    return error.what();
  } catch (const std::exception& error) {
    ADD_FAILURE() << error.what();
  }
  return "";
}

TEST(SystemFailures, AClassThatCannotBeLookedAtIsNotOneThatIsNotThere) {
  const Scratch scratch;
  write_tree(scratch);
  fs::permissions(scratch / "tree", fs::perms::owner_read | fs::perms::group_read | fs::perms::others_read);
  EXPECT_THAT(failure_of_packing(scratch), HasSubstr("cannot be looked at: Permission denied"));
  fs::permissions(scratch / "tree", fs::perms::all);
  fs::permissions(scratch / "tree/fake", fs::perms::none);
  EXPECT_THAT(failure_of_packing(scratch), HasSubstr("tree/fake"));
  fs::permissions(scratch / "tree/fake", fs::perms::all);
  for (const char* const target : {"nowhere", "fake"}) {  // a disk that is not there; a loop
    fs::rename(scratch / "tree/fake", scratch / "kept");
    fs::create_symlink(target, scratch / "tree/fake");
    EXPECT_THAT(failure_of_packing(scratch), HasSubstr("tree/fake: is a link that leads nowhere"));
    fs::remove(scratch / "tree/fake");
    fs::rename(scratch / "kept", scratch / "tree/fake");
  }
  EXPECT_FALSE(fs::exists(scratch / "a.h5"));
  EXPECT_EQ(failure_of_packing(scratch), "");
  EXPECT_EQ(Dataset(scratch / "a.h5").size(), 8);
}

TEST(SystemFailures, AVideoThatTheSystemDoesNotReadIsNotQuarantined) {
  const Scratch scratch;
  write_tree(scratch);
  const fs::path file = scratch / "tree/fake/v2/audio_embeddings.npz";
  fs::permissions(file, fs::perms::none);
  EXPECT_THAT(failure_of_packing(scratch), HasSubstr(file.string() + ": cannot open: Permission denied"));
  fs::permissions(file, fs::perms::all);
  fs::permissions(file.parent_path(), fs::perms::none);
  EXPECT_THAT(failure_of_packing(scratch), HasSubstr(file.parent_path().string()));
  fs::permissions(file.parent_path(), fs::perms::all);
  for (const auto& entry : fs::directory_iterator(scratch.path())) EXPECT_EQ(entry.path().filename(), "tree");
  EXPECT_TRUE(pack_into(scratch, "a.h5").bad.empty());
}

TEST(SystemFailures, TooManyOpenFilesSayNothingOfAnArchive) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP()
      << "UndefinedBehaviorSanitizer takes an object for damaged where it can open no file to look at it";
#endif
  const Scratch scratch;
  write_tree(scratch);
  const Limit limit(RLIMIT_NOFILE, first_free_descriptor());
  try {
    const NpzReader reader(scratch / "tree/real/v0/audio_embeddings.npz");
    ADD_FAILURE() << "opened";
  } catch (const ReadError& error) {
    EXPECT_EQ(error.error_number(), EMFILE);
  }
}

TEST(SystemFailures, AnArchiveThatCannotBeReadKeepsTheReason) {
  const Scratch scratch;
  write_tree(scratch);
  const fs::path path = scratch / "tree/real/v0/audio_embeddings.npz";
  const int descriptor = static_cast<int>(first_free_descriptor());
  const NpzReader reader(path);
  const engine::UniqueFd unreadable(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  ASSERT_EQ(::dup2(unreadable.get(), descriptor), descriptor);
  try {
    static_cast<void>(reader.read("embeddings"));
    ADD_FAILURE() << "was read";
  } catch (const ReadError& error) {
    EXPECT_EQ(error.error_number(), EBADF);
    EXPECT_EQ(error.what(), path.string() + ": cannot read: " + std::strerror(EBADF));
  }
}

TEST(SystemFailures, WhatMayPassIsTriedAgain) {
  int tries = 0;
  const auto read = [&](int error_number, int failures) {
    return [&tries, error_number, failures] {
      if (++tries <= failures) throw ReadError(error_number, "failed");
      return 7;
    };
  };
  EXPECT_EQ(with_retries(read(EIO, 2)), 7);
  EXPECT_EQ(tries, 3);
  tries = 0;
  EXPECT_THROW(with_retries(read(EMFILE, 100)), ReadError);
  EXPECT_EQ(tries, 1 + static_cast<int>(kBackOff.size()));
  tries = 0;
  EXPECT_THROW(with_retries(read(EACCES, 100)), ReadError);
  EXPECT_EQ(tries, 1);
}

TEST(SystemFailures, AFileThatMayNotGrowFurtherIsAnErrorAndLeavesTheOldOne) {
  const Scratch scratch;
  write_tree(scratch);
  pack_into(scratch, "a.h5");
  const std::vector<std::byte> before = testing::read_bytes(scratch / "a.h5");
  ::signal(SIGXFSZ, SIG_IGN);
  constexpr std::size_t kStep = 1500;
  for (std::size_t most = 0; most < before.size(); most += kStep) {
    std::string message;
    {
      const Limit limit(RLIMIT_FSIZE, most);
      message = message_of([&] { pack_into(scratch, "a.h5"); });
    }
    EXPECT_THAT(message, HasSubstr(std::strerror(EFBIG))) << most;
    EXPECT_THAT(message, HasSubstr((scratch / "a.h5").string() + ": ")) << most;
    EXPECT_EQ(testing::read_bytes(scratch / "a.h5"), before);
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(scratch.path()))
      names.push_back(entry.path().filename().string());
    EXPECT_THAT(names, ::testing::UnorderedElementsAre("a.h5", "tree")) << most;
  }
  pack_into(scratch, "a.h5");
  EXPECT_EQ(testing::read_bytes(scratch / "a.h5"), before);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they take far more than is used

/// Bytes of address space that this process has.
std::size_t address_space() {
  std::ifstream file("/proc/self/statm");
  std::size_t pages = 0;
  file >> pages;
  return pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

/// What `work` ends with in a child that may have `room` more bytes: an exit code, or −signal.
int ends_with(std::size_t room, const std::function<void()>& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    const rlimit limit{address_space() + room, RLIM_INFINITY};
    ::setrlimit(RLIMIT_AS, &limit);
    int code = 0;
    try {
      work();
    } catch (const engine::Error& error) {
      code = static_cast<int>(error.code());
    } catch (const std::bad_alloc&) {
      code = static_cast<int>(engine::ExitCode::kIo);
    }
    ::_exit(code);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

TEST(SystemFailures, TooLittleMemoryIsAnErrorWhereverItRunsOut) {
  const Scratch scratch;
  write_tree(scratch);
  pack_into(scratch, "a.h5");
  fs::copy_file(testing::golden("chunked.h5"), scratch / "chunked.h5");
  constexpr std::size_t kStep = std::size_t{96} << 10;
  for (std::size_t room = 0; room < 110 * kStep; room += kStep) {
    using ::testing::AnyOf;
    for (const char* const name : {"a.h5", "chunked.h5"})
      EXPECT_THAT(ends_with(room, [&] { const Dataset data(scratch / name); }), AnyOf(0, 74)) << room;
    EXPECT_THAT(ends_with(room, [&] { pack_into(scratch, "a.h5"); }), AnyOf(0, 74)) << room;
  }
  EXPECT_EQ(Dataset(scratch / "a.h5").size(), 8);
}

#endif

}  // namespace
}  // namespace voca::data
