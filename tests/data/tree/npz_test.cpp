#include "data/tree/npz.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <random>

#include "data/tree/convert.h"
#include "tests/data/support/scratch.h"
#include "tests/engine/support/mutate.h"
#include "tests/support/allocations.h"

namespace voca::data {
namespace {

using engine::DType;
using testing::golden;
using ::testing::HasSubstr;
using testing::message_of;
using testing::Scratch;

/// The golden array: (7, 6), row i, column j is i + j / 16.
void expect_golden_values(const Array& array) {
  ASSERT_EQ(array.shape, (std::vector<std::int64_t>{7, 6}));
  std::vector<float> values(42);
  const NarrowResult result =
      narrow(array.dtype, array.data.data(), 42, DType::kF32, reinterpret_cast<std::byte*>(values.data()));
  ASSERT_EQ(result.not_finite, -1);
  for (std::size_t i = 0; i < 42; ++i)
    ASSERT_EQ(values[i], static_cast<float>(i / 6) + static_cast<float>(i % 6) / 16.0F) << "element " << i;
}

ArrayFault fault_of(const std::filesystem::path& path) {
  try {
    static_cast<void>(NpzReader(path).read("embeddings"));
  } catch (const ArrayError& error) {
    EXPECT_THAT(error.what(), HasSubstr(path.string()));
    EXPECT_EQ(error.code(), engine::ExitCode::kBadData);
    return error.fault();
  }
  ADD_FAILURE() << path << " was read";
  return ArrayFault::kUnreadable;
}

struct GoldenCase {
  const char* name;
  DType dtype;
};

class NumpyFile : public ::testing::TestWithParam<GoldenCase> {};

TEST_P(NumpyFile, IsReadAsNumpyWroteIt) {
  const NpzReader reader(golden(GetParam().name));
  const NpyHeader header = reader.header("embeddings");
  EXPECT_EQ(header.dtype, GetParam().dtype);
  EXPECT_EQ(header.shape, (std::vector<std::int64_t>{7, 6}));
  const Array array = reader.read("embeddings");
  EXPECT_EQ(array.dtype, GetParam().dtype);
  expect_golden_values(array);
}

INSTANTIATE_TEST_SUITE_P(
    Npz, NumpyFile,
    ::testing::Values(GoldenCase{"stored_f32.npz", DType::kF32}, GoldenCase{"deflated_f32.npz", DType::kF32},
                      GoldenCase{"stored_f16.npz", DType::kF16}, GoldenCase{"deflated_f64.npz", DType::kF64},
                      GoldenCase{"big_endian.npz", DType::kF32}, GoldenCase{"fortran.npz", DType::kF64},
                      GoldenCase{"header_1.npz", DType::kF32}, GoldenCase{"header_2.npz", DType::kF32},
                      GoldenCase{"header_3.npz", DType::kF32}, GoldenCase{"more_keys.npz", DType::kF32}));

TEST(Npz, OtherKeysAreReadOnlyWhenAskedFor) {
  const NpzReader reader(golden("more_keys.npz"));
  EXPECT_TRUE(reader.has("objects"));
  EXPECT_FALSE(reader.has("labels"));
  const Array labels = reader.read("frame_labels");
  ASSERT_EQ(labels.dtype, DType::kI32);
  ASSERT_EQ(labels.elements(), 7);
  std::vector<std::int32_t> values(7);
  std::memcpy(values.data(), labels.data.data(), labels.data.size);
  EXPECT_EQ(values, (std::vector<std::int32_t>{0, 0, 1, 1, 1, 0, 0}));
  EXPECT_TRUE(reader.read("fps").shape.empty());
  EXPECT_THAT(message_of([&] { static_cast<void>(reader.read("objects")); }), HasSubstr("'|O'"));
  EXPECT_THAT(message_of([&] { static_cast<void>(reader.read("paths")); }), HasSubstr("'<U"));
}

TEST(Npz, WhatIsNoArrayOfNumbersIsRefusedByName) {
  EXPECT_EQ(fault_of(golden("complex.npz")), ArrayFault::kType);
  EXPECT_EQ(fault_of(golden("objects.npz")), ArrayFault::kType);
  EXPECT_EQ(fault_of(golden("structured.npz")), ArrayFault::kType);
  EXPECT_EQ(fault_of(golden("another_key.npz")), ArrayFault::kMissing);
  EXPECT_EQ(fault_of(golden("bzip2.npz")), ArrayFault::kDamaged);
}

TEST(Npz, WhatCannotBeOpenedIsUnreadable) {
  const Scratch scratch;
  EXPECT_EQ(fault_of(scratch / "nothing.npz"), ArrayFault::kUnreadable);
  EXPECT_EQ(fault_of(scratch.path()), ArrayFault::kUnreadable);
  std::filesystem::create_symlink("loop.npz", scratch / "loop.npz");
  EXPECT_EQ(fault_of(scratch / "loop.npz"), ArrayFault::kUnreadable);
  ASSERT_EQ(::mkfifo((scratch / "pipe.npz").c_str(), 0600), 0);
  EXPECT_EQ(fault_of(scratch / "pipe.npz"), ArrayFault::kUnreadable);
}

TEST(Npz, ALargeHonestArrayOfZerosIsRead) {
  const Array array = NpzReader(golden("zeros.npz")).read("embeddings");
  ASSERT_EQ(array.shape, (std::vector<std::int64_t>{2500, 1000}));
  std::byte any{0};
  for (const std::byte byte : array.data.span()) any |= byte;
  EXPECT_EQ(any, std::byte{0});
}

TEST(Npz, AnArrayThatIsThereTwiceIsRefused) {
  EXPECT_EQ(fault_of(golden("twice.npz")), ArrayFault::kDamaged);
  EXPECT_THAT(message_of([] { static_cast<void>(NpzReader(golden("twice.npz")).header("embeddings")); }),
              HasSubstr("two records named embeddings.npy"));
}

TEST(Npz, AMissingArrayIsToldWithWhatIsThere) {
  EXPECT_THAT(message_of([] { static_cast<void>(NpzReader(golden("another_key.npz")).read("embeddings")); }),
              HasSubstr("has no array 'embeddings' (found features.npy)"));
  EXPECT_THAT(NpzReader(golden("more_keys.npz")).keys(),
              ::testing::UnorderedElementsAre("paths", "objects", "fps", "frame_labels", "embeddings"));
}

TEST(Npz, WorkGrowsWithTheNumberOfArrays) {
  const Scratch scratch;
  const std::vector<float> value{1};
  const auto work = [&](int count) {
    std::vector<NamedArray> arrays;
    for (int i = 0; i < count; ++i)
      arrays.push_back({"a" + std::to_string(i), DType::kF32, {1}, std::as_bytes(std::span(value))});
    write_npz(scratch / "many.npz", arrays, false);
    const std::int64_t before = voca::test::allocations();
    const NpzReader reader(scratch / "many.npz");
    for (const NamedArray& array : arrays) EXPECT_EQ(reader.header(array.name).elements(), 1);
    return voca::test::allocations() - before;
  };
  const std::int64_t few = work(100);
  EXPECT_LE(work(1000), 11 * few);
}

TEST(Npz, AnotherKindOfFileIsNamed) {
  const Scratch scratch;
  const auto refusal = [&](std::string_view content) {
    testing::write_bytes(scratch / "x.npz", std::as_bytes(std::span(content)));
    return message_of([&] { NpzReader(scratch / "x.npz"); });
  };
  EXPECT_THAT(refusal("<!DOCTYPE html><title>Sign in</title>"), HasSubstr("is an HTML page"));
  EXPECT_THAT(refusal("version https://git-lfs.github.com/spec/v1\n"), HasSubstr("git lfs pull"));
  EXPECT_THAT(refusal(""), HasSubstr("is an empty file"));
  EXPECT_THAT(refusal("PK\x03\x04 embeddings.npy and no more"), HasSubstr("truncated"));
}

/// The four bytes at the end of `text` in a file, replaced.
void patch(std::vector<std::byte>& bytes, std::size_t at, std::uint32_t value) {
  std::memcpy(&bytes.at(at), &value, sizeof value);
}

std::size_t central_directory(const std::vector<std::byte>& bytes) {
  for (std::size_t i = bytes.size() - 4; i > 0; --i) {
    if (std::memcmp(&bytes[i], "PK\x01\x02", 4) == 0) return i;
  }
  ADD_FAILURE() << "no central directory";
  return 0;
}

TEST(Npz, ABombIsRefusedBeforeMemoryIsTaken) {
  const Scratch scratch;
  std::vector<std::byte> bytes = testing::read_bytes(golden("deflated_f32.npz"));
  patch(bytes, central_directory(bytes) + 24, 0xF0000000U);  // four gigabytes out of 170 bytes
  testing::write_bytes(scratch / "bomb.npz", bytes);
  EXPECT_EQ(fault_of(scratch / "bomb.npz"), ArrayFault::kDamaged);
  EXPECT_THAT(message_of([&] { static_cast<void>(NpzReader(scratch / "bomb.npz").header("embeddings")); }),
              HasSubstr("record embeddings.npy claims to expand further than deflate can"));
}

TEST(Npz, AChangedByteOfContentIsACrcError) {
  const Scratch scratch;
  std::vector<std::byte> bytes = testing::read_bytes(golden("stored_f32.npz"));
  bytes[central_directory(bytes) - 3] ^= std::byte{1};  // the last element
  testing::write_bytes(scratch / "flip.npz", bytes);
  EXPECT_EQ(fault_of(scratch / "flip.npz"), ArrayFault::kChecksum);
}

class SmallFile : public ::testing::TestWithParam<const char*> {};

/// Reads a damaged copy; its content must be the original's or an ArrayError must say what is wrong.
void expect_equal_or_refused(const std::filesystem::path& path, const std::string& what) {
  try {
    const Array array = NpzReader(path).read("embeddings");
    SCOPED_TRACE(what);
    expect_golden_values(array);
  } catch (const ArrayError&) {
    SUCCEED();
  }
}

TEST_P(SmallFile, TruncatedAnywhereIsRefused) {
  const Scratch scratch;
  const std::vector<std::byte> bytes = testing::read_bytes(golden(GetParam()));
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    testing::write_bytes(scratch / "cut.npz", std::span(bytes).first(length));
    EXPECT_THROW(static_cast<void>(NpzReader(scratch / "cut.npz").read("embeddings")), ArrayError)
        << "at " << length;
  }
}

TEST_P(SmallFile, AnyFlippedBitIsHarmlessOrRefused) {
  const Scratch scratch;
  std::vector<std::byte> bytes = testing::read_bytes(golden(GetParam()));
  for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    const std::byte mask{static_cast<unsigned char>(1U << (bit % 8))};
    bytes[bit / 8] ^= mask;
    testing::write_bytes(scratch / "flip.npz", bytes);
    expect_equal_or_refused(scratch / "flip.npz", "bit " + std::to_string(bit));
    bytes[bit / 8] ^= mask;
  }
}

