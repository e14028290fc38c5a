#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <limits>
#include <random>

#include "data/packed/dataset.h"
#include "data/packed/pack.h"
#include "engine/base/error.h"
#include "tests/data/support/scratch.h"

// What the HDF5 library crashes on, clips or makes up, in files of this program and of h5py.

namespace voca::data {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using testing::golden;
using ::testing::HasSubstr;
using testing::message_of;
using testing::Scratch;
using ::testing::StartsWith;

/// Three videos, packed.
std::vector<std::byte> packed_bytes(const Scratch& scratch, std::uint64_t split_seed = 0) {
  testing::write_video(scratch / "tree/fake/id00001_a", 3, 4, 0.0);
  testing::write_video(scratch / "tree/fake/id00002_b", 5, 5, 20.0);
  testing::write_video(scratch / "tree/real/id00003_c", 4, 3, 40.0);
  PackOptions options;
  options.features_root = scratch / "tree";
  options.out = scratch / "packed.h5";
  options.split_seed = split_seed;
  pack_features(options);
  return testing::read_bytes(options.out);
}

/// The bytes of h5py's file with the size of the first object of its first global heap replaced.
std::vector<std::byte> with_heap_object_of(std::uint64_t size) {
  std::vector<std::byte> bytes = testing::read_bytes(golden("contiguous.h5"));
  constexpr std::string_view kSignature = "GCOL";
  const auto heap = std::search(bytes.begin(), bytes.end(), kSignature.begin(), kSignature.end(),
                                [](std::byte a, char b) { return a == static_cast<std::byte>(b); });
  constexpr std::size_t kSizeAt = 16 + 8;  // the collection's head, the object's index and count
  std::memcpy(&*heap + kSizeAt, &size, sizeof(size));
  return bytes;
}

TEST(DamagedHdf5, AHeapThatTheLibraryCrashesOnOrLoopsInIsAnErrorThatNamesTheAttribute) {
  const Scratch scratch;
  for (const std::uint64_t below : {1U, 16U}) {
    testing::write_bytes(scratch / "a.h5", with_heap_object_of(std::uint64_t{0} - below));
    const auto open = [&] { Dataset(scratch / "a.h5"); };
    EXPECT_THROW(open(), engine::DataError);
    EXPECT_THAT(message_of(open),
                AllOf(StartsWith((scratch / "a.h5").string() + ": damaged: the HDF5 library"),
                      HasSubstr("attribute format")));
  }
}

/// Opens a file and looks at every sample; errors of the data are as good as none.
void open_and_read(const fs::path& path) {
  try {
    const Dataset data(path);
    static_cast<void>(data.verify_all(1));
    for (std::int64_t i = 0; i < data.size(); ++i) {
      std::vector<std::byte> rows(static_cast<std::size_t>(data.frames(Stream::kVisual, i)) *
                                  data.row_bytes(Stream::kVisual));
      data.read_raw(Stream::kVisual, i, 0, data.frames(Stream::kVisual, i), rows.data());
    }
  } catch (const engine::DataError&) {
    SUCCEED();
  }
}

TEST(DamagedHdf5, NoByteThatIsReplacedCrashesAnything) {
  const Scratch scratch;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  constexpr int kTries = 100;  // a sanitizer's process takes long to fork
#else
  constexpr int kTries = 500;
#endif
  std::mt19937 random(12);
  for (const std::vector<std::byte>& good :
       {packed_bytes(scratch), testing::read_bytes(golden("contiguous.h5")),
        testing::read_bytes(golden("chunked.h5"))}) {
    // Most of a file is room between aligned pieces.
    std::vector<std::size_t> places;
    for (std::size_t i = 0; i < good.size(); ++i)
      if (good[i] != std::byte{0} || i % 64 == 0) places.push_back(i);
    for (int i = 0; i < kTries; ++i) {
      std::vector<std::byte> bytes = good;
      constexpr std::array<unsigned, 4> kTelling{0, 0x7f, 0x80, 0xff};
      const std::size_t place = places[random() % places.size()] + random() % 2;
      bytes[std::min(place, bytes.size() - 1)] =
          static_cast<std::byte>(i % 2 == 0 ? kTelling[random() % kTelling.size()] : random() & 0xff);
      testing::write_bytes(scratch / "b.h5", bytes);
      open_and_read(scratch / "b.h5");
    }
  }
}

/// Puts a dataset of one row in the place of another one.
template <typename T>
void replace(hid_t file, const char* name, hid_t file_type, hid_t memory_type, const std::vector<T>& values) {
  if (H5Lexists(file, name, H5P_DEFAULT) > 0) H5Ldelete(file, name, H5P_DEFAULT);
  const hsize_t count = values.size();
  const hid_t space = H5Screate_simple(1, &count, nullptr);
  const hid_t dataset = H5Dcreate2(file, name, file_type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  ASSERT_GE(H5Dwrite(dataset, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0);
  H5Dclose(dataset);
  H5Sclose(space);
}

void replace_attribute(hid_t file, const char* name, hid_t file_type, hid_t memory_type, const void* value) {
  if (H5Aexists(file, name) > 0) H5Adelete(file, name);
  const hid_t space = H5Screate(H5S_SCALAR);
  const hid_t attribute = H5Acreate2(file, name, file_type, space, H5P_DEFAULT, H5P_DEFAULT);
  ASSERT_GE(H5Awrite(attribute, memory_type, value), 0);
  H5Aclose(attribute);
  H5Sclose(space);
}

/// What opening says of h5py's file after a change through the library.
std::string refusal_of(const fs::path& path, const std::function<void(hid_t)>& change,
                       const char* original = "contiguous.h5") {
  testing::write_bytes(path, testing::read_bytes(golden(original)));
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  EXPECT_GE(file, 0);
  change(file);
  EXPECT_GE(H5Fclose(file), 0);
  return message_of([&] { const Dataset data(path); });
}

TEST(DamagedHdf5, NumbersOutOfRangeAreNamedAndNotClipped) {
  using Numbers = std::vector<std::int64_t>;
  struct Case {
    const char* dataset;
    Numbers values;
    const char* says;
  };
  constexpr std::int64_t k32 = std::int64_t{1} << 32;
  const std::vector<Case> cases{
      {"/labels", {1, -1}, "/labels: entry 1 (fake/id00002_b) is -1; 0 to 255 is expected"},
      {"/labels", {k32, 0}, "/labels: entry 0 (real/id00001_é) is 4294967296; 0 to 255 is expected"},
      {"/split", {-1, 2}, "/split: entry 0 (real/id00001_é) is -1"},
      {"/split", {0, 256}, "/split: entry 1 (fake/id00002_b) is 256"},
      {"/groups", {k32, 0}, "/groups: entry 0 (real/id00001_é) is 4294967296"},
      {"/checksums", {-1, 0}, "/checksums: entry 0 (real/id00001_é) is -1"},
      {"/checksums", {0, k32}, "/checksums: entry 1 (fake/id00002_b) is 4294967296"},
      {"/frame_labels", {0, 0, 0, 0, -1, 0, 0}, "/frame_labels: entry 4 (fake/id00002_b) is -1"},
  };
  const Scratch scratch;
  for (const Case& c : cases) {
    const std::string message = refusal_of(scratch / "a.h5", [&](hid_t file) {
      replace(file, c.dataset, H5T_STD_I64LE, H5T_NATIVE_INT64, c.values);
    });
    EXPECT_THAT(message, AllOf(StartsWith((scratch / "a.h5").string()), HasSubstr(c.says)));
  }
  constexpr std::uint64_t kMax = std::numeric_limits<std::uint64_t>::max();
  EXPECT_THAT(refusal_of(scratch / "a.h5",
                         [&](hid_t file) {
                           replace(file, "/visual/offsets", H5T_STD_U64LE, H5T_NATIVE_UINT64,
                                   std::vector<std::uint64_t>{0, kMax, 7});
                         }),
              HasSubstr("/visual/offsets: entry 1 (fake/id00002_b) is 18446744073709551615"));
  EXPECT_THAT(refusal_of(scratch / "a.h5",
                         [&](hid_t file) {
                           replace_attribute(file, "visual_dim", H5T_STD_U64LE, H5T_NATIVE_UINT64, &kMax);
                         }),
              HasSubstr("attribute visual_dim is 18446744073709551615"));
  constexpr std::int64_t kNegative = -3;
  EXPECT_THAT(refusal_of(scratch / "a.h5",
                         [&](hid_t file) {
                           replace_attribute(file, "split_seed", H5T_STD_I64LE, H5T_NATIVE_INT64, &kNegative);
                         }),
              HasSubstr("attribute split_seed is -3; 0 to 18446744073709551615 is expected"));
}

TEST(DamagedHdf5, NumbersOfOtherWidthsAreTakenWithinTheirRange) {
  const Scratch scratch;
  const std::string message = refusal_of(scratch / "a.h5", [&](hid_t file) {
    replace(file, "/labels", H5T_STD_I64BE, H5T_NATIVE_INT64, std::vector<std::int64_t>{1, 255});
    replace(file, "/split", H5T_STD_U16LE, H5T_NATIVE_INT64, std::vector<std::int64_t>{2, 1});
    replace(file, "/groups", H5T_STD_I8LE, H5T_NATIVE_INT64, std::vector<std::int64_t>{-1, 7});
    constexpr std::int64_t kSeed = 5;
    replace_attribute(file, "split_seed", H5T_STD_I32LE, H5T_NATIVE_INT64, &kSeed);
  });
  EXPECT_EQ(message, "");
  const Dataset data(scratch / "a.h5");
  EXPECT_EQ(data.label(0), kReal);
  EXPECT_EQ(data.label(1), -1);
  EXPECT_EQ(data.split(0), Split::kTest);
  EXPECT_EQ(data.group(0), -1);
  EXPECT_EQ(data.group(1), 7);
  EXPECT_EQ(data.summary().split_seed, 5U);
}

TEST(DamagedHdf5, TheLargestSeedIsReadAsItWasWritten) {
  const Scratch scratch;
  constexpr std::uint64_t kMax = std::numeric_limits<std::uint64_t>::max();
  static_cast<void>(packed_bytes(scratch, kMax));
  EXPECT_EQ(Dataset(scratch / "packed.h5").summary().split_seed, kMax);
}

/// Frames of zeros, (7, 6) as in the golden files or as told, in chunks; `filters` adds to the creation list.
struct ChunkedFrames {
  std::array<hsize_t, 2> shape{7, 6};
  std::array<hsize_t, 2> chunk{2, 6};
  std::function<void(hid_t)> filters = [](hid_t) {};
  hsize_t rows_written = 7;

  void replace_in(hid_t file) const {
    H5Ldelete(file, "/visual/frames", H5P_DEFAULT);
    const hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(list, 2, chunk.data());
    H5Pset_alloc_time(list, H5D_ALLOC_TIME_INCR);
    filters(list);
    constexpr std::array<hsize_t, 2> kMax{H5S_UNLIMITED, H5S_UNLIMITED};
    const hid_t space = H5Screate_simple(2, shape.data(), kMax.data());
    const hid_t frames =
        H5Dcreate2(file, "/visual/frames", H5T_IEEE_F32LE, space, H5P_DEFAULT, list, H5P_DEFAULT);
    ASSERT_GE(frames, 0);
    const std::array<hsize_t, 2> count{rows_written, shape[1]};
    const std::array<hsize_t, 2> start{0, 0};
    const hid_t memory = H5Screate_simple(2, count.data(), nullptr);
    H5Sselect_hyperslab(space, H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr);
    const std::vector<float> zeros(count[0] * count[1]);
    ASSERT_GE(H5Dwrite(frames, H5T_NATIVE_FLOAT, memory, space, H5P_DEFAULT, zeros.data()), 0);
    H5Sclose(memory);
    H5Dclose(frames);
    H5Sclose(space);
    H5Pclose(list);
  }
};

std::string refusal_of(const fs::path& path, const ChunkedFrames& frames) {
  return refusal_of(path, [&](hid_t file) { frames.replace_in(file); });
}

TEST(DamagedHdf5, ChunksThatWereNeverWrittenAreNoZeros) {
  const Scratch scratch;
  const auto gzip = [](hid_t list) { H5Pset_deflate(list, 9); };
  EXPECT_EQ(refusal_of(scratch / "a.h5", ChunkedFrames{.filters = gzip}), "");
  EXPECT_EQ(refusal_of(scratch / "a.h5", ChunkedFrames{}), "");
  for (const hsize_t rows : {1U, 2U, 6U}) {
    const std::string first_missing = rows == 1 ? "2" : std::to_string(rows);
    const std::string says =
        "damaged: the chunk of /visual/frames at (" + first_missing + ", 0) was never written";
    // One chunk of four deflates to less than all of the data could.
    EXPECT_THAT(refusal_of(scratch / "a.h5", ChunkedFrames{.filters = gzip, .rows_written = rows}),
                HasSubstr(says));
  }
}

/// The most memory that opening the file took beyond what the process had, in a process of its own.
std::int64_t resident_growth(const fs::path& path) {
  const auto peak = [] {
    rusage usage{};
    ::getrusage(RUSAGE_CHILDREN, &usage);
    return usage.ru_maxrss * 1024;
  };
  const std::int64_t before = peak();
  static_cast<void>(message_of([&] { const Dataset data(path); }));
  return peak() - before;
}

TEST(DamagedHdf5, ChunksFarLargerThanTheDataAndRepeatedFiltersAreRefused) {
  const Scratch scratch;
  const auto gzip = [](hid_t list) { H5Pset_deflate(list, 9); };
  const auto twice = [](hid_t list) {
    H5Pset_deflate(list, 9);
    H5Pset_deflate(list, 9);
  };
  static_cast<void>(packed_bytes(scratch));  // opens a file of no more
  Dataset(scratch / "packed.h5");
  const ChunkedFrames huge{.chunk = {std::uint64_t{4} << 20, 6}, .filters = gzip};
  EXPECT_THAT(refusal_of(scratch / "a.h5", huge),
              HasSubstr("/visual/frames has chunks of (4194304, 6) for data of (7, 6)"));
  EXPECT_LT(resident_growth(scratch / "a.h5"), std::int64_t{32} << 20);
  EXPECT_THAT(refusal_of(scratch / "a.h5", ChunkedFrames{.filters = twice}),
              HasSubstr("/visual/frames has the filter gzip twice"));
  EXPECT_THAT(refusal_of(scratch / "a.h5", ChunkedFrames{.filters = [](hid_t list) { H5Pset_nbit(list); }}),
              HasSubstr("/visual/frames is compressed with the filter N-bit (5), which is not read"));
  // A chunk of a file that may grow is larger than what is in it yet.
  EXPECT_EQ(refusal_of(scratch / "a.h5", ChunkedFrames{.chunk = {1024, 6}, .filters = gzip}), "");
}

}  // namespace
}  // namespace voca::data
