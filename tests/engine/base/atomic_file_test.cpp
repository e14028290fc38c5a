#include "engine/base/atomic_file.h"

#include <gmock/gmock.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <vector>

#include "tests/engine/support/file_faults.h"
#include "tests/engine/support/files.h"

namespace voca::engine {
namespace {

using test::message_of;
using test::read_bytes;
using test::TemporaryFolder;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;
using testing::UnorderedElementsAre;

std::vector<std::string> names_in(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    names.push_back(entry.path().filename().string());
  return names;
}

struct Fault {
  FileStep step;
  const char* name;
};
constexpr std::array<Fault, 6> kSteps{{{FileStep::kCreate, "Create"},
                                       {FileStep::kWrite, "Write"},
                                       {FileStep::kSync, "Sync"},
                                       {FileStep::kClose, "Close"},
                                       {FileStep::kRename, "Rename"},
                                       {FileStep::kSyncFolder, "SyncFolder"}}};

class AtomicFileFault : public testing::TestWithParam<std::tuple<Fault, int>> {
 protected:
  void TearDown() override { set_file_fault({}); }
};

TEST_P(AtomicFileFault, KeepsWhatStoodThereAndNamesIt) {
  const auto [fault, error_number] = GetParam();
  const TemporaryFolder folder(std::filesystem::temp_directory_path());
  const auto path = folder / "config.json";
  write_file_atomically(path, "old");
  set_file_fault(
      [&, step = fault.step, error = error_number](FileStep asked, const std::filesystem::path& of) {
        EXPECT_EQ(of, path);
        return asked == step ? error : 0;
      });
  const std::string message = message_of<IoError>([&] { write_file_atomically(path, "new"); });
  // When the folder cannot be synced the file is in its place already, and the folder is what failed.
  const bool renamed = fault.step == FileStep::kSyncFolder;
  EXPECT_THAT(message, AllOf(StartsWith((renamed ? folder.path() : path).string() + ":"),
                             HasSubstr(std::strerror(error_number))));
  EXPECT_EQ(read_bytes(path), renamed ? "new" : "old");
  EXPECT_THAT(names_in(folder.path()), ElementsAre("config.json"));
  set_file_fault({});
  write_file_atomically(path, "newer");
  EXPECT_EQ(read_bytes(path), "newer");
}

TEST_P(AtomicFileFault, LeavesNoHalfFileWhereNothingStood) {
  const auto [fault, error_number] = GetParam();
  const TemporaryFolder folder;
  set_file_fault([error = error_number, step = fault.step](FileStep asked, const std::filesystem::path&) {
    return asked == step ? error : 0;
  });
  EXPECT_THROW(write_file_atomically(folder / "config.json", "new"), IoError);
  const std::vector<std::string> renamed{"config.json"};
  EXPECT_EQ(names_in(folder.path()),
            fault.step == FileStep::kSyncFolder ? renamed : std::vector<std::string>());
}

INSTANTIATE_TEST_SUITE_P(EveryStep, AtomicFileFault,
                         testing::Combine(testing::ValuesIn(kSteps), testing::Values(ENOSPC, EIO)),
                         [](const auto& instance) {
                           return std::string(std::get<0>(instance.param).name) +
                                  (std::get<1>(instance.param) == EIO ? "EIO" : "ENOSPC");
                         });

TEST(AtomicFile, AppearsWholeAndOnlyWhenCommitted) {
  const TemporaryFolder folder;
  const auto path = folder / "a";
  write_file_atomically(path, "old");
  AtomicFile file(path);
  file.write(std::string("ne"));
  file.write(std::as_bytes(std::span("w", 1)));
  EXPECT_EQ(read_bytes(path), "old");
  file.commit();
  EXPECT_EQ(read_bytes(path), "new");
  EXPECT_THAT(names_in(folder.path()), ElementsAre("a"));
  EXPECT_EQ(std::filesystem::status(path).permissions(), std::filesystem::perms(0644));
}

TEST(AtomicFile, DroppedBeforeItIsCommittedItWasNeverThere) {
  const TemporaryFolder folder;
  {
    AtomicFile file(folder / "a");
    file.write(std::string("half"));
    EXPECT_EQ(read_bytes(file.temporary_path()), "half");
    EXPECT_EQ(file.temporary_path().parent_path(), folder.path());
  }
  EXPECT_THAT(names_in(folder.path()), ElementsAre());
}

TEST(AtomicFile, IsNotRenamedWhenItsVerificationThrows) {
  const TemporaryFolder folder;
  const auto path = folder / "a";
  write_file_atomically(path, "old");
  {
    AtomicFile file(path);
    file.write(std::string("new"));
    EXPECT_THROW(file.commit([](const std::filesystem::path& temporary) {
      EXPECT_EQ(read_bytes(temporary), "new");
      throw IoError("{}: wrong", temporary.string());
    }),
                 IoError);
  }
  EXPECT_EQ(read_bytes(path), "old");
  EXPECT_THAT(names_in(folder.path()), ElementsAre("a"));
}

TEST(AtomicFile, InterruptedWritesAreTakenUpAgain) {
  const TemporaryFolder folder;
  int interruptions = 3;
  set_file_fault([&](FileStep step, const std::filesystem::path&) {
    return step == FileStep::kWrite && interruptions-- > 0 ? EINTR : 0;
  });
  write_file_atomically(folder / "a", "text");
  set_file_fault({});
  EXPECT_LT(interruptions, 0);
  EXPECT_EQ(read_bytes(folder / "a"), "text");
}

/// In a child whose files may not grow beyond `limit` bytes: what writing `size` bytes throws; exits 0 when
/// it is an IoError of the path saying why.
int write_under_a_limit(const std::filesystem::path& path, std::size_t limit, std::size_t size) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit of_files{limit, limit};
    ::setrlimit(RLIMIT_FSIZE, &of_files);
    try {
      write_file_atomically(path, std::string(size, 'x'));
    } catch (const IoError& error) {
      const std::string message = error.what();
      ::_exit(message.starts_with(path.string()) && message.ends_with(std::strerror(EFBIG)) ? 0 : 2);
    }
    ::_exit(3);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// The system takes what there is room for first: a short write, and fails at the next.
TEST(AtomicFile, AShortWriteThatCannotBeFinishedIsAnError) {
  const TemporaryFolder folder;
  const auto path = folder / "a";
  write_file_atomically(path, "old");
  EXPECT_EQ(write_under_a_limit(path, 1000, 5000), 0);
  EXPECT_EQ(read_bytes(path), "old");
  EXPECT_THAT(names_in(folder.path()), ElementsAre("a"));
}

TEST(AtomicFile, NamesAFolderThatIsNotThere) {
  const TemporaryFolder folder;
  EXPECT_THAT(message_of<IoError>([&] { AtomicFile file(folder / "not" / "there"); }),
              AllOf(HasSubstr((folder / "not" / "there").string()), HasSubstr(std::strerror(ENOENT))));
}

TEST(AtomicFile, WritesBesideAPathWithoutAFolder) {
  const TemporaryFolder folder;
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path());
  write_file_atomically("a", "here");
  std::filesystem::current_path(before);
  EXPECT_EQ(read_bytes(folder / "a"), "here");
}

TEST(StaleTemporaries, AreRemovedAndNothingElseIs) {
  const TemporaryFolder folder;
  for (const char* name : {".a.Ab12zZ", ".a.000000"}) test::write_bytes(folder / name, "half");
  const std::vector<std::string> strangers{"a",         ".a",        ".a.toolong", ".a.short",
                                           ".b.Ab12zZ", ".a.b.1234", "a.Ab12zZ"};
  for (const auto& name : strangers) test::write_bytes(folder / name, "mine");
  remove_stale_temporaries(folder / "a");
  EXPECT_THAT(names_in(folder.path()), testing::UnorderedElementsAreArray(strangers));
}

TEST(StaleTemporaries, StayWhileTheirWriterLives) {
  const TemporaryFolder folder;
  test::write_bytes(folder / ".a.Ab12zZ", "half");
  AtomicFile file(folder / "a");
  file.write(std::string("new"));
  remove_stale_temporaries(folder / "a");
  EXPECT_FALSE(std::filesystem::exists(folder / ".a.Ab12zZ"));
  EXPECT_EQ(read_bytes(file.temporary_path()), "new");
  file.commit([&](const std::filesystem::path& temporary) {
    remove_stale_temporaries(folder / "a");  // closed by now, and not yet in its place
    EXPECT_EQ(read_bytes(temporary), "new");
  });
  EXPECT_EQ(read_bytes(folder / "a"), "new");
}

TEST(StaleTemporaries, OfAKilledProcessAreSwept) {
  const TemporaryFolder folder;
  const pid_t child = ::fork();
  if (child == 0) {
    AtomicFile file(folder / "a");
    file.write(std::string("half"));
    ::raise(SIGKILL);
  }
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  EXPECT_EQ(names_in(folder.path()).size(), 1U);
  remove_stale_temporaries(folder / "a");
  EXPECT_THAT(names_in(folder.path()), ElementsAre());
}

TEST(AtomicFile, ReplacesTheTargetOfALinkAndMakesThatOfADanglingOne) {
  const TemporaryFolder folder;
  std::filesystem::create_directories(folder / "there");
  test::write_bytes(folder / "there/a", "old");
  std::filesystem::create_symlink("there/a", folder / "link");
  std::filesystem::create_symlink(folder / "link", folder / "twice");
  std::filesystem::create_symlink("there/new", folder / "dangling");
  write_file_atomically(folder / "twice", "new");
  write_file_atomically(folder / "dangling", "first");
  EXPECT_TRUE(std::filesystem::is_symlink(folder / "link"));
  EXPECT_TRUE(std::filesystem::is_symlink(folder / "twice"));
  EXPECT_TRUE(std::filesystem::is_symlink(folder / "dangling"));
  EXPECT_EQ(read_bytes(folder / "there/a"), "new");
  EXPECT_EQ(read_bytes(folder / "there/new"), "first");
  std::filesystem::create_symlink("loop", folder / "loop");
  EXPECT_THAT(message_of<IoError>([&] { write_file_atomically(folder / "loop", "x"); }),
              HasSubstr("loop of links"));
}

TEST(StaleTemporaries, OfAFolderThatIsNotThereAreAnError) {
  const TemporaryFolder folder;
  EXPECT_THAT(message_of<IoError>([&] { remove_stale_temporaries(folder / "not" / "there"); }),
              HasSubstr((folder / "not").string()));
}

TEST(ReadTextFile, ReadsTheWholeAndRefusesWhatIsTooLarge) {
  const TemporaryFolder folder;
  const std::string text(100000, 'x');
  write_file_atomically(folder / "a", text);
  EXPECT_EQ(read_text_file(folder / "a", text.size()), text);
  EXPECT_THAT(message_of<DataError>([&] { (void)read_text_file(folder / "a", text.size() - 1); }),
              HasSubstr((folder / "a").string()));
  EXPECT_THAT(message_of<IoError>([&] { (void)read_text_file(folder / "b", 10); }),
              AllOf(HasSubstr((folder / "b").string()), HasSubstr(std::strerror(ENOENT))));
  EXPECT_THAT(message_of<IoError>([&] { (void)read_text_file(folder.path(), 10); }),
              HasSubstr(std::strerror(EISDIR)));
}

TEST(AtomicFile, LeavesPermissionsToTheUmask) {
  const TemporaryFolder folder;
  for (const mode_t mask : {mode_t{022}, mode_t{027}, mode_t{077}, mode_t{002}}) {
    const std::filesystem::path path = folder.path() / std::to_string(mask);
    const mode_t before = ::umask(mask);
    write_file_atomically(path, "text");
    ::umask(before);
    struct stat status {};
    ASSERT_EQ(::stat(path.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0666 & ~mask) << mask;
  }
}

}  // namespace
}  // namespace voca::engine
