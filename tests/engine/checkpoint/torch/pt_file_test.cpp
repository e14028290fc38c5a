#include "engine/checkpoint/torch/pt_file.h"

#include <cerrno>
#include <cmath>
#include <cstring>

#include "engine/archive/zip_archive.h"
#include "tests/engine/checkpoint/checkpoint_support.h"
#include "tests/engine/checkpoint/torch/pickle_support.h"
#include "tests/engine/support/file_faults.h"

namespace voca::engine {
namespace {

using namespace std::string_literals;
using test::FileFaults;
using test::floats;
using test::golden;
using test::message_of;
using test::pattern;
using test::read_bytes;
using test::TemporaryFolder;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

const TensorValue& tensor_of(const PtFile& file, std::string_view key) {
  const Value* value = file.value.if_dict()->find(key);
  if (value == nullptr || value->if_tensor() == nullptr)
    throw InternalError("the file has no tensor {}", key);
  return *value->if_tensor();
}

TEST(PtFile, ReadsEveryElementType) {
  const PtFile file = read_pt(golden("dtypes.pt"));
  EXPECT_FALSE(file.has_digests);
  ASSERT_THAT(file.value.if_dict()->items, SizeIs(10));
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kF16, DType::kBF16, DType::kI64, DType::kI32,
                            DType::kI16, DType::kI8, DType::kU8, DType::kBool}) {
    SCOPED_TRACE(name_of(dtype));
    const TensorValue& tensor = tensor_of(file, fmt::format("torch.{}", name_of(dtype)));
    EXPECT_EQ(tensor.dtype, dtype);
    EXPECT_THAT(tensor.shape, ElementsAre(2, 3));
    std::vector<double> values(6);
    tensor.copy_to(values);
    const auto expected = pattern(0, 6);
    const bool real =
        dtype == DType::kF64 || dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
    for (std::size_t i = 0; i < 6; ++i) {
      const double whole =
          dtype == DType::kBool ? std::min<double>(1, static_cast<double>(i)) : static_cast<double>(i);
      EXPECT_EQ(values[i], real ? static_cast<double>(expected[i]) : whole);
    }
    EXPECT_THAT(floats(tensor), SizeIs(6));
    EXPECT_THAT(tensor.bytes(), SizeIs(6 * size_of(dtype)));
  }
}

TEST(PtFile, ReadsViewsOfOneStorage) {
  const PtFile file = read_pt(golden("views.pt"));
  const auto base = pattern(0, 24);
  const TensorValue& whole = tensor_of(file, "base");
  EXPECT_EQ(floats(whole), base);
  EXPECT_TRUE(whole.contiguous());
  const TensorValue& transposed = tensor_of(file, "transposed");
  EXPECT_THAT(transposed.shape, ElementsAre(6, 4));
  EXPECT_FALSE(transposed.contiguous());
  const auto values = floats(transposed);
  for (std::size_t row = 0; row < 4; ++row) {
    for (std::size_t column = 0; column < 6; ++column)
      EXPECT_EQ(values[column * 4 + row], base[row * 6 + column]);
  }
  EXPECT_THAT(floats(tensor_of(file, "block")),
              ElementsAre(base[8], base[9], base[10], base[14], base[15], base[16]));
  EXPECT_THAT(floats(tensor_of(file, "column")), ElementsAre(base[3], base[9], base[15], base[21]));
  EXPECT_THAT(floats(tensor_of(file, "scalar")), ElementsAre(base[14]));
  EXPECT_THAT(tensor_of(file, "scalar").shape, SizeIs(0));
  EXPECT_THAT(floats(tensor_of(file, "empty")), SizeIs(0));
  for (const char* name : {"transposed", "block", "column", "scalar", "empty"})
    EXPECT_EQ(tensor_of(file, name).storage, whole.storage) << name;
}

TEST(PtFile, MarksParameters) {
  const PtFile file = read_pt(golden("parameters.pt"));
  for (const auto& [name, value] : file.value.if_dict()->items) EXPECT_TRUE(value.if_tensor()->parameter);
  EXPECT_FALSE(tensor_of(read_pt(golden("state_dict.pt")), "proj.0.weight").parameter);
}