INSTANTIATE_TEST_SUITE_P(Npz, SmallFile,
                         ::testing::Values("stored_f32.npz", "deflated_f32.npz", "header_3.npz"));

/// An array file whose header is `text`.
std::vector<std::byte> npy_with_header(const std::string& text, std::size_t declared) {
  std::string file = "\x93NUMPY";
  file += {'\x01', '\x00', static_cast<char>(declared % 256), static_cast<char>(declared / 256)};
  file += text;
  const auto bytes = std::as_bytes(std::span(file));
  return {bytes.begin(), bytes.end()};
}

ArrayFault header_fault(const std::string& text) {
  try {
    const std::vector<std::byte> bytes = npy_with_header(text, text.size());
    static_cast<void>(parse_npy_header(bytes, "x"));
  } catch (const ArrayError& error) {
    return error.fault();
  }
  return ArrayFault::kUnreadable;  // stands for: accepted
}

TEST(Npy, HeadersThatAreNotWhatNumpyWritesAreRefused) {
  EXPECT_EQ(header_fault("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }"),
            ArrayFault::kUnreadable);
  EXPECT_EQ(header_fault("{'shape': (1L, 2L), 'fortran_order': True, 'descr': \">f8\"}  \n"),
            ArrayFault::kUnreadable);
  EXPECT_EQ(header_fault(""), ArrayFault::kDamaged);
  EXPECT_EQ(header_fault("{'descr': '<f4', 'fortran_order': False}"), ArrayFault::kDamaged);
  EXPECT_EQ(header_fault("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': ()}"),
            ArrayFault::kDamaged);
  EXPECT_EQ(header_fault("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} x"), ArrayFault::kDamaged);
  EXPECT_EQ(header_fault("{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}"), ArrayFault::kDamaged);
  EXPECT_EQ(header_fault("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 'a')}"), ArrayFault::kShape);
  EXPECT_EQ(header_fault("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}"), ArrayFault::kShape);
  EXPECT_EQ(header_fault("{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 3)}"),
            ArrayFault::kShape);
  EXPECT_EQ(header_fault("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}"),
            ArrayFault::kShape);
  EXPECT_EQ(header_fault("{'descr': '<c8', 'fortran_order': False, 'shape': (1,)}"), ArrayFault::kType);
  EXPECT_EQ(header_fault("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}"),
            ArrayFault::kType);
}

