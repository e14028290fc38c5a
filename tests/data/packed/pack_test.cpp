#include "data/packed/pack.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>
#include <unistd.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "data/packed/dataset.h"
#include "data/tree/npz.h"
#include "engine/base/error.h"
#include "tests/data/support/scratch.h"

namespace voca::data {
namespace {

namespace fs = std::filesystem;
using engine::DType;
using ::testing::HasSubstr;
using testing::message_of;
using testing::Scratch;

/// Ten real and ten fake videos of different lengths.
void write_good_tree(const fs::path& root, DType dtype = DType::kF32) {
  for (int i = 0; i < 10; ++i) {
    const std::string name = "id0000" + std::to_string(i / 2) + "_clip" + std::to_string(i);
    testing::write_video(root / "real" / name, 3 + i, 4 + i, 10.0 * i, dtype);
    testing::write_video(root / "fake" / name, 5 + i, 4 + i, 10.0 * i - 100.0, dtype);
  }
}

PackOptions options_for(const fs::path& root, const fs::path& out) {
  PackOptions options;
  options.features_root = root;
  options.out = out;
  return options;
}

void write_embeddings(const fs::path& folder, const std::string& stream, std::vector<float> values,
                      std::vector<std::int64_t> shape) {
  fs::create_directories(folder);
  const std::vector<NamedArray> arrays{
      {"embeddings", DType::kF32, std::move(shape), std::as_bytes(std::span(values))}};
  write_npz(folder / (stream + "_embeddings.npz"), arrays, false);
}

void truncate_file(const fs::path& path, std::size_t bytes) {
  const auto content = testing::read_bytes(path);
  testing::write_bytes(path, std::span(content).first(bytes));
}

void flip_content(const fs::path& path) {
  auto content = testing::read_bytes(path);
  content[200] ^= std::byte{1};  // behind the local header and NumPy's, before the directory
  testing::write_bytes(path, content);
}

/// Every video of `data` must hold the rows that write_video wrote for `first`.
void expect_rows(const Dataset& data, std::int64_t sample, double first) {
  for (const Stream stream : kStreams) {
    const std::int64_t dim = data.dim(stream);
    std::vector<double> rows(static_cast<std::size_t>(data.frames(stream, sample) * dim));
    data.read_rows(stream, sample, 0, data.frames(stream, sample), engine::DType::kF64, rows.data());
    const double base = stream == Stream::kVisual ? first : first + 0.5;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto row = static_cast<double>(i / static_cast<std::size_t>(dim));
      const auto column = static_cast<double>(i % static_cast<std::size_t>(dim));
      ASSERT_EQ(rows[i], base + row + column / 16.0) << data.id(sample) << " " << name_of(stream) << " " << i;
    }
  }
}

TEST(Pack, HoldsTheTreeAndItsDescription) {
  const Scratch scratch;
  write_good_tree(scratch / "tree");
  PackOptions options = options_for(scratch / "tree", scratch / "a.h5");
  std::vector<std::int64_t> progress;
  options.progress = [&](std::int64_t done, std::int64_t total) {
    EXPECT_EQ(total, 20);
    progress.push_back(done);
  };
  const PackReport report = pack_features(options);
  EXPECT_EQ(report.found, 20);
  EXPECT_EQ(report.packed, 20);
  EXPECT_TRUE(report.bad.empty());
  EXPECT_EQ(report.counts[0], (std::array<std::int64_t, 3>{6, 6, 0}));
  EXPECT_EQ(report.counts[2], (std::array<std::int64_t, 3>{2, 2, 0}));
  EXPECT_EQ(progress.size(), 20U);
  EXPECT_EQ(progress.back(), 20);

  const Dataset data(scratch / "a.h5");
  ASSERT_EQ(data.size(), 20);
  EXPECT_EQ(data.dtype(), DType::kF32);
  EXPECT_EQ(data.id(0), "fake/id00000_clip0");
  EXPECT_EQ(data.id(19), "real/id00004_clip9");
  EXPECT_EQ(data.label(0), kFake);
  EXPECT_EQ(data.label(19), kReal);
  EXPECT_EQ(data.group(3), -1);
  for (std::int64_t i = 0; i < 10; ++i) {
    expect_rows(data, i, 10.0 * static_cast<double>(i) - 100.0);
    expect_rows(data, 10 + i, 10.0 * static_cast<double>(i));
  }
  EXPECT_EQ(data.frames(Stream::kVisual, 12), 5);
  EXPECT_EQ(data.frames(Stream::kAudio, 12), 6);
  EXPECT_EQ(data.frames(12), 5);
  EXPECT_EQ(data.content_hash(), report.content_hash);
  EXPECT_EQ(data.split_hash(), report.split_hash);
  EXPECT_TRUE(data.summary().direct);
  EXPECT_EQ(data.summary().group_by, "none");
  EXPECT_EQ(data.summary().split_ratios, (std::vector<double>{0.6, 0.2, 0.2}));
  EXPECT_TRUE(data.verify_all(2).empty());
}

TEST(Pack, TheFramesAreContiguousAlignedAndUnfiltered) {
  const Scratch scratch;
  write_good_tree(scratch / "tree");
  pack_features(options_for(scratch / "tree", scratch / "a.h5"));
  const hid_t file = H5Fopen((scratch / "a.h5").c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  ASSERT_GE(file, 0);
  for (const char* const name : {"/visual/frames", "/audio/frames"}) {
    const hid_t frames = H5Dopen2(file, name, H5P_DEFAULT);
    const hid_t plist = H5Dget_create_plist(frames);
    EXPECT_EQ(H5Pget_layout(plist), H5D_CONTIGUOUS);
    EXPECT_EQ(H5Pget_nfilters(plist), 0);
    EXPECT_EQ(H5Dget_offset(frames) % 4096, 0U);
    H5Pclose(plist);
    H5Dclose(frames);
  }
  H5Fclose(file);
}

TEST(Pack, BytesDependOnTreeAndOptionsAlone) {
  const Scratch scratch;
  write_good_tree(scratch / "tree");
  flip_content(scratch / "tree/real/id00002_clip4/audio_embeddings.npz");  // makes it close a gap, too
  PackOptions options = options_for(scratch / "tree", scratch / "a.h5");
  pack_features(options);
  for (const int workers : {1, 2, 5}) {
    options.out = scratch / "b.h5";
    options.num_workers = workers;
    pack_features(options);
    EXPECT_EQ(testing::read_bytes(scratch / "a.h5"), testing::read_bytes(scratch / "b.h5")) << workers;
  }
  options.split_seed = 1;
  pack_features(options);
  EXPECT_NE(testing::read_bytes(scratch / "a.h5"), testing::read_bytes(scratch / "b.h5"));
}

TEST(Pack, TypesAreTheSourcesOrTheOnesAskedFor) {
  const Scratch scratch;
  write_good_tree(scratch / "f16", DType::kF16);
  write_good_tree(scratch / "f64", DType::kF64);
  EXPECT_EQ(pack_features(options_for(scratch / "f16", scratch / "a.h5")).dtype, DType::kF16);
  const Dataset half(scratch / "a.h5");
  EXPECT_EQ(half.row_bytes(Stream::kVisual), 12U);
  expect_rows(half, 3, -70.0);
  EXPECT_EQ(pack_features(options_for(scratch / "f64", scratch / "b.h5")).dtype, DType::kF32);
  expect_rows(Dataset(scratch / "b.h5"), 3, -70.0);
  PackOptions options = options_for(scratch / "f64", scratch / "c.h5");
  options.dtype = PackType::kFp16;
  EXPECT_EQ(pack_features(options).dtype, DType::kF16);
  expect_rows(Dataset(scratch / "c.h5"), 3, -70.0);
  // One float32 array among float16 ones, and the whole is float32.
  testing::write_stream(scratch / "f16/real/id00000_clip0", "audio", 4, 4, 0.5, DType::kF32);
  EXPECT_EQ(pack_features(options_for(scratch / "f16", scratch / "d.h5")).dtype, DType::kF32);
}

struct BadCase {
  const char* name;
  BadVideoKind kind;
  void (*spoil)(const fs::path& folder);
};

const std::vector<BadCase>& bad_cases() {
  static const std::vector<BadCase> cases{
      {"no_audio", BadVideoKind::kMissingStream,
       [](const auto& f) { fs::remove(f / "audio_embeddings.npz"); }},
      {"nothing", BadVideoKind::kMissingStream,
       [](const auto& f) {
         fs::remove(f / "audio_embeddings.npz");
         fs::remove(f / "visual_embeddings.npz");
       }},
      {"loop", BadVideoKind::kUnreadable,
       [](const auto& f) {
         fs::remove(f / "audio_embeddings.npz");
         fs::create_symlink("audio_embeddings.npz", f / "audio_embeddings.npz");
       }},
      {"folder_for_file", BadVideoKind::kUnreadable,
       [](const auto& f) {
         fs::remove(f / "audio_embeddings.npz");
         fs::create_directory(f / "audio_embeddings.npz");
       }},
      {"truncated", BadVideoKind::kDamaged,
       [](const auto& f) { truncate_file(f / "visual_embeddings.npz", 300); }},
      {"zero_bytes", BadVideoKind::kDamaged,
       [](const auto& f) { truncate_file(f / "audio_embeddings.npz", 0); }},
      {"crc", BadVideoKind::kChecksum, [](const auto& f) { flip_content(f / "visual_embeddings.npz"); }},
      {"other_key", BadVideoKind::kNoEmbeddings,
       [](const auto& f) {
         fs::copy_file(testing::golden("another_key.npz"), f / "visual_embeddings.npz",
                       fs::copy_options::overwrite_existing);
       }},
      {"empty", BadVideoKind::kEmpty,
       [](const auto& f) {
         write_embeddings(f, "visual", {}, {0, 6});
       }},
      {"flat", BadVideoKind::kShape,
       [](const auto& f) {
         write_embeddings(f, "visual", {1, 2, 3}, {3});
       }},
      {"integers", BadVideoKind::kType,
       [](const auto& f) {
         fs::copy_file(testing::golden("integers.npz"), f / "visual_embeddings.npz",
                       fs::copy_options::overwrite_existing);
       }},
      {"nan", BadVideoKind::kNotFinite,
       [](const auto& f) {
         write_embeddings(f, "audio", {1, 2, 3, 4, 5, 6, std::nanf(""), 8, 1, 1, 1, 1}, {3, 4});
       }},
      {"inf", BadVideoKind::kNotFinite,
       [](const auto& f) {
         write_embeddings(f, "audio", {1, 2, 3, -std::numeric_limits<float>::infinity(), 1, 1, 1, 1}, {2, 4});
       }},
      {"wide", BadVideoKind::kWidth, [](const auto& f) { testing::write_stream(f, "audio", 3, 5, 0.0); }},
      {"long", BadVideoKind::kLengthMismatch,
       [](const auto& f) { testing::write_stream(f, "audio", 8, 4, 0.0); }},
  };
  return cases;
}

TEST(Pack, BadVideosAreLeftOutNamedAndCounted) {
  const Scratch scratch;
  write_good_tree(scratch / "tree");
  std::map<BadVideoKind, std::int64_t> expected;
  for (const BadCase& bad : bad_cases()) {
    const fs::path folder = scratch.path() / "tree" / "real" / (std::string("bad_") + bad.name);
    testing::write_video(folder, 3, 3, 0.0);
    bad.spoil(folder);
    ++expected[bad.kind];
  }
  const PackReport report = pack_features(options_for(scratch / "tree", scratch / "a.h5"));
  EXPECT_EQ(report.found, 20 + static_cast<std::int64_t>(bad_cases().size()));
  EXPECT_EQ(report.packed, 20);
  EXPECT_EQ(report.bad_counts(), expected);
  for (const BadVideo& video : report.bad) {
    const BadCase* found = nullptr;
    for (const BadCase& bad : bad_cases()) {
      if (video.id == std::string("real/bad_") + bad.name) found = &bad;
    }
    ASSERT_NE(found, nullptr) << video.id;
    EXPECT_EQ(video.kind, found->kind) << video.message;
    EXPECT_THAT(video.message, HasSubstr(video.id));
    EXPECT_THAT(report_text(report), HasSubstr(video.message));
  }
  const auto json = nlohmann::json::parse(report_json(report));
  EXPECT_EQ(json["bad"].size(), bad_cases().size());
  EXPECT_EQ(json["bad_counts"]["NaN or infinity"], 2);
  // The others are untouched by their neighbours.
  const Dataset data(scratch / "a.h5");
  ASSERT_EQ(data.size(), 20);
  for (std::int64_t i = 0; i < 10; ++i) expect_rows(data, 10 + i, 10.0 * static_cast<double>(i));
  EXPECT_TRUE(data.verify_all(1).empty());
}

TEST(Pack, StrictStopsAtABadVideoAndLeavesNoFile) {
  for (const BadCase& bad : bad_cases()) {
    const Scratch scratch;
    write_good_tree(scratch / "tree");
    const fs::path folder = scratch.path() / "tree" / "real" / "bad";
    testing::write_video(folder, 3, 3, 0.0);
    bad.spoil(folder);
    fs::create_directory(scratch / "out");
    PackOptions options = options_for(scratch / "tree", scratch.path() / "out" / "a.h5");
    options.strict = true;
    options.num_workers = 2;
    EXPECT_THROW(pack_features(options), engine::DataError) << bad.name;
    EXPECT_THAT(message_of([&] { pack_features(options); }), HasSubstr("real/bad")) << bad.name;
    EXPECT_TRUE(fs::is_empty(scratch / "out")) << bad.name;
  }
}

TEST(Pack, NumbersTooLargeForHalfAreCaught) {
  const Scratch scratch;
  write_good_tree(scratch / "tree");
  testing::write_video(scratch / "tree/real/large", 3, 3, 65530.0);
  PackOptions options = options_for(scratch / "tree", scratch / "a.h5");
  EXPECT_EQ(pack_features(options).packed, 21);
  options.dtype = PackType::kFp16;
  const PackReport report = pack_features(options);
  EXPECT_EQ(report.packed, 20);
  ASSERT_EQ(report.bad.size(), 1U);
  EXPECT_EQ(report.bad[0].kind, BadVideoKind::kOverflow);
  EXPECT_THAT(report.bad[0].message, HasSubstr("too large for float16"));
}

TEST(Pack, GroupsAreKeptTogetherAndStored) {
  const Scratch scratch;
  write_good_tree(scratch / "tree");
  PackOptions options = options_for(scratch / "tree", scratch / "a.h5");
  EXPECT_GT(pack_features(options).audit.identities.crossing, 0);
  options.group_by = GroupBy::parse("identity").value();
  EXPECT_EQ(pack_features(options).audit.identities.crossing, 0);
  const Dataset data(scratch / "a.h5");
  EXPECT_EQ(data.group(0), 0);
  EXPECT_EQ(data.group(0), data.group(10));  // fake and real clips of id00000
  EXPECT_NE(data.group(0), data.group(2));
  EXPECT_EQ(data.summary().groups, 5);
  options.group_by = GroupBy::parse("clip([0-9])").value();
  pack_features(options);
  EXPECT_EQ(Dataset(scratch / "a.h5").summary().groups, 10);
  for (const std::string& expression : {std::string("clip("), std::string("person"), std::string("()"),
                                        std::string("\xff"), std::string(300, '(')}) {
    options.group_by = GroupBy::parse(expression).value();
    EXPECT_THROW(pack_features(options), engine::UsageError) << expression;
  }
}

TEST(Pack, SplitFoldersBringSplitsAndLabelsOfTheirOwn) {
  const Scratch scratch;
  const fs::path tree = scratch / "tree";
  testing::write_labelled(tree / "train/a", 3, 0.0, std::vector<std::int32_t>{0, 0, 0});
  testing::write_labelled(tree / "train/b", 3, 10.0, std::vector<std::int32_t>{0, 1, 0});
  testing::write_labelled(tree / "dev/c", 2, 20.0, std::vector<std::int32_t>{1, 1});
  testing::write_video(tree / "test/unlabelled", 3, 3, 30.0);
  testing::write_video(tree / "train/without", 3, 3, 40.0);
  testing::write_labelled(tree / "train/short", 3, 0.0, std::vector<std::int32_t>{0, 0});
  testing::write_labelled(tree / "train/two", 3, 0.0, std::vector<std::int32_t>{0, 2, 0});
  const PackReport report = pack_features(options_for(tree, scratch / "a.h5"));
  EXPECT_EQ(report.form, TreeForm::kSplitFolders);
  EXPECT_EQ(report.bad_counts(), (std::map<BadVideoKind, std::int64_t>{{BadVideoKind::kFrameLabels, 3}}));
  const Dataset data(scratch / "a.h5");
  ASSERT_EQ(data.size(), 4);
  EXPECT_EQ(data.ids(), (std::vector<std::string>{"dev/c", "test/unlabelled", "train/a", "train/b"}));
  EXPECT_EQ(data.split(0), Split::kVal);
  EXPECT_EQ(data.split(1), Split::kTest);
  EXPECT_EQ(data.split(3), Split::kTrain);
  EXPECT_EQ(data.label(0), kFake);
  EXPECT_EQ(data.label(1), -1);
  EXPECT_EQ(data.label(2), kReal);
  EXPECT_EQ(data.label(3), kFake);
  EXPECT_FALSE(data.summary().frame_labels);  // one video has none
  EXPECT_EQ(data.samples_of(Split::kTrain), (std::vector<std::int64_t>{2, 3}));

  fs::remove_all(tree / "test");
  pack_features(options_for(tree, scratch / "b.h5"));
  const Dataset labelled(scratch / "b.h5");
  ASSERT_TRUE(labelled.summary().frame_labels);
  EXPECT_THAT(labelled.frame_labels(2), ::testing::ElementsAre(0, 1, 0));

  PackOptions options = options_for(tree, scratch / "c.h5");
  options.split_ratios = SplitRatios{0.6, 0.2, 0.2};
  EXPECT_THAT(message_of([&] { pack_features(options); }), HasSubstr("--split_ratios"));
  options.split_ratios.reset();
  options.group_by = GroupBy::parse("identity").value();
  EXPECT_THAT(message_of([&] { pack_features(options); }), HasSubstr("--group_by"));
}

TEST(Pack, WarnsOfSplitsThatAreEmptyOrOfOneClass) {
  const Scratch scratch;
  write_good_tree(scratch / "tree");
  PackOptions options = options_for(scratch / "tree", scratch / "a.h5");
  EXPECT_THAT(warnings(pack_features(options)), ::testing::IsEmpty());
  options.split_ratios = SplitRatios{0.8, 0.0, 0.2};
  EXPECT_THAT(warnings(pack_features(options)),
              ::testing::ElementsAre(HasSubstr("the val split is empty (its share in --split_ratios is 0)")));
  fs::remove_all(scratch / "tree/fake");
  const PackReport report = pack_features(options);
  EXPECT_THAT(report_text(report), HasSubstr("warning: the train split has one class only (8 real, 0 fake)"));
  EXPECT_THAT(report_text(report), HasSubstr("warning: the test split has one class only (2 real, 0 fake)"));
  EXPECT_EQ(nlohmann::json::parse(report_json(report))["warnings"].size(), 3U);
}

TEST(Pack, WarnsOfAGroupThatHoldsMostVideos) {
  const Scratch scratch;
  // Each fake shows two of the ten people, so that all are linked.
  for (int i = 0; i < 10; ++i) {
    const std::string own = "id0000" + std::to_string(i);
    testing::write_video(scratch / "tree/real" / own, 3, 3, i);
    testing::write_video(scratch / "tree/fake" / (own + "_id0000" + std::to_string((i + 1) % 10)), 3, 3, -i);
  }
  PackOptions options = options_for(scratch / "tree", scratch / "a.h5");
  options.group_by = GroupBy::parse("identity").value();
  const PackReport report = pack_features(options);
  EXPECT_EQ(report.largest_group, 20);
  EXPECT_THAT(report_text(report), HasSubstr("warning: 20 of 20 videos are one group"));
  options.group_by = GroupBy::parse("^(id[0-9]+)").value();
  EXPECT_THAT(report_text(pack_features(options)), ::testing::Not(HasSubstr("are one group")));
}

TEST(Pack, NamesVideosOfTwoSplitsAndTheSplitThatKeepsThem) {
  const Scratch scratch;
  const fs::path tree = scratch / "tree";
  for (const char* const name : {"train/1", "train/2", "train/3", "test/4"})
    testing::write_labelled(tree / name, 3, 0.0, std::vector<std::int32_t>{0, name[6] == '2', 0});
  fs::create_directories(tree / "dev_temp");
  fs::create_directory_symlink("../train/1", tree / "dev_temp/1");
  const PackReport report = pack_features(options_for(tree, scratch / "a.h5"));
  EXPECT_EQ(report.packed, 4);
  EXPECT_THAT(report_text(report), HasSubstr("train/1 (kept as dev_temp/1 in val, the same files)"));
  EXPECT_EQ(nlohmann::json::parse(report_json(report))["repeated"][0]["id"], "train/1");
  EXPECT_EQ(Dataset(scratch / "a.h5").samples_of(Split::kTrain), (std::vector<std::int64_t>{2, 3}));
}

TEST(Pack, AVideoInBothClassesIsQuarantined) {
  const Scratch scratch;
  write_good_tree(scratch / "tree");
  fs::create_directory_symlink("../real/id00000_clip0", scratch / "tree/fake/linked");
  const PackReport report = pack_features(options_for(scratch / "tree", scratch / "a.h5"));
  EXPECT_EQ(report.bad_counts(), (std::map<BadVideoKind, std::int64_t>{{BadVideoKind::kTwoLabels, 2}}));
  EXPECT_THAT(report.bad[0].message, HasSubstr("is real/id00000_clip0 as well"));
}

TEST(Pack, AFolderWithoutLabelsHasNoSplitsToAskFor) {
  const Scratch scratch;
  testing::write_video(scratch / "clips/a", 3, 3, 0.0);
  testing::write_video(scratch / "clips/b", 4, 4, 1.0);
  PackOptions options = options_for(scratch / "clips", scratch / "a.h5");
  EXPECT_THAT(report_text(pack_features(options)), HasSubstr("without labels: predict takes it"));
  const Dataset data(scratch / "a.h5");
  EXPECT_EQ(data.ids(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(data.label(0), -1);
  EXPECT_EQ(data.split(0), Split::kTest);
  options.split_seed = 3;
  EXPECT_THAT(message_of([&] { pack_features(options); }), HasSubstr("--split_seed 3"));
}

TEST(Pack, WhatCannotBeDoneIsSaidAndLeavesNothing) {
  const Scratch scratch;
  write_good_tree(scratch / "tree");
  EXPECT_THROW(pack_features(options_for(scratch / "tree", scratch.path() / "no" / "a.h5")), engine::IoError);
  fs::create_directories(scratch / "bad/real/only");
  fs::create_directory(scratch / "out");
  const auto none = [&] { pack_features(options_for(scratch / "bad", scratch.path() / "out" / "a.h5")); };
  EXPECT_THROW(none(), engine::DataError);
  EXPECT_THAT(message_of(none), HasSubstr("none of its 1 videos can be packed"));
  EXPECT_TRUE(fs::is_empty(scratch / "out"));
}

TEST(Pack, AnExistingFileIsReplacedWholeOrNotAtAll) {
  const Scratch scratch;
  write_good_tree(scratch / "tree");
  pack_features(options_for(scratch / "tree", scratch / "a.h5"));
  const auto before = testing::read_bytes(scratch / "a.h5");
  flip_content(scratch / "tree/real/id00000_clip1/audio_embeddings.npz");
  PackOptions options = options_for(scratch / "tree", scratch / "a.h5");
  options.strict = true;
  EXPECT_THROW(pack_features(options), engine::DataError);
  EXPECT_EQ(testing::read_bytes(scratch / "a.h5"), before);
  options.strict = false;
  EXPECT_EQ(pack_features(options).packed, 19);
  EXPECT_EQ(Dataset(scratch / "a.h5").size(), 19);
}

}  // namespace
}  // namespace voca::data