TEST(PtFile, KeepsTheOrderOfAStateDictAndItsMetadata) {
  const PtFile file = read_pt(golden("state_dict.pt"));
  const Dict& dict = *file.value.if_dict();
  EXPECT_TRUE(dict.ordered_dict);
  std::vector<std::string> names;
  for (const auto& [name, value] : dict.items) names.push_back(*name.if_string());
  EXPECT_THAT(names, ElementsAre("proj.0.weight", "proj.0.bias", "proj.1.weight", "proj.1.bias",
                                 "classifier.weight", "classifier.bias"));
  EXPECT_THAT(dict.attributes, SizeIs(1));  // _metadata
}

TEST(PtFile, NumpyScalarsAreNumbers) {
  const PtFile file = read_pt(golden("training.pt"));
  const Dict& root = *file.value.if_dict();
  EXPECT_EQ(*root.find("val_acc")->if_double(), 0.875);
  EXPECT_EQ(*root.find("val_auc")->if_double(), 0.9375);
  EXPECT_EQ(*root.find("config")->if_dict()->find("folds")->if_int(), -3);
  EXPECT_EQ(*root.find("config")->if_dict()->find("fine")->if_bool(), true);
}

TEST(PtFile, AHostilePickleIsReadAndNothingOfItRuns) {
  const PtFile file = read_pt(golden("hostile.pt"));
  EXPECT_THAT(list_inert(file.value), ElementsAre("hook: posix.system"));
  EXPECT_THAT(describe(file.value),
              AllOf(HasSubstr("hook: <posix.system"), HasSubstr("touch voca_was_here")));
  EXPECT_FALSE(std::filesystem::exists("voca_was_here"));
}

TEST(PtFile, ObjectsAreInertAndCanBePrinted) {
  const PtFile file = read_pt(golden("objects.pt"));
  EXPECT_THAT(describe(file.value),
              AllOf(HasSubstr("args: <argparse.Namespace"), HasSubstr("tags: <__builtin__.set"),
                    HasSubstr("defaults: <collections.defaultdict")));
}

TEST(PtFile, BuffersAndOtherTensorsWithAttributesAreTensors) {
  const PtFile file = read_pt(golden("buffers.pt"));
  const auto tensor = [&](const char* name) { return *file.value.find(name)->if_tensor(); };
  EXPECT_EQ(floats(tensor("weight")), pattern(0, 6));
  EXPECT_TRUE(tensor("weight").parameter);
  EXPECT_EQ(floats(tensor("mean")), pattern(1, 3));
  EXPECT_FALSE(tensor("mean").parameter);
  const auto elements = pattern(2, 6);
  EXPECT_THAT(floats(tensor("transposed")),
              ElementsAre(elements[0], elements[3], elements[1], elements[4], elements[2], elements[5]));
  EXPECT_EQ(floats(tensor("noted")), pattern(3, 4));
  EXPECT_THAT(list_inert(file.value), ElementsAre("subclass: torch._tensor._rebuild_from_type_v2"));
}

TEST(PtFile, AnExpandedTensorIsInertWithAdvice) {
  EXPECT_THAT(list_inert(read_pt(golden("expanded.pt")).value), ElementsAre(HasSubstr(".contiguous()")));
}

TEST(PtFile, RefusesTheFormOfOldPyTorchByNameWithAdvice) {
  EXPECT_THAT(message_of<DataError>([] { (void)read_pt(golden("legacy.pt")); }),
              AllOf(HasSubstr("legacy.pt"), HasSubstr("before 1.6"), HasSubstr("torch.save it again")));
}

Value tree() {
  static const std::vector<float> base = pattern(3, 24);
  TensorValue whole = borrow_tensor(base, {4, 6});
  TensorValue part = whole;
  part.shape = {2, 2};
  part.strides = {6, 1};
  part.offset = 7;
  Dict inner;
  inner.add("empty", Dict{});
  inner.items.emplace_back(Value(std::int64_t{-5000000000}), Value(0.1));
  Dict root;
  root.ordered_dict = true;
  root.add("none", Value());
  root.add("flags", Tuple{{Value(true), Value(false)}});
  root.add("numbers", List{{0, 255, 256, 65535, 65536, -1, std::int64_t{1} << 40, std::nan(""), -0.0}});
  root.add("text", "Grüße\n\0"s);
  root.add("inner", std::move(inner));
  root.add("nothing", List{});
  root.add("whole", whole);
  root.add("part", part);
  whole.parameter = true;
  root.add("parameter", whole);
  root.add("scalar", borrow_tensor(std::span(base).first(1), {}));
  root.add("zero", borrow_tensor({}, {0, 3}));
  return root;
}