std::string header_of(const std::string& descr, const std::string& shape, const std::string& end = "\n") {
  return "{'descr': " + descr + ", 'fortran_order': False, 'shape': " + shape + ", }" + end;
}

/// What numpy.load (2.4) makes of each.
TEST(Npy, TypesAreWhatNumpyTakesThemFor) {
  struct Case {
    const char* descr;
    DType dtype;
    bool big_endian = false;
  };
  for (const Case& c :
       std::vector<Case>{{"'<f4'", DType::kF32},    {"'f4'", DType::kF32},       {"'float32'", DType::kF32},
                         {"'=f4'", DType::kF32},    {"'|f4'", DType::kF32},      {"'>f4'", DType::kF32, true},
                         {"'f'", DType::kF32},      {"'<f'", DType::kF32},       {"'single'", DType::kF32},
                         {"'half'", DType::kF16},   {"'e'", DType::kF16},        {"\"float16\"", DType::kF16},
                         {"'double'", DType::kF64}, {"'>d'", DType::kF64, true}, {"'float64'", DType::kF64},
                         {"'uint8'", DType::kU8},   {"'B'", DType::kU8},         {"'|u1'", DType::kU8},
                         {"'int8'", DType::kI8},    {"'b'", DType::kI8},         {"'>i1'", DType::kI8},
                         {"'int16'", DType::kI16},  {"'int32'", DType::kI32},    {"'i'", DType::kI32},
                         {"'int64'", DType::kI64},  {"'q'", DType::kI64},        {"'bool'", DType::kBool},
                         {"'?'", DType::kBool},     {"'<b1'", DType::kBool}}) {
    const std::string text = header_of(c.descr, "(3, 2)");
    const NpyHeader header = parse_npy_header(npy_with_header(text, text.size()), "x");
    EXPECT_EQ(header.dtype, c.dtype) << c.descr;
    EXPECT_EQ(header.big_endian, c.big_endian) << c.descr;
  }
  for (const char* descr :
       {"'<float32'", "'>half'", "'f4 '", "' f4'", "'F4'", "'Float32'", "'float_'", "'!f4'", "'f4,f4'", "''",
        "'<'", "'f'4", "'<f16'", "'O'", "'|O'", "'<U3'", "'float32\x1b[2J'"})
    EXPECT_NE(header_fault(header_of(descr, "(3, 2)")), ArrayFault::kUnreadable) << descr;
}

