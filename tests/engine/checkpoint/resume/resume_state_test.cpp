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
#include "engine/base/file_kind.h"
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
using test::row;
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
  const std::vector<double> nothing;
  const std::vector<std::uint8_t> flags{1, 0, 255};
  const nlohmann::ordered_json header{{"lr", 0.1 + 0.2}, {"name", "Ü\n\"x"}, {"steps", 5000000000}};
  ResumeStore store(folder.path());
  const auto path =
      store.save(header, std::vector<NamedTensor>{row("weights", weights), row("nothing", nothing),
                                                  row("counters", counters), row("flags", flags)});
  const ResumeState state = read_resume_state(path);
  EXPECT_EQ(state.path, path);
  EXPECT_EQ(state.header.dump(), header.dump());
  EXPECT_FALSE(state.earlier_form);
  ASSERT_THAT(state.tensors, SizeIs(4));
  std::vector<float> weights_read(weights.size());
  state.copy_tensor("weights", DType::kF32, std::as_writable_bytes(std::span(weights_read)));
  EXPECT_EQ(std::memcmp(weights_read.data(), weights.data(), weights.size() * sizeof(float)), 0);
  state.copy_tensor("nothing", DType::kF64, {});
  std::vector<std::int64_t> counters_read(counters.size());
  state.copy_tensor("counters", DType::kI64, std::as_writable_bytes(std::span(counters_read)));
  EXPECT_EQ(counters_read, counters);
  std::vector<std::uint8_t> flags_read(flags.size());
  state.copy_tensor("flags", DType::kU8, std::as_writable_bytes(std::span(flags_read)));
  EXPECT_EQ(flags_read, flags);
}

TEST(ResumeState, MayHoldAHeaderAlone) {
  const TemporaryFolder folder;
  ResumeStore store(folder.path());
  const ResumeState state = read_resume_state(store.save({{"step", 3}}, {}));
  EXPECT_EQ(state.header["step"], 3);
  EXPECT_THAT(state.tensors, IsEmpty());
}

TEST(ResumeState, CopiesATensorOnlyWhereItFits) {
  const TemporaryFolder folder;
  ResumeStore store(folder.path());
  const auto path = save_number(store, 1);
  const ResumeState state = read_resume_state(path);
  std::vector<float> room(NumberedState::kWeights + 1, -99.0F);
  const auto bytes = std::as_writable_bytes(std::span(room));
  const auto copy = [&](const std::string& name, DType dtype, std::size_t count) {
    return message_of<DataError>([&] { state.copy_tensor(name, dtype, bytes.first(count)); });
  };
  const std::size_t fits = NumberedState::kWeights * sizeof(float);
  EXPECT_THAT(copy("biases", DType::kF32, fits), AllOf(HasSubstr(path), HasSubstr("no tensor biases")));
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
  std::string damaged = read_bytes(folder / state_name(2));
  damaged.back() ^= 1;
  write_bytes(folder / state_name(2), damaged);
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

/// A state is an ordinary safetensors file, with shapes.
TEST(ResumeState, IsASafetensorsFile) {
  const TemporaryFolder folder;
  ResumeStore store(folder.path());
  const std::vector<float> elements{1, 2, 3, 4, 5, 6};
  const NamedTensor tensor{"w", borrow_tensor(elements, {2, 3})};
  const auto path = store.save({{"step", 3}}, std::vector<NamedTensor>{tensor});
  EXPECT_EQ(file_kind(path), FileKind::kResumeState);
  const SafetensorsFile file = read_safetensors(path);
  ASSERT_THAT(file.tensors, SizeIs(1));
  EXPECT_EQ(file.tensors[0].name, "w");
  EXPECT_THAT(file.tensors[0].tensor.shape, ElementsAre(2, 3));
  EXPECT_THAT(test::floats(file.tensors[0].tensor), testing::ElementsAreArray(elements));
  EXPECT_EQ(file.metadata.at("voca_resume_state"), R"({"step":3})");
}

TEST(ResumeState, OfTheEarlierFormIsReadAndTheNextIsOfThePresent) {
  const TemporaryFolder folder;
  const auto name = folder / state_name(1);
  {
    ResumeStore store(folder.path());
    write_bytes(name, test::earlier_form(read_resume_state(save_number(store, 7))));
  }
  EXPECT_EQ(file_kind(name), FileKind::kResumeState);
  ResumeStore store(folder.path());
  const FoundResumeState found = store.load();
  EXPECT_THAT(found.messages, IsEmpty());
  EXPECT_EQ(found.state->path, name);
  EXPECT_TRUE(found.state->earlier_form);
  EXPECT_EQ(number_of(*found.state), 7);
  const ResumeState next = read_resume_state(save_number(store, 8));
  EXPECT_EQ(next.path, folder / state_name(2));
  EXPECT_FALSE(next.earlier_form);
  EXPECT_EQ(number_of(next), 8);
}

/// Written by the program that still wrote this form; see tests/golden/resume/README.md.
TEST(ResumeState, OfTheProgramThatWroteTheEarlierFormIsReadWhole) {
  const std::filesystem::path golden = std::filesystem::path(VOCA_GOLDEN_DIR) / "resume";
  const ResumeState state = read_resume_state(golden / state_name(1));
  EXPECT_TRUE(state.earlier_form);
  EXPECT_EQ(state.header.at("version"), 3);
  EXPECT_EQ(state.header.at("progress").at("step"), 4);
  const SafetensorsFile weights = read_safetensors(golden / "last.safetensors");
  ASSERT_EQ(state.tensors.size(), 3 * weights.tensors.size());
  for (const auto& [name, tensor] : weights.tensors) {
    std::vector<std::byte> master(tensor.storage->size());
    state.copy_tensor("master/" + name, DType::kF32, master);
    EXPECT_EQ(master, tensor.bytes()) << name;
    std::vector<float> moment(static_cast<std::size_t>(tensor.elements()), -1);
    state.copy_tensor("exp_avg_sq/" + name, DType::kF32, std::as_writable_bytes(std::span(moment)));
    EXPECT_THAT(moment, testing::Each(testing::Ge(0))) << name;
  }
}

/// `state` with the digest that its bytes need.
std::string with_digest(std::string state) {
  constexpr std::string_view kKey = R"("voca_crc32c":")";
  const std::size_t at = state.find(kKey);
  if (at == std::string::npos || at + kKey.size() + 8 > state.size()) return state;
  state.replace(at + kKey.size(), 8, 8, '0');
  const std::uint32_t crc = crc32c(std::as_bytes(std::span(state)));
  return state.replace(at + kKey.size(), 8, fmt::format("{:08x}", crc));
}

