#include "engine/checkpoint/safetensors/safetensors.h"

#include <cerrno>
#include <cstring>

#include "engine/base/file_kind.h"
#include "tests/engine/checkpoint/checkpoint_support.h"
#include "tests/engine/checkpoint/torch/pickle_support.h"
#include "tests/engine/support/file_faults.h"

namespace voca::engine {
namespace {

using test::FileFaults;
using test::floats;
using test::golden;
using test::little;
using test::message_of;
using test::pattern;
using test::read_bytes;
using test::TemporaryFolder;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

std::string file_of(const std::string& header, std::size_t data_bytes) {
  return little(std::uint64_t{header.size()}) + header + std::string(data_bytes, '\0');
}

/// One float32 tensor "w" of two elements by that entry.
std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

class SafetensorsTest : public testing::Test {
 protected:
  SafetensorsFile read(const std::string& header, std::size_t data_bytes) {
    test::write_bytes(path_, file_of(header, data_bytes));
    return read_safetensors(path_);
  }
  std::string refusal_of_bytes(const std::string& bytes) {
    test::write_bytes(path_, bytes);
    std::string message = message_of<DataError>([&] { (void)read_safetensors(path_); });
    EXPECT_THAT(message, HasSubstr(path_.string()));
    return message;
  }
  std::string refusal(const std::string& header, std::size_t data_bytes) {
    return refusal_of_bytes(file_of(header, data_bytes));
  }

  TemporaryFolder folder_;
  std::filesystem::path path_ = folder_ / "a.safetensors";
};

TEST_F(SafetensorsTest, ComesBackAsItWasWritten) {
  const PtFile types = read_pt(golden("dtypes.pt"));
  const PtFile views = read_pt(golden("views.pt"));
  std::vector<NamedTensor> tensors;
  for (const PtFile* file : {&types, &views}) {
    for (const auto& [name, value] : file->value.if_dict()->items)
      tensors.push_back({*name.if_string(), *value.if_tensor()});
  }
  write_safetensors(path_, tensors, {{"config", R"({"a": "Ü"})"}});
  const SafetensorsFile file = read_safetensors(path_);
  EXPECT_TRUE(file.has_digest);
  EXPECT_EQ(file.metadata.at("config"), R"({"a": "Ü"})");
  EXPECT_EQ(file.metadata.at("format"), "pt");
  ASSERT_EQ(file.tensors.size(), tensors.size());
  for (auto& tensor : tensors) {
    const auto found = std::find_if(file.tensors.begin(), file.tensors.end(),
                                    [&](const NamedTensor& named) { return named.name == tensor.name; });
    ASSERT_NE(found, file.tensors.end()) << tensor.name;
    EXPECT_EQ(found->tensor.dtype, tensor.tensor.dtype);
    EXPECT_EQ(found->tensor.shape, tensor.tensor.shape);
    EXPECT_TRUE(found->tensor.contiguous());
    EXPECT_EQ(found->tensor.bytes(), tensor.tensor.bytes());
  }
}

TEST_F(SafetensorsTest, ReadsWhatOthersWrite) {
  const SafetensorsFile file =
      read(R"({"b":)" + entry("\"F32\"", "[2,1]", "[2,10]") + R"(, "a":)" + entry("\"BF16\"", "[]", "[0,2]") +
               R"(, "none":)" + entry("\"I64\"", "[0,7]", "[10,10]") + "}   ",
           10);
  EXPECT_FALSE(file.has_digest);
  EXPECT_THAT(file.metadata, IsEmpty());
  ASSERT_THAT(file.tensors, SizeIs(3));
  EXPECT_EQ(file.tensors[0].name, "a");  // in the order of the data
  EXPECT_EQ(file.tensors[1].name, "b");
  EXPECT_THAT(file.tensors[1].tensor.shape, ElementsAre(2, 1));
  EXPECT_THAT(floats(file.tensors[1].tensor), ElementsAre(0, 0));
  EXPECT_THAT(floats(file.tensors[2].tensor), IsEmpty());
  EXPECT_THAT(read("{}", 0).tensors, IsEmpty());
}

TEST_F(SafetensorsTest, RefusesAHeaderThatIsNotThere) {
  EXPECT_THAT(refusal_of_bytes(""), HasSubstr("0 bytes"));
  EXPECT_THAT(refusal_of_bytes("short"), HasSubstr("5 bytes"));
  EXPECT_THAT(refusal_of_bytes(little(std::uint64_t{3}) + "{}"), HasSubstr("declares a header of 3 bytes"));
  EXPECT_THAT(refusal_of_bytes(little(~std::uint64_t{0}) + "{}"), HasSubstr("declares a header"));
  EXPECT_THAT(refusal_of_bytes(little(std::uint64_t{1} << 62) + "{}"), HasSubstr("declares a header"));
  EXPECT_THAT(refusal_of_bytes(little(std::uint64_t{1} << 25) + std::string(1 << 25, ' ')),
              HasSubstr("declares a header of 33554432"));
}

TEST_F(SafetensorsTest, RefusesAHeaderThatIsNone) {
  for (const char* header :
       {"  ", "[]", "1 ", "{ ", "{\"a\"}", "{\"\xFF\":{}}", "nullnull", "\xEF\xBB\xBF{}", "\f{}"})
    EXPECT_THAT(refusal(header, 0), HasSubstr("header")) << header;
  EXPECT_THAT(refusal("{\"a\":" + std::string(70, '[') + std::string(70, ']') + "}", 0), HasSubstr("deeper"));
  EXPECT_THAT(refusal("{\"a\":" + std::string(1 << 20, '['), 0), HasSubstr("deeper"));
  for (const char* metadata : {"[1]", "1", R"({"a":1})", R"({"a":null})", "\"x\""})
    EXPECT_THAT(refusal(std::string(R"({"__metadata__":)") + metadata + "}", 0), HasSubstr("__metadata__"));
}

/// What the reference implementation (0.8) takes and refuses.
TEST_F(SafetensorsTest, SpacesMayStandAroundTheHeaderAndNothingElse) {
  const std::string header = R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"more":[1]}})";
  for (const std::string& text : {" " + header, "\t\r\n " + header, header + " \n\r\t"}) {
    EXPECT_THAT(read(text, 8).tensors, SizeIs(1)) << text;
    EXPECT_EQ(file_kind(path_), FileKind::kSafetensors) << text;
  }
  const std::string nul(1, '\0');
  for (const std::string& text :
       {header + nul, header + " " + nul + nul, header + "x", header + "{}", nul + header})
    EXPECT_THAT(refusal(text, 8), HasSubstr("header")) << text;
  EXPECT_THAT(read(R"({"__metadata__":null})", 0).metadata, IsEmpty());
}

