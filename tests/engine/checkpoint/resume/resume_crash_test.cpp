// What disks and kills do to a resume state: nothing that was saved is lost, nothing damaged is believed.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <new>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "engine/base/atomic_file.h"
#include "engine/base/file_kind.h"
#include "engine/checkpoint/resume/resume_state.h"
#include "tests/engine/checkpoint/checkpoint_support.h"
#include "tests/engine/checkpoint/resume/resume_support.h"
#include "tests/engine/support/file_faults.h"

namespace voca::engine {
namespace {

using test::FileFaults;
using test::FlippedByte;
using test::message_of;
using test::names_in;
using test::number_of;
using test::save_both_forms;
using test::save_number;
using test::TemporaryFolder;
using testing::AnyOf;
using testing::Contains;
using testing::Each;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

int newest_in(const std::filesystem::path& folder) {
  const FoundResumeState found = find_resume_state(folder);
  return found.state ? number_of(*found.state) : 0;
}

/// Steps of files in one save.
int steps_of_a_save() {
  const TemporaryFolder folder;
  ResumeStore store(folder.path());
  FileFaults faults;
  (void)save_number(store, 1);
  return faults.steps();
}

class FaultWhileSaving : public testing::TestWithParam<int> {};

TEST_P(FaultWhileSaving, LeavesWhatWasSavedBefore) {
  const int steps = steps_of_a_save();
  ASSERT_GE(steps, 12);  // two files, each of six steps
  for (const int keep : {1, 2}) {
    for (int at = 0; at < steps; ++at) {
      SCOPED_TRACE(fmt::format("step {} of {}, keep {}", at, steps, keep));
      const TemporaryFolder folder;
      ResumeStore store(folder.path(), keep);
      (void)save_number(store, 1);
      {
        FileFaults faults(at, GetParam());
        const std::string message = message_of<IoError>([&] { (void)save_number(store, 2); });
        EXPECT_THAT(message, StartsWith(folder.path().string()));
        EXPECT_THAT(message, HasSubstr(std::strerror(GetParam())));
        EXPECT_EQ(faults.hit(), 1);
      }
      EXPECT_EQ(number_of(read_resume_state(folder / "state-0000000001.resume")), 1);
      EXPECT_THAT(newest_in(folder.path()), AnyOf(1, 2));
      EXPECT_THAT(names_in(folder.path()), Each(Not(StartsWith(".state"))));
      EXPECT_THAT(names_in(folder.path()), Each(Not(StartsWith(".latest"))));
      (void)save_number(store, 3);
      EXPECT_EQ(newest_in(folder.path()), 3);
      EXPECT_TRUE(find_resume_state(folder.path()).messages.empty());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Disk, FaultWhileSaving, testing::Values(ENOSPC, EIO),
                         [](const auto& instance) { return instance.param == EIO ? "EIO" : "ENOSPC"; });

TEST(ResumeStore, ADiskThatKeepsAnotherByteIsFoundOutBeforeTheRename) {
  const TemporaryFolder folder;
  ResumeStore store(folder.path());
  const auto size = static_cast<std::int64_t>(std::filesystem::file_size(save_number(store, 1)));
  for (std::int64_t at = 0; at < size; at += 7) {
    std::optional<FlippedByte> flipped;
    set_file_fault([&](FileStep step, const std::filesystem::path& path) {
      if (step != FileStep::kClose || flipped) return 0;
      for (const auto& name : names_in(folder.path()))
        if (name.starts_with("." + path.filename().string())) flipped.emplace(folder / name, at, 0x10);
      return 0;
    });
    const std::string message = message_of<IoError>([&] { (void)save_number(store, 2); });
    set_file_fault({});
    ASSERT_TRUE(flipped);
    flipped->forget();
    EXPECT_THAT(message, HasSubstr("state-0000000002.resume")) << at;
    EXPECT_THAT(message, HasSubstr("read back"));
    ASSERT_EQ(newest_in(folder.path()), 1);
  }
  EXPECT_THAT(names_in(folder.path()), Each(Not(StartsWith(".state"))));
}

TEST(ResumeState, EveryFlippedBitIsDetectedAndNamed) {
  const TemporaryFolder folder;
  for (const auto& path : save_both_forms(folder.path(), 1)) {
    const auto size = static_cast<std::int64_t>(std::filesystem::file_size(path));
    for (std::int64_t at = 0; at < size; ++at) {
      for (int bit = 0; bit < 8; ++bit) {
        const FlippedByte flipped(path, at, 1 << bit);
        const std::string message = message_of<DataError>([&] { (void)read_resume_state(path); });
        ASSERT_THAT(message, StartsWith(path.string() + ": ")) << "byte " << at << " bit " << bit;
      }
    }
    EXPECT_EQ(number_of(read_resume_state(path)), 1);
  }
}

TEST(ResumeState, EveryTruncationIsDetectedAndNamed) {
  const TemporaryFolder folder;
  for (const auto& path : save_both_forms(folder.path(), 1)) {
    const std::string whole = test::read_bytes(path);
    test::write_bytes(path, whole + '\0');
    EXPECT_THAT(
        message_of<DataError>([&] { (void)read_resume_state(path); }),
        AnyOf(HasSubstr("its tensors take 52 of 53 bytes"), HasSubstr("bytes behind its last section")));
    for (std::size_t size = whole.size(); size-- > 0;) {
      std::filesystem::resize_file(path, size);
      ASSERT_THAT(message_of<DataError>([&] { (void)read_resume_state(path); }),
                  StartsWith(path.string() + ": "))
          << size << " of " << whole.size() << " bytes";
    }
  }
}

TEST(ResumeState, ForeignFilesAreRefusedByName) {
  const TemporaryFolder folder;
  const auto path = folder / "state-0000000001.resume";
  const auto refusal = [&](const std::string& content) {
    test::write_bytes(path, content);
    std::string message = message_of<DataError>([&] { (void)read_resume_state(path); });
    EXPECT_THAT(message, HasSubstr(path.string()));
    return message;
  };
  EXPECT_THAT(refusal(""), HasSubstr("is an empty file (0 bytes), where a resume state"));
  EXPECT_THAT(refusal("VOCARES\x01 no more"), HasSubstr("too short"));
  const std::vector<float> weights{1, 2};
  write_safetensors(path, std::vector<NamedTensor>{test::row("w", weights)}, {{"config", "{}"}});
  EXPECT_THAT(refusal(test::read_bytes(path)), HasSubstr("is a safetensors file, where a resume state"));
  write_safetensors(path, std::vector<NamedTensor>{test::row(std::string(kResumeStateKey), weights)});
  EXPECT_THAT(refusal(test::read_bytes(path)), HasSubstr("not a resume state"));
  // A header without the digest that every state has.
  const std::string header = R"({"__metadata__":{"voca_resume_state":"{}"}})";
  EXPECT_THAT(refusal(std::string(1, static_cast<char>(header.size())) + std::string(7, '\0') + header),
              HasSubstr("not a resume state"));
  EXPECT_THAT(refusal(test::read_bytes(test::golden("state_dict.pt"))),
              HasSubstr("is a PyTorch file (.pt), where a resume state"));
  EXPECT_THAT(refusal("just a text that someone put here"), HasSubstr("is plain text, where a resume state"));
  EXPECT_THAT(refusal(std::string("VOCARES\x02", 8) + std::string(64, '\0')), HasSubstr("format 2"));
  EXPECT_THAT(refusal("VOCARES\x01" + std::string(56, '\xFF')), HasSubstr("header's length"));
  std::filesystem::remove(path);
  std::filesystem::create_directory(path);
  EXPECT_THAT(message_of<DataError>([&] { (void)read_resume_state(path); }), HasSubstr("not a regular file"));
}

/// Waits for a child that kills itself.
void expect_killed(pid_t child) {
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
}

TEST(ResumeStore, AKillAtAnyStepOfASaveLosesNothing) {
  const int steps = steps_of_a_save();
  const TemporaryFolder folder;
  (void)save_number(*std::make_unique<ResumeStore>(folder.path(), 1), 1);
  for (int at = 0; at < steps; ++at) {
    const int before = newest_in(folder.path());
    ASSERT_GE(before, 1);
    const pid_t child = ::fork();
    if (child == 0) {
      ResumeStore store(folder.path(), 1);
      int step = 0;
      set_file_fault([&](FileStep, const std::filesystem::path&) {
        if (step++ == at) ::kill(::getpid(), SIGKILL);
        return 0;
      });
      (void)save_number(store, before + 1);
      ::_exit(1);
    }
    expect_killed(child);
    EXPECT_THAT(newest_in(folder.path()), AnyOf(before, before + 1)) << "step " << at;
  }
  const ResumeStore store(folder.path());
  EXPECT_THAT(names_in(folder.path()), Each(Not(StartsWith(".state"))));
}

constexpr std::size_t kLarge = std::size_t{1} << 17;  // elements of its tensor

/// What the saving child tells the one that kills it.
struct Told {
  std::atomic<int> saved{0};  ///< the number last saved for good
  std::atomic<bool> saving{false};
};

void save_large(ResumeStore& store, int number) {
  const std::vector<std::int32_t> large(kLarge, number);
  (void)store.save({{"number", number}}, std::vector<NamedTensor>{test::row("large", large)});
}

/// How long a process takes, here and now, to come to its first state and save it.
std::chrono::microseconds time_to_save() {
  const TemporaryFolder folder;
  const auto begin = std::chrono::steady_clock::now();
  ResumeStore store(folder.path());
  (void)store.load();
  save_large(store, 1);
  return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - begin);
}

/// Saves one state after another until it is killed; most of the time goes into saving.
[[noreturn]] void save_until_killed(const std::filesystem::path& folder, Told& told) {
  ResumeStore store(folder);
  const FoundResumeState found = store.load();
  int number = found.state ? found.state->header.at("number").get<int>() : 0;
  for (;;) {
    ++number;
    told.saving = true;
    save_large(store, number);
    told.saved = number;
    told.saving = false;
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
}

/// The number of the newest state, all of which must be there.
int newest_large_in(const std::filesystem::path& folder) {
  const FoundResumeState found = find_resume_state(folder);
  EXPECT_THAT(found.messages, testing::IsEmpty());
  if (!found.state) return 0;
  const int number = found.state->header.at("number").get<int>();
  std::vector<std::int32_t> large(kLarge);
  found.state->copy_tensor("large", DType::kI32, std::as_writable_bytes(std::span(large)));
  EXPECT_TRUE(std::all_of(large.begin(), large.end(), [&](std::int32_t value) { return value == number; }));
  return number;
}

TEST(ResumeStore, KillsAtRandomMomentsLoseAtMostTheSaveInFlight) {
  const TemporaryFolder folder;
  void* const shared =
      ::mmap(nullptr, sizeof(Told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(shared, MAP_FAILED);
  Told& told = *new (shared) Told;
  std::mt19937 random(1);
  int killed_saving = 0;
  const auto longest = std::max<std::int64_t>(10000, 4 * time_to_save().count());  // µs; sanitizers are slow
  // As many rounds as it takes on a busy machine for at least a third of a good number to end within a save.
  for (int round = 0; round < 150 || killed_saving < 50 || told.saved < 50; ++round) {
    ASSERT_LT(round, 5000);
    const pid_t child = ::fork();
    if (child == 0) save_until_killed(folder.path(), told);
    std::this_thread::sleep_for(std::chrono::microseconds(static_cast<std::int64_t>(random()) % longest));
    ::kill(child, SIGKILL);
    expect_killed(child);
    killed_saving += told.saving.exchange(false) ? 1 : 0;
    const int newest = newest_large_in(folder.path());
    ASSERT_GE(newest, told.saved) << "round " << round;
    ASSERT_LE(newest, told.saved + 1) << "round " << round;
    told.saved = newest;
  }
  ::munmap(shared, sizeof(Told));
}

}  // namespace
}  // namespace voca::engine
