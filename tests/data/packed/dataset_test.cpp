#include "data/packed/dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <thread>

#include "data/packed/frame_reader.h"
#include "data/packed/pack.h"
#include "engine/base/error.h"
#include "tests/data/support/scratch.h"

namespace voca::data {
namespace {

using ::testing::ElementsAre;
using testing::golden;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::message_of;
using testing::Scratch;

void pack_small(const Scratch& scratch, engine::DType dtype = engine::DType::kF32) {
  testing::write_video(scratch / "tree/fake/id00001_a", 3, 4, 0.0, dtype);
  testing::write_video(scratch / "tree/fake/id00002_b", 5, 5, 20.0, dtype);
  testing::write_video(scratch / "tree/real/id00003_c", 4, 3, 40.0, dtype);
  PackOptions options;
  options.features_root = scratch / "tree";
  options.out = scratch / "a.h5";
  options.group_by = GroupBy::parse("identity").value();
  pack_features(options);
}

/// Everything a dataset gives out, in one string of bytes.
std::string content_of(const Dataset& data) {
  std::string all = data.content_hash() + data.split_hash();
  for (std::int64_t i = 0; i < data.size(); ++i) {
    all += data.id(i) + std::to_string(data.label(i)) + std::to_string(static_cast<int>(data.split(i))) +
           std::to_string(data.group(i));
    for (const Stream stream : kStreams) {
      std::string rows(static_cast<std::size_t>(data.frames(stream, i)) * data.row_bytes(stream), '\0');
      data.read_raw(stream, i, 0, data.frames(stream, i), reinterpret_cast<std::byte*>(rows.data()));
      all += rows;
    }
  }
  return all;
}

template <typename T>
void expect_golden_rows(const Dataset& data) {
  std::vector<T> rows(2 * 6);
  data.read_rows(Stream::kVisual, 1, 1, 2, engine::kDTypeOf<T>, rows.data());
  for (std::size_t i = 0; i < rows.size(); ++i)
    EXPECT_EQ(rows[i], static_cast<T>(4 + i / 6) + static_cast<T>(i % 6) / T{16}) << i;
}

TEST(Dataset, FilesOfH5pyAreReadContiguousOrChunked) {
  for (const char* const name : {"contiguous.h5", "chunked.h5"}) {
    const Dataset data(golden(name));
    EXPECT_EQ(data.summary().direct, std::string(name) == "contiguous.h5");
    ASSERT_EQ(data.size(), 2);
    EXPECT_THAT(data.ids(), ElementsAre("real/id00001_é", "fake/id00002_b"));
    EXPECT_EQ(data.label(0), 1);
    EXPECT_EQ(data.split(1), Split::kTest);
    EXPECT_EQ(data.group(1), -1);
    EXPECT_EQ(data.frames(Stream::kAudio, 0), 4);
    EXPECT_FALSE(data.has_checksums());
    expect_golden_rows<float>(data);
    expect_golden_rows<double>(data);
  }
  EXPECT_EQ(content_of(Dataset(golden("contiguous.h5"))), content_of(Dataset(golden("chunked.h5"))));
}

TEST(Dataset, DataThatLieElsewhereAreRefused) {
  EXPECT_THAT(message_of([] { Dataset(golden("external_link.h5")); }), HasSubstr("is a link"));
  EXPECT_THAT(message_of([] { Dataset(golden("soft_link.h5")); }), HasSubstr("is a link"));
  EXPECT_THAT(message_of([] { Dataset(golden("virtual.h5")); }), HasSubstr("lies in other files"));
  EXPECT_THAT(message_of([] { Dataset(golden("external_storage.h5")); }), HasSubstr("lies in other files"));
  EXPECT_THAT(message_of([] { Dataset(golden("never_written.h5")); }), HasSubstr("cannot hold"));
}

TEST(Dataset, WhatIsNoPackedFileIsRefused) {
  const Scratch scratch;
  EXPECT_THROW(Dataset(scratch / "absent.h5"), engine::IoError);
  EXPECT_THROW(Dataset(scratch.path()), engine::DataError);
  testing::write_bytes(scratch / "empty.h5", {});
  EXPECT_THAT(message_of([&] { Dataset(scratch / "empty.h5"); }), HasSubstr("is an empty file"));
  const std::vector<std::byte> whole = testing::read_bytes(golden("contiguous.h5"));
  testing::write_bytes(scratch / "cut.h5", std::span(whole).first(whole.size() / 2));
  EXPECT_THAT(message_of([&] { Dataset(scratch / "cut.h5"); }),
              HasSubstr("is a truncated or damaged HDF5 file"));
  EXPECT_THAT(message_of([] { Dataset(golden("not_ours.h5")); }), HasSubstr("is not a packed dataset"));
  EXPECT_THAT(message_of([] { Dataset(golden("stored_f32.npz")); }),
              HasSubstr("is a NumPy archive (.npz), where a packed dataset (.h5) was expected"));
}

TEST(Dataset, AFilterThatTheLibraryLacksIsNamed) {
  EXPECT_THAT(message_of([] { Dataset(golden("lzf.h5")); }),
              HasSubstr("lzf.h5: /visual/frames is compressed with the filter LZF (32000)"));
}

/// Opens the file with the HDF5 library and changes something in it.
void edit(const std::filesystem::path& path, const std::function<void(hid_t)>& change) {
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  ASSERT_GE(file, 0);
  change(file);
  ASSERT_GE(H5Fclose(file), 0);
}

TEST(Dataset, NumbersThatAreNotFiniteAreFoundWithoutChecksums) {
  const Scratch scratch;
  for (const char* const name : {"contiguous.h5", "chunked.h5"}) {
    std::filesystem::copy_file(golden(name), scratch / name);
    EXPECT_THAT(Dataset(scratch / name).verify_all(1), IsEmpty());
    edit(scratch / name, [](hid_t file) {
      const hid_t frames = H5Dopen2(file, "/audio/frames", H5P_DEFAULT);
      const hid_t space = H5Dget_space(frames);
      const std::array<hsize_t, 2> last{5, 0};  // of the second sample: the first has four rows
      const float nan = std::numeric_limits<float>::quiet_NaN();
      ASSERT_GE(H5Sselect_elements(space, H5S_SELECT_SET, 1, last.data()), 0);
      const hsize_t one = 1;
      const hid_t number = H5Screate_simple(1, &one, nullptr);
      ASSERT_GE(H5Dwrite(frames, H5T_NATIVE_FLOAT, number, space, H5P_DEFAULT, &nan), 0);
      H5Sclose(number);
      H5Sclose(space);
      H5Dclose(frames);
    });
    const auto data = std::make_shared<const Dataset>(scratch / name);
    EXPECT_THAT(data->verify_all(2), ElementsAre(1));
    const std::vector<std::int64_t> samples{0, 1};
    const auto reader = make_host_reader(data, samples, 1);
    EXPECT_TRUE(reader->verify(0, {}));
    EXPECT_FALSE(reader->verify(1, {}));
  }
}

template <typename T>
void overwrite(hid_t file, const char* name, hid_t type, const std::vector<T>& values) {
  const hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT);
  ASSERT_GE(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0);
  H5Dclose(dataset);
}

void set_attribute(hid_t file, const char* name, std::int64_t value) {
  const hid_t attribute = H5Aopen(file, name, H5P_DEFAULT);
  ASSERT_GE(H5Awrite(attribute, H5T_NATIVE_INT64, &value), 0);
  H5Aclose(attribute);
}

struct Edit {
  const char* says;
  std::function<void(hid_t)> change;
};

TEST(Dataset, FilesThatContradictThemselvesAreRefusedByName) {
  using Offsets = std::vector<std::int64_t>;
  using Bytes = std::vector<std::uint8_t>;
  const hid_t i64 = H5T_NATIVE_INT64;
  const hid_t u8 = H5T_NATIVE_UINT8;
  const std::vector<Edit> edits{
      {"format version 2", [](hid_t f) { set_attribute(f, "version", 2); }},
      {"visual_dim is 0", [](hid_t f) { set_attribute(f, "visual_dim", 0); }},
      {"/audio/frames is not of rows 5 wide", [](hid_t f) { set_attribute(f, "audio_dim", 5); }},
      {"has no frames",
       [&](hid_t f) {
         overwrite(f, "/visual/offsets", i64, Offsets{0, 5, 3, 12});
       }},
      {"has no frames",
       [&](hid_t f) {
         overwrite(f, "/visual/offsets", i64, Offsets{0, 3, 3, 12});
       }},
      {"run from 1",
       [&](hid_t f) {
         overwrite(f, "/visual/offsets", i64, Offsets{1, 3, 8, 12});
       }},
      {"to 13",
       [&](hid_t f) {
         overwrite(f, "/visual/offsets", i64, Offsets{0, 3, 8, 13});
       }},
      {"/split: entry 1 (fake/id00002_b) is 3",
       [&](hid_t f) {
         overwrite(f, "/split", u8, Bytes{0, 3, 1});
       }},
      {"content hash",
       [&](hid_t f) {
         overwrite(f, "/labels", u8, Bytes{1, 0, 1});
       }},
      {"content hash",
       [&](hid_t f) {
         overwrite(f, "/checksums", H5T_NATIVE_UINT32, std::vector<std::uint32_t>{1, 2, 3});
       }},
      {"/groups: entry 0 (fake/id00001_a) is -5",
       [](hid_t f) {
         overwrite(f, "/groups", H5T_NATIVE_INT32, std::vector<std::int32_t>{-5, 0, 1});
       }},
      {"has no /ids", [](hid_t f) { H5Ldelete(f, "/ids", H5P_DEFAULT); }},
      {"has no /audio", [](hid_t f) { H5Ldelete(f, "/audio", H5P_DEFAULT); }},
      {"/labels has 4 entries",
       [](hid_t f) {
         H5Ldelete(f, "/labels", H5P_DEFAULT);
         H5Lcreate_hard(f, "/visual/offsets", f, "/labels", H5P_DEFAULT, H5P_DEFAULT);
       }},
      {"/ids is not one row of strings",
       [](hid_t f) {
         H5Ldelete(f, "/ids", H5P_DEFAULT);
         H5Lcreate_hard(f, "/split", f, "/ids", H5P_DEFAULT, H5P_DEFAULT);
       }},
      {"attribute dtype is missing", [](hid_t f) { H5Adelete(f, "dtype"); }},
  };
  const Scratch scratch;
  pack_small(scratch);
  const auto good = testing::read_bytes(scratch / "a.h5");
  for (const Edit& change : edits) {
    testing::write_bytes(scratch / "b.h5", good);
    edit(scratch / "b.h5", change.change);
    EXPECT_THROW(Dataset(scratch / "b.h5"), engine::DataError) << change.says;
    const std::string message = message_of([&] { Dataset(scratch / "b.h5"); });
    EXPECT_THAT(message, HasSubstr(change.says));
    EXPECT_THAT(message, HasSubstr((scratch / "b.h5").string()));
  }
}

TEST(Dataset, ATruncatedFileIsRefused) {
  const Scratch scratch;
  pack_small(scratch);
  const auto good = testing::read_bytes(scratch / "a.h5");
  for (std::size_t length = 0; length < good.size(); length += length < 256 ? 1 : 509) {
    testing::write_bytes(scratch / "b.h5", std::span(good).first(length));
    EXPECT_THROW(Dataset(scratch / "b.h5"), engine::DataError) << length;
  }
}

/// Opens and reads a damaged copy. It must be refused, or name a bad record, or give the original's content.
void expect_noticed_or_harmless(const std::filesystem::path& path, const std::string& original,
                                std::size_t bit) {
  try {
    const Dataset data(path);
    if (!data.verify_all(0).empty()) return;
    EXPECT_EQ(content_of(data), original) << "bit " << bit;
  } catch (const engine::DataError&) {
    SUCCEED();
  }
}

TEST(Dataset, AFlippedBitAnywhereIsNoticedOrHarmless) {
  const Scratch scratch;
  pack_small(scratch, engine::DType::kF16);
  auto bytes = testing::read_bytes(scratch / "a.h5");
  const std::string original = content_of(Dataset(scratch / "a.h5"));
  const std::vector<std::byte> zeros(64);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    // Most of the file is room between aligned pieces: there a byte of every 64 does.
    const bool gap = i + 64 < bytes.size() && std::memcmp(&bytes[i], zeros.data(), 64) == 0;
    if (gap && i % 64 != 0) continue;
    const std::byte mask{static_cast<unsigned char>(1U << (i * 5 % 8))};
    bytes[i] ^= mask;
    testing::write_bytes(scratch / "b.h5", bytes);
    expect_noticed_or_harmless(scratch / "b.h5", original, i * 8 + i * 5 % 8);
    bytes[i] ^= mask;
  }
  EXPECT_EQ(H5Fget_obj_count(static_cast<hid_t>(H5F_OBJ_ALL), H5F_OBJ_ALL), 0) << "handles are left open";
}

