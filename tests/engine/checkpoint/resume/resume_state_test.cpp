#include "engine/checkpoint/resume/resume_state.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <csignal>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "engine/base/digest.h"
#include "tests/engine/checkpoint/checkpoint_support.h"
#include "tests/engine/checkpoint/resume/resume_support.h"
#include "tests/engine/support/mutate.h"

namespace voca::engine {
namespace {

using test::message_of;
using test::names_in;
using test::number_of;
using test::NumberedState;
using test::read_bytes;
using test::save_number;
using test::TemporaryFolder;
using test::write_bytes;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using testing::UnorderedElementsAre;

std::string state_name(int sequence) {
  return fmt::format("state-{:010}.resume", sequence);
}

TEST(ResumeState, ComesBackBitForBit) {
  const TemporaryFolder folder;
  const std::vector<float> weights{0.1F, -0.0F, std::numeric_limits<float>::denorm_min(),
                                   std::numeric_limits<float>::quiet_NaN(),
                                   -std::numeric_limits<float>::infinity()};
  const std::vector<std::int64_t> counters{std::numeric_limits<std::int64_t>::min(), -1, 5};
  const std::vector<std::uint8_t> flags{1, 0, 255};
  const nlohmann::ordered_json header{{"lr", 0.1 + 0.2}, {"name", "Ü\n\"x"}, {"steps", 5000000000}};
  ResumeStore store(folder.path());
  const auto path = store.save(
      header, std::vector<ResumeSection>{{"weights", DType::kF32, std::as_bytes(std::span(weights))},
                                         {"nothing", DType::kF64, {}},
                                         {"counters", DType::kI64, std::as_bytes(std::span(counters))},
                                         {"flags", DType::kU8, std::as_bytes(std::span(flags))}});
  const ResumeState state = read_resume_state(path);
  EXPECT_EQ(state.path, path);
  EXPECT_EQ(state.header.dump(), header.dump());
  ASSERT_THAT(state.sections, SizeIs(4));
  std::vector<float> weights_read(weights.size());
  state.copy_section("weights", DType::kF32, std::as_writable_bytes(std::span(weights_read)));
  EXPECT_EQ(std::memcmp(weights_read.data(), weights.data(), weights.size() * sizeof(float)), 0);
  state.copy_section("nothing", DType::kF64, {});
  std::vector<std::int64_t> counters_read(counters.size());
  state.copy_section("counters", DType::kI64, std::as_writable_bytes(std::span(counters_read)));
  EXPECT_EQ(counters_read, counters);
  std::vector<std::uint8_t> flags_read(flags.size());
  state.copy_section("flags", DType::kU8, std::as_writable_bytes(std::span(flags_read)));
  EXPECT_EQ(flags_read, flags);
}

TEST(ResumeState, MayHoldAHeaderAlone) {
  const TemporaryFolder folder;
  ResumeStore store(folder.path());
  const ResumeState state = read_resume_state(store.save({{"step", 3}}, {}));
  EXPECT_EQ(state.header["step"], 3);
  EXPECT_THAT(state.sections, IsEmpty());
}

TEST(ResumeState, CopiesASectionOnlyWhereItFits) {
  const TemporaryFolder folder;
  ResumeStore store(folder.path());
  const auto path = save_number(store, 1);
  const ResumeState state = read_resume_state(path);
  std::vector<float> room(NumberedState::kWeights + 1, -99.0F);
  const auto bytes = std::as_writable_bytes(std::span(room));
  const auto copy = [&](const std::string& name, DType dtype, std::size_t count) {
    return message_of<DataError>([&] { state.copy_section(name, dtype, bytes.first(count)); });
  };
  const std::size_t fits = NumberedState::kWeights * sizeof(float);
  EXPECT_THAT(copy("biases", DType::kF32, fits), AllOf(HasSubstr(path), HasSubstr("no section biases")));
  EXPECT_THAT(copy("weights", DType::kI32, fits),
              AllOf(HasSubstr(path), HasSubstr("weights"), HasSubstr("float32"), HasSubstr("int32")));
  EXPECT_THAT(copy("weights", DType::kF32, fits + 4), HasSubstr(fmt::format("{} bytes", fits)));
  EXPECT_THAT(room, testing::Each(-99.0F));
}

TEST(ResumeStore, KeepsTheNewestOfItsStates) {
  for (const int keep : {1, 2, 3}) {
    const TemporaryFolder folder;
    ResumeStore store(folder / "deep" / "checkpoints", keep);
    for (int n = 1; n <= 5; ++n) {
      EXPECT_EQ(store.save({{"n", n}}, {}).filename(), state_name(n));
      std::vector<std::string> expected{".lock", "latest.json"};
      for (int kept = std::max(1, n - keep + 1); kept <= n; ++kept) expected.push_back(state_name(kept));
      EXPECT_THAT(names_in(store.folder()), testing::UnorderedElementsAreArray(expected));
    }
  }
}

TEST(ResumeStore, ThePointerNamesTheNewest) {
  const TemporaryFolder folder;
  ResumeStore store(folder.path());
  for (int n = 1; n <= 3; ++n) {
    (void)save_number(store, n);
    EXPECT_EQ(test::read_bytes(folder / "latest.json"), fmt::format("{{\"state\":\"{}\"}}\n", state_name(n)));
  }
}

TEST(ResumeStore, GoesOnCountingWhereAnotherProcessStopped) {
  const TemporaryFolder folder;
  (void)save_number(*std::make_unique<ResumeStore>(folder.path()), 7);
  ResumeStore store(folder.path());
  EXPECT_EQ(number_of(*store.load().state), 7);
  EXPECT_EQ(save_number(store, 8).filename(), state_name(2));
  EXPECT_EQ(number_of(*find_resume_state(folder.path()).state), 8);
}

TEST(ResumeStore, AFolderWithoutStatesHasNone) {
  const TemporaryFolder folder;
  EXPECT_FALSE(find_resume_state(folder / "not" / "there").state);
  EXPECT_FALSE(std::filesystem::exists(folder / "not"));
  EXPECT_FALSE(find_resume_state(folder.path()).state);
  ResumeStore store(folder.path());
  EXPECT_FALSE(store.load().state);
  EXPECT_THAT(store.load().messages, IsEmpty());
}

TEST(ResumeStore, FallsBackFromADamagedNewestAndSaysSo) {
  const TemporaryFolder folder;
  {
    ResumeStore store(folder.path());
    (void)save_number(store, 1);
    (void)save_number(store, 2);
  }
  test::write_bytes(folder / state_name(2), "no state");
  const FoundResumeState found = find_resume_state(folder.path());
  ASSERT_TRUE(found.state);
  EXPECT_EQ(number_of(*found.state), 1);
  EXPECT_THAT(found.messages, ElementsAre(AllOf(HasSubstr(folder / state_name(2)), HasSubstr("damaged"),
                                                HasSubstr("falling back"))));
  // The next save comes after the damaged one, which is the first to go.
  ResumeStore store(folder.path());
  EXPECT_EQ(number_of(*store.load().state), 1);
  EXPECT_EQ(save_number(store, 3).filename(), state_name(3));
  EXPECT_THAT(names_in(folder.path()),
              UnorderedElementsAre(".lock", "latest.json", state_name(1), state_name(3)));
}

// It may be good: to fall back would lose it, and the next save would remove it.
TEST(ResumeStore, AStateThatTheSystemDoesNotReadIsNoDamagedOne) {
  const TemporaryFolder folder;
  ResumeStore store(folder.path());
  save_number(store, 1);
  const auto newest = save_number(store, 2);
  const auto aside = folder / "aside";
  std::filesystem::rename(newest, aside);
  std::filesystem::create_symlink(newest.filename(), newest);  // ELOOP
  EXPECT_THROW(static_cast<void>(store.load()), IoError);
  EXPECT_THROW(static_cast<void>(find_resume_state(folder.path())), IoError);
  std::filesystem::rename(aside, newest);
  EXPECT_EQ(number_of(*store.load().state), 2);
}

TEST(ResumeStore, AFolderThatCannotBeLookedIntoIsNotOneWithoutStates) {
  const TemporaryFolder folder;
  std::filesystem::create_symlink("loop", folder / "loop");
  EXPECT_THROW(static_cast<void>(has_resume_states(folder / "loop")), IoError);
  EXPECT_FALSE(has_resume_states(folder / "absent"));
}

TEST(ResumeStore, SaysWhenTheStateThatThePointerNamesIsGone) {
  const TemporaryFolder folder;
  ResumeStore store(folder.path());
  (void)save_number(store, 1);
  std::filesystem::remove(save_number(store, 2));
  const FoundResumeState found = find_resume_state(folder.path());
  EXPECT_EQ(number_of(*found.state), 1);
  EXPECT_THAT(found.messages, ElementsAre(AllOf(HasSubstr(state_name(2)), HasSubstr("missing"))));
}

TEST(ResumeStore, ADamagedPointerIsIgnoredWithAMessage) {
  const TemporaryFolder folder;
  ResumeStore store(folder.path());
  (void)save_number(store, 1);
  for (const std::string& content :
       {std::string(), std::string("{"), std::string("[1]"), std::string(R"({"state": 4})"),
        std::string(R"({"state": "../state-0000000009.resume"})"), std::string(5000, 'x')}) {
    test::write_bytes(folder / "latest.json", content);
    const FoundResumeState found = find_resume_state(folder.path());
    ASSERT_TRUE(found.state);
    EXPECT_EQ(number_of(*found.state), 1);
    EXPECT_THAT(found.messages, ElementsAre(AllOf(HasSubstr(folder / "latest.json"), HasSubstr("ignored"))));
  }
}

TEST(ResumeStore, RefusesWhenEveryStateIsDamaged) {
  const TemporaryFolder folder;
  ResumeStore store(folder.path());
  const auto first = save_number(store, 1);
  const auto second = save_number(store, 2);
  std::filesystem::resize_file(first, 30);
  std::filesystem::resize_file(second, 0);
  EXPECT_THAT(message_of<DataError>([&] { (void)store.load(); }),
              AllOf(HasSubstr(folder.path()), HasSubstr("none of its 2 states"), HasSubstr(second)));
}

TEST(ResumeStore, LeavesWhatIsNotItsOwnAlone) {
  const TemporaryFolder folder;
  const std::vector<std::string> strangers{"notes.txt",
                                           "state-1.resume",
                                           "state-0000000007.resume.bak",
                                           "state-00000000x7.resume",
                                           ".state-0000000001.resume.keep",
                                           ".hidden"};
  for (const auto& name : strangers) test::write_bytes(folder / name, "mine");
  ResumeStore store(folder.path(), 1);
  (void)save_number(store, 1);
  (void)save_number(store, 2);
  for (const auto& name : strangers) EXPECT_EQ(test::read_bytes(folder / name), "mine") << name;
  EXPECT_EQ(number_of(*store.load().state), 2);
}

TEST(ResumeStore, RemovesWhatAKilledProcessLeftHalfWritten) {
  const TemporaryFolder folder;
  for (const char* name : {".state-0000000003.resume.Ab12zZ", ".latest.json.aaaaaa"})
    test::write_bytes(folder / name, "half");
  const ResumeStore store(folder.path());
  EXPECT_THAT(names_in(folder.path()), ElementsAre(".lock"));
}

TEST(ResumeStore, OneProcessAFolder) {
  const TemporaryFolder folder;
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const ResumeStore store(folder.path());
    if (::write(ready[1], "x", 1) == 1) ::pause();
    ::_exit(1);
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_THAT(message_of<UsageError>([&] { const ResumeStore second(folder.path()); }),
              AllOf(HasSubstr(folder.path()), HasSubstr("another process"), HasSubstr("--run_dir")));
  // Whoever only reads is not kept out.
  EXPECT_FALSE(find_resume_state(folder.path()).state);
  ::kill(child, SIGKILL);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  const ResumeStore store(folder.path());
  EXPECT_THROW(const ResumeStore second(folder.path()), UsageError);
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST(ResumeStore, SomeoneWhoReadsAlwaysFindsAState) {
  const TemporaryFolder folder;
  ResumeStore store(folder.path(), 1);  // each save removes the state that a reader may be opening
  (void)save_number(store, 0);
  std::atomic<bool> done{false};
  std::atomic<int> reads{0};
  std::thread reader([&] {
    int last = 0;
    while (!done) {
      const FoundResumeState found = find_resume_state(folder.path());
      ASSERT_TRUE(found.state);
      const int number = number_of(*found.state);
      ASSERT_GE(number, last);
      EXPECT_THAT(found.messages, IsEmpty());
      last = number;
      ++reads;
    }
  });
  for (int n = 1; n <= 100 || (reads < 20 && n < 1000); ++n) (void)save_number(store, n);
  done = true;
  reader.join();
  EXPECT_GE(reads, 20);
}

/// `state` with another header, its length and checksum set right.
std::string with_header(const std::string& state, const std::string& header) {
  constexpr std::size_t kPrefix = 20;  // magic, length, checksum
  std::uint64_t old_length = 0;
  std::memcpy(&old_length, state.data() + 8, sizeof old_length);
  const auto align = [](std::size_t offset) { return (offset + 63) / 64 * 64; };
  std::string start = state.substr(0, 8);
  const std::uint64_t length = header.size();
  start.append(reinterpret_cast<const char*>(&length), sizeof length);
  const std::uint32_t crc = crc32c(std::as_bytes(std::span(header)), crc32c(std::as_bytes(std::span(start))));
  start.append(reinterpret_cast<const char*>(&crc), sizeof crc);
  start += header;
  start.resize(align(start.size()), '\0');
  return start + state.substr(align(kPrefix + old_length));
}

TEST(ResumeHeader, ADeepOneIsRefused) {
  const TemporaryFolder folder;
  ResumeStore store(folder.path(), 2);
  const auto path = save_number(store, 1);
  const std::string state = read_bytes(path);
  write_bytes(path, with_header(state, "{\"user\":" + std::string(200'000, '[')));
  EXPECT_THAT(message_of<DataError>([&] { (void)read_resume_state(path); }),
              AllOf(HasSubstr(path.string()), HasSubstr("its header: nested deeper than 64 levels")));
}

TEST(ResumeHeader, AnyMutationIsReadOrRefused) {
  const TemporaryFolder folder;
  ResumeStore store(folder.path(), 2);
  const auto path = save_number(store, 1);
  const std::string state = read_bytes(path);
  std::uint64_t length = 0;
  std::memcpy(&length, state.data() + 8, sizeof length);
  const std::string header = state.substr(20, length);
  write_bytes(path, with_header(state, header));
  EXPECT_EQ(number_of(read_resume_state(path)), 1);
  std::mt19937_64 random(4);
  int refused = 0;
  for (int i = 0; i < 3000; ++i) {
    write_bytes(path, with_header(state, test::mutate(header, random)));
    try {
      (void)read_resume_state(path);
    } catch (const DataError& error) {
      ++refused;
      EXPECT_THAT(error.what(), HasSubstr(path.string()));
    }
  }
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace voca::engine