TEST(PtFile, ComesBackAsItWasWritten) {
  const TemporaryFolder folder;
  const Value written = tree();
  write_pt(folder / "a.pt", written);
  const PtFile file = read_pt(folder / "a.pt");
  EXPECT_TRUE(file.has_digests);
  EXPECT_EQ(describe(file.value), describe(written));
  EXPECT_TRUE(file.value.if_dict()->ordered_dict);
  EXPECT_EQ(*file.value.if_dict()->find("text")->if_string(), "Grüße\n\0"s);
  const auto base = pattern(3, 24);
  EXPECT_EQ(floats(tensor_of(file, "whole")), base);
  EXPECT_THAT(floats(tensor_of(file, "part")), ElementsAre(base[7], base[8], base[13], base[14]));
  EXPECT_TRUE(tensor_of(file, "parameter").parameter);
  // Tensors that share a storage share it in the file: it is there once.
  EXPECT_EQ(tensor_of(file, "part").storage, tensor_of(file, "whole").storage);
  EXPECT_LT(std::filesystem::file_size(folder / "a.pt"), 2600U);
}

TEST(PtFile, TheSameValueGivesTheSameBytesWhateverTheName) {
  const TemporaryFolder folder;
  write_pt(folder / "a.pt", tree());
  write_pt(folder / "another name.pt", tree());
  EXPECT_EQ(read_bytes(folder / "a.pt"), read_bytes(folder / "another name.pt"));
}

TEST(PtFile, WhatItReadCanBeWrittenAgain) {
  const TemporaryFolder folder;
  for (const char* name : {"training.pt", "views.pt", "big_endian.pt", "deflated.pt", "dtypes.pt"}) {
    const PtFile file = read_pt(golden(name));
    write_pt(folder / name, file.value);
    const PtFile again = read_pt(folder / name);
    EXPECT_EQ(describe(again.value), describe(file.value));
    for (const auto& [key, value] : file.value.if_dict()->items) {
      if (value.if_tensor() != nullptr) {
        EXPECT_EQ(tensor_of(again, *key.if_string()).bytes(), value.if_tensor()->bytes()) << name;
      }
    }
  }
}

TEST(PtFile, IsReadThroughAnOpenFileAfterItIsReplaced) {
  const TemporaryFolder folder;
  write_pt(folder / "a.pt", tree());
  const PtFile file = read_pt(folder / "a.pt");
  write_pt(folder / "a.pt", Dict{});
  EXPECT_EQ(floats(tensor_of(file, "whole")), pattern(3, 24));
}