TEST_F(SafetensorsTest, RefusesANameTwice) {
  const std::string w = entry("\"F32\"", "[2]", "[0,8]");
  EXPECT_THAT(refusal(R"({"w":)" + w + R"(,"w":)" + entry("\"F32\"", "[2]", "[8,16]") + "}", 16),
              HasSubstr("\"w\" twice"));
  EXPECT_THAT(refusal(R"({"__metadata__":{"a":"1","a":"2"}})", 0), HasSubstr("\"a\" twice"));
  EXPECT_THAT(refusal(R"({"w":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8),
              HasSubstr("\"dtype\" twice"));
}

TEST_F(SafetensorsTest, RefusesTensorsThatAreNotWhatTheySayByName) {
  struct Wrong {
    std::string entry;
    const char* why;
  };
  const std::string f32 = "\"F32\"";
  const std::vector<Wrong> wrong{
      {"1", "needs dtype"},
      {R"({"dtype":"F32","shape":[2]})", "needs dtype"},
      {entry("1", "[2]", "[0,8]"), "needs dtype"},
      {entry(f32, "2", "[0,8]"), "needs dtype"},
      {entry(f32, "[2]", "[0,8,8]"), "needs dtype"},
      {entry("\"F8_E4M3\"", "[8]", "[0,8]"), "has dtype F8_E4M3"},
      {entry("\"f32\"", "[2]", "[0,8]"), "has dtype f32"},
      {entry(f32, "[-2]", "[0,8]"), "not a number"},
      {entry(f32, "[2.0]", "[0,8]"), "not a number"},
      {entry(f32, "[\"2\"]", "[0,8]"), "not a number"},
      {entry(f32, "[2]", "[0,-8]"), "not a number"},
      {entry(f32, "[3]", "[0,8]"), "takes 8 bytes where its shape needs 12"},
      {entry(f32, "[]", "[0,8]"), "takes 8 bytes where its shape needs 4"},
      {entry(f32, "[0]", "[0,8]"), "takes 8 bytes where its shape needs 0"},
      {entry(f32, "[2]", "[0,16]"), "ends at 16 of 8"},
      {entry(f32, "[2]", "[8,0]"), "data overlaps or leaves a hole"},
      {entry(f32, "[4611686018427387904,4]", "[0,8]"), "beyond any file"},
      {entry(f32, "[4294967296,4294967296]", "[0,8]"), "beyond any file"},
      {entry(f32, "[18446744073709551615,0]", "[0,0]"), "beyond any file"},
      {entry(f32, "[18446744073709551616]", "[0,8]"), "not a number"},
      {entry(f32, "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,2]", "[0,8]"), "17 dimensions"}};
  for (const Wrong& one : wrong) {
    EXPECT_THAT(refusal(R"({"w":)" + one.entry + "}", 8), AllOf(HasSubstr("tensor w"), HasSubstr(one.why)))
        << one.entry;
  }
}

TEST_F(SafetensorsTest, RefusesHolesOverlapsAndLeftovers) {
  const auto two = [](const std::string& first, const std::string& second) {
    return R"({"a":)" + entry("\"F32\"", "[1]", first) + R"(,"b":)" + entry("\"F32\"", "[1]", second) + "}";
  };
  EXPECT_NO_THROW((void)read(two("[4,8]", "[0,4]"), 8));
  EXPECT_THAT(refusal(two("[0,4]", "[0,4]"), 8), HasSubstr("overlaps or leaves a hole"));
  EXPECT_THAT(refusal(two("[0,4]", "[2,6]"), 8), HasSubstr("begins at 2, where 4"));
  EXPECT_THAT(refusal(two("[0,4]", "[8,12]"), 12), HasSubstr("begins at 8, where 4"));
  EXPECT_THAT(refusal(two("[4,8]", "[8,12]"), 12), HasSubstr("begins at 4, where 0"));
  EXPECT_THAT(refusal(two("[0,4]", "[4,8]"), 9), HasSubstr("8 of 9 bytes"));
  EXPECT_THAT(refusal("{}", 1), HasSubstr("0 of 1 bytes"));
}

TEST_F(SafetensorsTest, PrintsNoControlCharactersOfAName) {
  EXPECT_THAT(refusal("{\"\\u001b[2J\":1}", 0), testing::Not(HasSubstr("\x1b")));
}

TEST_F(SafetensorsTest, WithoutItsDigestAFileOfOursIsDamaged) {
  const std::vector<float> elements = pattern(0, 4);
  write_safetensors(path_, std::vector<NamedTensor>{{"w", borrow_tensor(elements, {4})}});
  std::string bytes = read_bytes(path_);
  const std::size_t at = bytes.find("voca_crc32c");
  ASSERT_NE(at, std::string::npos);
  bytes.replace(at, 4, "v0ca");
  EXPECT_THAT(refusal_of_bytes(bytes), HasSubstr("damaged"));
  // Read for its structure alone it is not gone through.
  EXPECT_NO_THROW((void)read_safetensors(path_, Verify::kStructure));
}

TEST_F(SafetensorsTest, AFaultAtAnyStepOfWritingKeepsTheOldFile) {
  const std::vector<float> old = pattern(0, 4);
  write_safetensors(path_, std::vector<NamedTensor>{{"old", borrow_tensor(old, {4})}});
  const std::vector<float> elements = pattern(1, 4);
  const std::vector<NamedTensor> tensors{{"new", borrow_tensor(elements, {4})}};
  int at = 0;
  for (bool failed = true; failed; ++at) {
    const FileFaults faults(at, EIO);
    const std::string before = read_safetensors(path_).tensors[0].name;
    failed = false;
    try {
      write_safetensors(path_, tensors);
    } catch (const IoError& error) {
      failed = true;
      EXPECT_THAT(error.what(), AllOf(HasSubstr(folder_.path().string()), HasSubstr(std::strerror(EIO))));
    }
    EXPECT_EQ(failed, faults.hit() == 1);
    // Only the sync of the folder comes after the new file has its name.
    const std::string now = read_safetensors(path_).tensors[0].name;
    EXPECT_TRUE(now == before || faults.steps() == at + 1 || !failed);
  }
  EXPECT_GT(at, 6);
  EXPECT_EQ(read_safetensors(path_).tensors[0].name, "new");
}

TEST_F(SafetensorsTest, RefusesToWriteANameTwice) {
  const std::vector<float> elements = pattern(0, 4);
  const std::vector<NamedTensor> tensors{{"w", borrow_tensor(elements, {4})},
                                         {"w", borrow_tensor(elements, {2, 2})}};
  EXPECT_THROW(write_safetensors(path_, tensors), InternalError);
  EXPECT_FALSE(std::filesystem::exists(path_));
}

}  // namespace
}  // namespace voca::engine