TEST(Dataset, ADamagedRecordIsNamedAndTheOthersAreNot) {
  const Scratch scratch;
  pack_small(scratch);
  std::uint64_t audio_at = 0;
  edit(scratch / "a.h5", [&](hid_t file) {
    const hid_t frames = H5Dopen2(file, "/audio/frames", H5P_DEFAULT);
    audio_at = H5Dget_offset(frames);
    H5Dclose(frames);
  });
  auto bytes = testing::read_bytes(scratch / "a.h5");
  bytes[audio_at + 4 * 4 * 4 + 7] ^= std::byte{4};  // in the first of the second video's rows
  testing::write_bytes(scratch / "b.h5", bytes);
  const Dataset data(scratch / "b.h5");
  for (const int workers : {0, 1, 4}) EXPECT_THAT(data.verify_all(workers), ElementsAre(1));
  std::vector<std::byte> scratch_rows(64);
  EXPECT_TRUE(data.verify(0, scratch_rows));
  EXPECT_FALSE(data.verify(1, scratch_rows));
}

TEST(Dataset, RowsReadFromManyThreadsAreTheOnesReadFromOne) {
  const Scratch scratch;
  pack_small(scratch);
  for (const auto& path : {scratch / "a.h5", golden("chunked.h5")}) {
    const Dataset data(path);
    const std::string expected = content_of(data);
    std::vector<std::string> read(4);
    {
      std::vector<std::jthread> threads;
      for (std::string& text : read) {
        threads.emplace_back([&] {
          for (int i = 0; i < 20; ++i) text = content_of(data);
        });
      }
    }
    for (const std::string& text : read) EXPECT_EQ(text, expected);
  }
}