/// The text of a state's header, which begins at `begin`; its length is at `length_at`.
std::string header_of(const std::string& state, std::size_t length_at, std::size_t begin) {
  std::uint64_t length = 0;
  std::memcpy(&length, state.data() + length_at, sizeof length);
  return state.substr(begin, length);
}

/// `state` with the text of another header, in each form with its length and digest set right.
std::string with_header(const std::string& state, const std::string& header) {
  const std::uint64_t length = header.size();
  const std::string start(reinterpret_cast<const char*>(&length), sizeof length);
  return with_digest(start + header + state.substr(sizeof length + header_of(state, 0, 8).size()));
}

std::string with_earlier_header(const std::string& state, const std::string& header) {
  std::string start = test::earlier_start(header);
  test::align_section(start);
  return start + state.substr((20 + header_of(state, 8, 20).size() + 63) / 64 * 64);
}

TEST(ResumeHeader, ADeepOneIsRefused) {
  const TemporaryFolder folder;
  const auto paths = test::save_both_forms(folder.path(), 1);
  const std::string deep(200'000, '[');
  const std::string state = read_bytes(paths[0]);
  std::string header = header_of(state, 0, 8);
  const std::string number = R"({\"number\":1})";
  header.replace(header.find(number), number.size(), deep);
  write_bytes(paths[0], with_header(state, header));
  write_bytes(paths[1], with_earlier_header(read_bytes(paths[1]), "{\"user\":" + deep));
  for (const auto& path : paths) {
    EXPECT_THAT(message_of<DataError>([&] { (void)read_resume_state(path); }),
                AllOf(HasSubstr(path.string()), HasSubstr("its header: nested deeper than 64 levels")));
  }
}

TEST(ResumeHeader, AnyMutationIsReadOrRefused) {
  const TemporaryFolder folder;
  const auto paths = test::save_both_forms(folder.path(), 1);
  for (const bool earlier : {false, true}) {
    const auto& path = paths[earlier ? 1 : 0];
    const auto with = earlier ? with_earlier_header : with_header;
    const std::string state = read_bytes(path);
    const std::string header = earlier ? header_of(state, 8, 20) : header_of(state, 0, 8);
    write_bytes(path, with(state, header));
    EXPECT_EQ(number_of(read_resume_state(path)), 1);
    std::mt19937_64 random(4);
    int refused = 0;
    for (int i = 0; i < 3000; ++i) {
      write_bytes(path, with(state, test::mutate(header, random)));
      try {
        (void)read_resume_state(path);
      } catch (const DataError& error) {
        ++refused;
        EXPECT_THAT(error.what(), HasSubstr(path.string()));
      }
    }
    EXPECT_GT(refused, 1000) << path;
  }
}

}  // namespace
}  // namespace voca::engine