TEST(Npy, ShapesAreTuplesOfPythonsNumbers) {
  for (const char* shape : {"()", "(6,)", "(2,3)", "(2, 3,)", "( 2 ,\n3 )", "(0,3)", "(00,3)", "(2L,3L)"})
    EXPECT_EQ(header_fault(header_of("'<f4'", shape)), ArrayFault::kUnreadable) << shape;
  for (const char* shape : {"(6)", "(02,3)", "(2,007)", "(,)", "(2,,3)", "[2,3]", "2", "(2l,3)", "(2.0,)",
                            "(-2,)", "(1+1,)", "(True,3)", "(2 3)", "(2", "((2,3)"})
    EXPECT_NE(header_fault(header_of("'<f4'", shape)), ArrayFault::kUnreadable) << shape;
  EXPECT_EQ(header_fault(header_of("'<f4'", "(6)")), ArrayFault::kShape);
}

TEST(Npy, LinesMayEndInAnyWay) {
  for (const char* end : {"", "\n", "\r\n", " \r\n", "\r", "\f\n", "\t \n\n"})
    EXPECT_EQ(header_fault(header_of("'<f4'", "(2,3)", end)), ArrayFault::kUnreadable);
  for (const std::string& end :
       {std::string(1, '\0'), std::string("\v\n"), std::string(";\n"), std::string("x")})
    EXPECT_EQ(header_fault(header_of("'<f4'", "(2,3)", end)), ArrayFault::kDamaged);
}