TEST(Dataset, RowsOutsideASampleAreAnInternalError) {
  const Scratch scratch;
  pack_small(scratch);
  const Dataset data(scratch / "a.h5");
  std::vector<float> rows(100);
  EXPECT_THROW(data.read_rows(Stream::kVisual, 0, 1, 3, engine::DType::kF32, rows.data()),
               engine::InternalError);
  EXPECT_THROW(data.read_rows(Stream::kVisual, 3, 0, 1, engine::DType::kF32, rows.data()),
               engine::InternalError);
}

TEST(FrameReader, HostMemoryGivesWhatTheFileGives) {
  const Scratch scratch;
  for (const engine::DType dtype : {engine::DType::kF16, engine::DType::kF32}) {
    pack_small(scratch, dtype);
    const auto data = std::make_shared<const Dataset>(scratch / "a.h5");
    const auto disk = make_disk_reader(data);
    const std::vector<std::int64_t> used{2, 0};
    const auto host = make_host_reader(data, used, 2);
    EXPECT_EQ(frame_bytes(*data, used), static_cast<std::int64_t>((7 * 6 + 7 * 4) * engine::size_of(dtype)));
    for (const std::int64_t sample : used) {
      EXPECT_TRUE(host->verify(sample, {}));
      std::vector<double> a(2 * 4);
      std::vector<double> b(2 * 4);
      disk->read(Stream::kAudio, sample, 1, 2, engine::DType::kF64, a.data());
      host->read(Stream::kAudio, sample, 1, 2, engine::DType::kF64, b.data());
      EXPECT_EQ(a, b);
      std::vector<float> c(3 * 6);
      std::vector<float> d(3 * 6);
      disk->read(Stream::kVisual, sample, 0, 3, engine::DType::kF32, c.data());
      host->read(Stream::kVisual, sample, 0, 3, engine::DType::kF32, d.data());
      EXPECT_EQ(c, d);
    }
    std::vector<float> rows(6);
    EXPECT_THROW(host->read(Stream::kVisual, 1, 0, 1, engine::DType::kF32, rows.data()),
                 engine::InternalError);  // was not loaded
  }
}

TEST(FrameReader, AutoIsHostWhereThereIsRoom) {
  EXPECT_EQ(resolve_residency(Residency::kAuto, 1000), Residency::kHost);
  EXPECT_EQ(resolve_residency(Residency::kAuto, std::int64_t{1} << 60), Residency::kDisk);
  EXPECT_EQ(resolve_residency(Residency::kHost, std::int64_t{1} << 60), Residency::kHost);
  // Half of the memory is for the copies of all ranks of a machine.
  EXPECT_EQ(resolve_residency(Residency::kAuto, 1000, 1, 2000), Residency::kHost);
  EXPECT_EQ(resolve_residency(Residency::kAuto, 1000, 1, 1999), Residency::kDisk);
  EXPECT_EQ(resolve_residency(Residency::kAuto, 1000, 4, 8000), Residency::kHost);
  EXPECT_EQ(resolve_residency(Residency::kAuto, 1000, 4, 7999), Residency::kDisk);
  EXPECT_EQ(engine::value_named<Residency>("tape"), std::nullopt);
  EXPECT_EQ(engine::value_named<Residency>("disk"), Residency::kDisk);
}

}  // namespace
}  // namespace voca::data