TEST(PtFile, AFaultAtAnyStepOfWritingKeepsTheOldFile) {
  const TemporaryFolder folder;
  Dict old;
  old.add("old", true);
  write_pt(folder / "a.pt", old);
  const std::string before = read_bytes(folder / "a.pt");
  bool failed = true;
  int at = 0;
  for (; failed; ++at) {
    failed = false;
    const FileFaults faults(at, ENOSPC);
    try {
      write_pt(folder / "a.pt", tree());
    } catch (const IoError& error) {
      failed = true;
      EXPECT_THAT(error.what(), AllOf(HasSubstr(folder.path().string()), HasSubstr(std::strerror(ENOSPC))));
      // The last step syncs the folder: by then the new file has its name.
      const std::string now = read_bytes(folder / "a.pt");
      if (now != before) {
        EXPECT_NO_THROW((void)read_pt(folder / "a.pt"));
      }
    }
    EXPECT_EQ(failed, faults.hit() == 1);
  }
  EXPECT_GT(at, 10);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

TEST(PtFile, RefusesToWriteWhatAReaderWouldNotLoad) {
  const TemporaryFolder folder;
  EXPECT_THROW(write_pt(folder / "a.pt", InertNode{"os.system", {}, {}}), InternalError);
  EXPECT_THROW(write_pt(folder / "a.pt", Bytes{"x"}), InternalError);
  EXPECT_FALSE(std::filesystem::exists(folder / "a.pt"));
}

/// A zip with these records, which no torch.save would write.
void write_zip(const std::filesystem::path& path,
               const std::vector<std::pair<std::string, std::string>>& records) {
  std::string bytes;
  ZipWriter zip([&](std::span<const std::byte> piece) {
    bytes.append(reinterpret_cast<const char*>(piece.data()), piece.size());
  });
  for (const auto& [name, content] : records) zip.add(name, std::as_bytes(std::span(content)));
  zip.finish();
  test::write_bytes(path, bytes);
}

TEST(PtFile, RefusesForeignFilesByName) {
  const TemporaryFolder folder;
  const auto path = folder / "x.pt";
  const auto refusal = [&](const std::string& content) {
    test::write_bytes(path, content);
    std::string message = message_of<DataError>([&] { (void)read_pt(path); });
    EXPECT_THAT(message, HasSubstr(path.string()));
    return message;
  };
  EXPECT_THAT(refusal(""), HasSubstr("0 bytes"));
  EXPECT_THAT(refusal("PK"), HasSubstr("2 bytes"));
  EXPECT_THAT(refusal("\x89HDF\r\n\x1a\n and more"), HasSubstr("HDF5"));
  EXPECT_THAT(refusal("epoch,loss\n1,0.5\n"), HasSubstr("is plain text, where a PyTorch .pt"));
  EXPECT_THAT(refusal("no text \1 and nothing known"), HasSubstr("zip archive was expected"));
  EXPECT_THAT(refusal("PK\x03\x04" + std::string(100, '\0')), HasSubstr("no zip end record"));
  EXPECT_THAT(message_of<IoError>([&] { (void)read_pt(folder / "none.pt"); }),
              AllOf(HasSubstr("none.pt"), HasSubstr(std::strerror(ENOENT))));
  EXPECT_THAT(message_of<DataError>([&] { (void)read_pt(folder.path()); }), HasSubstr("not a regular file"));
}

TEST(PtFile, RefusesOtherZipsByName) {
  const TemporaryFolder folder;
  const auto path = folder / "x.pt";
  const std::string none = test::pickle_of(test::op(Opcode::kNone));
  const auto refusal = [&](const std::vector<std::pair<std::string, std::string>>& records) {
    write_zip(path, records);
    std::string message = message_of<DataError>([&] { (void)read_pt(path); });
    EXPECT_THAT(message, HasSubstr(path.string()));
    return message;
  };
  EXPECT_THAT(refusal({{"a/b.txt", "x"}}), HasSubstr("without data.pkl"));
  EXPECT_THAT(refusal({{"data.pkl", none}}), HasSubstr("without data.pkl"));
  EXPECT_THAT(refusal({{"a/data.pkl", none}, {"b/data.pkl", none}}), HasSubstr("two data.pkl"));
  EXPECT_THAT(refusal({{"a/data.pkl", none}, {"a/constants.pkl", none}}), HasSubstr("TorchScript"));
  EXPECT_THAT(refusal({{"a/data.pkl", none}, {"a/byteorder", "middle"}}),
              HasSubstr("neither little nor big"));
  EXPECT_THAT(refusal({{"a/data.pkl", ""}}), HasSubstr("ends within"));
  write_zip(path, {{"a/data.pkl", none}, {"a/../../etc/passwd", "x"}, {"/etc/passwd", "y"}});
  EXPECT_TRUE(read_pt(path).value.is_none());  // records are looked up by name and never unpacked
}

TEST(PtFile, RefusesStoragesThatAreNotWhatThePickleSays) {
  const TemporaryFolder folder;
  const auto path = folder / "x.pt";
  const auto refusal = [&](const std::string& body, const std::string& key, std::size_t bytes) {
    write_zip(path, {{"a/data.pkl", test::pickle_of(body)}, {"a/data/" + key, std::string(bytes, 'x')}});
    std::string message = message_of<DataError>([&] { (void)read_pt(path); });
    EXPECT_THAT(message, HasSubstr(path.string()));
    return message;
  };
  const auto of = [](const std::string& type, std::int64_t elements) {
    return test::tensor(0, test::numbers({1}), test::numbers({1}), test::storage(type, "0", elements));
  };
  EXPECT_THAT(refusal(of("FloatStorage", 16), "1", 64), HasSubstr("storage 0 has no record"));
  EXPECT_THAT(refusal(of("FloatStorage", 16), "0", 63), HasSubstr("63 bytes where 16 elements of 4"));
  EXPECT_THAT(refusal(of("FloatStorage", 15), "0", 64), HasSubstr("64 bytes where 15"));
  EXPECT_THAT(refusal(of("DoubleStorage", 16), "0", 64), HasSubstr("16 elements of 8"));
  EXPECT_THAT(refusal(of("FloatStorage", std::int64_t{1} << 62), "0", 0), HasSubstr("0 bytes"));
}

}  // namespace
}  // namespace voca::engine