TEST(Npy, AHeaderHasTenThousandBytesAtMost) {
  const std::string text = header_of("'<f4'", "(2,3)");
  const auto padded = [&](std::size_t bytes) { return text + std::string(bytes - text.size(), ' '); };
  EXPECT_EQ(header_fault(padded(10'000)), ArrayFault::kUnreadable);
  EXPECT_EQ(header_fault(padded(10'001)), ArrayFault::kDamaged);
}

TEST(Npy, AnyMutationOfAHeaderIsReadOrRefused) {
  std::mt19937_64 random(3);
  int read = 0;
  for (int i = 0; i < 20'000; ++i) {
    const std::string text = engine::test::mutate(header_of("'<f4'", "(2, 3)", " \r\n"), random);
    const std::vector<std::byte> bytes = npy_with_header(text, text.size());
    try {
      if (npy_header_bytes(bytes, "x") != bytes.size()) continue;
      EXPECT_GE(parse_npy_header(bytes, "x").elements(), 0) << text;
      ++read;
    } catch (const ArrayError& error) {
      EXPECT_THAT(error.what(), ::testing::StartsWith("x: "));
    }
  }
  EXPECT_GT(read, 50);
}

TEST(Npy, VersionsAndLengthsBeyondTheFormatAreRefused) {
  std::vector<std::byte> bytes = npy_with_header("{}", 2);
  bytes[6] = std::byte{4};
  EXPECT_THROW(static_cast<void>(npy_header_bytes(bytes, "x")), ArrayError);
  bytes[6] = std::byte{2};  // now the length is four bytes, of which two are text: "{}" is far too long
  EXPECT_THAT(message_of([&] { static_cast<void>(npy_header_bytes(bytes, "x")); }),
              HasSubstr("NumPy reads 10000 at most"));
  EXPECT_THROW(static_cast<void>(npy_header_bytes(std::span(bytes).first(8), "x")), ArrayError);
}

TEST(NpzWriter, WhatIsWrittenIsReadBackAndEqualBytesComeOfEqualArrays) {
  const Scratch scratch;
  const std::vector<float> values{1.0F, -2.5F, 3.25F, 0.0F, 1e30F, -0.0F};
  const std::vector<std::int32_t> labels{0, 1, 1};
  for (const bool compressed : {false, true}) {
    const std::vector<NamedArray> arrays{
        {"embeddings", DType::kF32, {3, 2}, std::as_bytes(std::span(values))},
        {"frame_labels", DType::kI32, {3}, std::as_bytes(std::span(labels))}};
    write_npz(scratch / "a.npz", arrays, compressed);
    write_npz(scratch / "b.npz", arrays, compressed);
    EXPECT_EQ(testing::read_bytes(scratch / "a.npz"), testing::read_bytes(scratch / "b.npz"));
    const NpzReader reader(scratch / "a.npz");
    const Array read = reader.read("embeddings");
    EXPECT_EQ(read.shape, (std::vector<std::int64_t>{3, 2}));
    EXPECT_EQ(std::memcmp(read.data.data(), values.data(), read.data.size), 0);
    EXPECT_EQ(reader.read("frame_labels").shape, std::vector<std::int64_t>{3});
  }
  const std::vector<NamedArray> labels_only{{"x", DType::kI32, {3}, std::as_bytes(std::span(labels))}};
  EXPECT_THROW(write_npz(scratch.path() / "no" / "folder.npz", labels_only, false), engine::IoError);
}

}  // namespace
}  // namespace voca::data
