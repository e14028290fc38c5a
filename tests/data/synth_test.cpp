#include "data/synth.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "data/packed/audit.h"
#include "data/packed/dataset.h"
#include "data/packed/pack.h"
#include "data/tree/npz.h"
#include "engine/base/error.h"
#include "tests/data/support/scratch.h"

namespace voca::data {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using testing::message_of;
using testing::Scratch;

SynthOptions small(const fs::path& out) {
  SynthOptions options;
  options.out = out;
  options.videos = 12;
  options.frames_min = 5;
  options.frames_max = 9;
  options.visual_dim = 8;
  options.audio_dim = 7;
  return options;
}

PackReport pack_tree(const fs::path& tree, const fs::path& out) {
  PackOptions options;
  options.features_root = tree;
  options.out = out;
  return pack_features(options);
}

TEST(Synth, GivesTheSameBytesForAnyNumberOfWorkers) {
  const Scratch scratch;
  const SynthOptions one = small(scratch / "one");
  SynthOptions three = small(scratch / "three");
  three.num_workers = 3;
  static_cast<void>(synthesize_features(one));
  std::int64_t last = 0;
  three.progress = [&](std::int64_t done, std::int64_t total) {
    EXPECT_EQ(done, ++last);
    EXPECT_EQ(total, 12);
  };
  static_cast<void>(synthesize_features(three));
  EXPECT_EQ(last, 12);
  std::int64_t files = 0;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(one.out)) {
    if (!entry.is_regular_file()) continue;
    EXPECT_EQ(testing::read_bytes(entry.path()),
              testing::read_bytes(three.out / fs::relative(entry.path(), one.out)))
        << entry.path();
    ++files;
  }
  EXPECT_EQ(files, 24);
}

TEST(Synth, WritesATreeOfTheSizesAskedFor) {
  const Scratch scratch;
  SynthOptions options = small(scratch / "tree");
  options.fake_ratio = 0.25;
  const SynthReport report = synthesize_features(options);
  EXPECT_EQ(report.real, 9);
  EXPECT_EQ(report.fake, 3);
  const PackReport packed = pack_tree(scratch / "tree", scratch / "a.h5");
  EXPECT_TRUE(packed.bad.empty());
  EXPECT_EQ(packed.packed, 12);
  EXPECT_EQ(packed.audit.identities.videos_without, 0);
  EXPECT_EQ(packed.audit.identities.identities, 2);
  const Dataset data(scratch / "a.h5");
  EXPECT_EQ(data.dim(Stream::kVisual), 8);
  EXPECT_EQ(data.dim(Stream::kAudio), 7);
  ASSERT_TRUE(data.summary().frame_labels);
  for (std::int64_t i = 0; i < data.size(); ++i) {
    EXPECT_THAT(data.id(i), ::testing::ContainsRegex("^(real|fake)/id0000[01]_clip[0-9]$"));
    for (const Stream stream : kStreams) {
      EXPECT_GE(data.frames(stream, i), 5);
      EXPECT_LE(data.frames(stream, i), 9);
    }
    const auto labels = data.frame_labels(i);
    EXPECT_EQ(std::find(labels.begin(), labels.end(), 1) != labels.end(), data.label(i) == kFake)
        << data.id(i);
  }
}

std::vector<std::byte> all_bytes(const fs::path& root) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    if (entry.is_regular_file()) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  std::vector<std::byte> all;
  for (const fs::path& file : files) {
    const std::string name = fs::relative(file, root).string();
    const auto text = std::as_bytes(std::span(name));
    all.insert(all.end(), text.begin(), text.end());
    const auto bytes = testing::read_bytes(file);
    all.insert(all.end(), bytes.begin(), bytes.end());
  }
  return all;
}

TEST(Synth, TheSeedDecidesEveryByte) {
  const Scratch scratch;
  synthesize_features(small(scratch / "a"));
  synthesize_features(small(scratch / "b"));
  SynthOptions options = small(scratch / "c");
  options.seed = 1;
  synthesize_features(options);
  EXPECT_EQ(all_bytes(scratch / "a"), all_bytes(scratch / "b"));
  EXPECT_NE(all_bytes(scratch / "a"), all_bytes(scratch / "c"));
}

TEST(Synth, TypesAndCompressionChangeTheFilesAndNotTheContent) {
  const Scratch scratch;
  synthesize_features(small(scratch / "a"));
  SynthOptions options = small(scratch / "b");
  options.compressed = true;
  synthesize_features(options);
  EXPECT_EQ(pack_tree(scratch / "a", scratch / "a.h5").content_hash,
            pack_tree(scratch / "b", scratch / "b.h5").content_hash);
  options = small(scratch / "c");
  options.dtype = engine::DType::kF16;
  synthesize_features(options);
  EXPECT_EQ(pack_tree(scratch / "c", scratch / "c.h5").dtype, engine::DType::kF16);
}

TEST(Synth, WhatCannotBeMadeIsRefusedByName) {
  const Scratch scratch;
  const auto refusal = [&](auto change) {
    SynthOptions options = small(scratch / "tree");
    change(options);
    return message_of([&] { synthesize_features(options); });
  };
  EXPECT_THAT(refusal([](auto& o) { o.frames_max = 4; }), HasSubstr("--frames_max is 4"));
  const std::vector<std::function<void(SynthOptions&)>> out_of_range{
      [](auto& o) { o.videos = 0; },       [](auto& o) { o.videos = 99'999'999'999; },
      [](auto& o) { o.frames_min = 0; },   [](auto& o) { o.fake_ratio = 1.01; },
      [](auto& o) { o.fake_ratio = NAN; }, [](auto& o) { o.visual_dim = 0; },
      [](auto& o) { o.audio_dim = -1; }};
  for (const auto& change : out_of_range) {
    SynthOptions options = small(scratch / "tree");
    change(options);
    EXPECT_THROW(synthesize_features(options), engine::InternalError);
  }
  EXPECT_FALSE(fs::exists(scratch / "tree"));
  fs::create_directories(scratch / "tree/real");
  EXPECT_THAT(refusal([](auto&) {}), HasSubstr("has real/ already"));
}

TEST(Synth, StoppedOrFailedItLeavesNothing) {
  const Scratch scratch;
  SynthOptions options = small(scratch / "new/tree");
  int videos = 0;
  options.check_stop = [&] {
    if (++videos == 3) throw engine::IoError("enough");
  };
  EXPECT_THAT(message_of([&] { synthesize_features(options); }), HasSubstr("enough"));
  EXPECT_TRUE(fs::is_empty(scratch.path()));
  // What is in the folder already stays, and what a killed one left there goes.
  fs::create_directories(scratch / "tree/notes");
  fs::create_directories(scratch / "tree/.synth.Ab12zZ/real/id0");
  options.out = scratch / "tree";
  EXPECT_THAT(message_of([&] {
                videos = 0;
                synthesize_features(options);
              }),
              HasSubstr("enough"));
  EXPECT_EQ(std::distance(fs::directory_iterator(scratch / "tree"), {}), 1);
  EXPECT_TRUE(fs::exists(scratch / "tree/notes"));
}

using Vector = std::vector<double>;

/// Time-mean and maximum of each column, and a one: what a linear probe of one stream sees.
Vector features_of(const Dataset& data, Stream stream, std::int64_t sample, bool maxima) {
  const auto dim = static_cast<std::size_t>(data.dim(stream));
  const auto frames = static_cast<std::size_t>(data.frames(stream, sample));
  Vector rows(frames * dim);
  data.read_rows(stream, sample, 0, data.frames(stream, sample), engine::DType::kF64, rows.data());
  Vector mean(dim, 0.0);
  Vector most(dim, -1e300);
  for (std::size_t t = 0; t < frames; ++t) {
    for (std::size_t j = 0; j < dim; ++j) {
      mean[j] += rows[t * dim + j] / static_cast<double>(frames);
      most[j] = std::max(most[j], rows[t * dim + j]);
    }
  }
  if (maxima) mean.insert(mean.end(), most.begin(), most.end());
  mean.push_back(1.0);
  return mean;
}

/// Ridge regression of `targets` on `inputs`: solves (XᵀX + λI) w = Xᵀy by elimination.
Vector fit(const std::vector<Vector>& inputs, const Vector& targets) {
  const std::size_t n = inputs[0].size();
  std::vector<Vector> system(n, Vector(n + 1, 0.0));
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    for (std::size_t r = 0; r < n; ++r) {
      for (std::size_t c = 0; c < n; ++c) system[r][c] += inputs[i][r] * inputs[i][c];
      system[r][n] += inputs[i][r] * targets[i];
    }
  }
  for (std::size_t r = 0; r < n; ++r) system[r][r] += 1.0;
  for (std::size_t k = 0; k < n; ++k) {
    for (std::size_t r = k + 1; r < n; ++r) {
      const double factor = system[r][k] / system[k][k];
      for (std::size_t c = k; c <= n; ++c) system[r][c] -= factor * system[k][c];
    }
  }
  Vector weights(n, 0.0);
  for (std::size_t k = n; k-- > 0;) {
    double sum = system[k][n];
    for (std::size_t c = k + 1; c < n; ++c) sum -= system[k][c] * weights[c];
    weights[k] = sum / system[k][k];
  }
  return weights;
}

double dot(const Vector& a, const Vector& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

/// Fitted on the even videos, measured on the odd ones.
double probe_auc(const std::vector<Vector>& features, const std::vector<std::uint8_t>& labels) {
  std::vector<Vector> inputs;
  Vector targets;
  for (std::size_t i = 0; i < features.size(); i += 2) {
    inputs.push_back(features[i]);
    targets.push_back(labels[i] == kReal ? 1.0 : -1.0);
  }
  const Vector weights = fit(inputs, targets);
  Vector scores;
  std::vector<std::uint8_t> classes;
  for (std::size_t i = 1; i < features.size(); i += 2) {
    scores.push_back(dot(weights, features[i]));
    classes.push_back(labels[i]);
  }
  return score_auc(scores, classes).value();
}

TEST(Synth, NeitherStreamAloneGivesFakesAwayAndTheTwoTogetherDo) {
  const Scratch scratch;
  SynthOptions options = small(scratch / "tree");
  options.videos = 1000;
  options.frames_min = 30;
  options.frames_max = 60;
  options.visual_dim = options.audio_dim = 16;
  options.dtype = engine::DType::kF16;
  synthesize_features(options);
  const PackReport report = pack_tree(scratch / "tree", scratch / "a.h5");
  for (const LeakAudit& leak : report.audit.leaks)
    EXPECT_FALSE(leak.leaks()) << leak.what << " " << *leak.auc;
  const Dataset data(scratch / "a.h5");
  std::array<std::vector<Vector>, 2> features;
  std::array<std::vector<Vector>, 2> means;
  std::vector<std::uint8_t> labels;
  for (std::int64_t i = 0; i < data.size(); ++i) {
    labels.push_back(static_cast<std::uint8_t>(data.label(i)));
    for (const Stream stream : kStreams) {
      features[static_cast<std::size_t>(stream)].push_back(features_of(data, stream, i, true));
      means[static_cast<std::size_t>(stream)].push_back(features_of(data, stream, i, false));
    }
  }
  for (const Stream stream : kStreams) {
    const double auc = probe_auc(features[static_cast<std::size_t>(stream)], labels);
    EXPECT_GT(auc, 0.3) << name_of(stream);
    EXPECT_LT(auc, 0.7) << name_of(stream);
  }
  // Together: what the voice of real videos should be, told from the face, against what it is.
  std::vector<Vector> faces;
  for (std::size_t i = 0; i < labels.size(); i += 2) {
    if (labels[i] == kReal) faces.push_back(means[0][i]);
  }
  Vector distance(labels.size(), 0.0);
  for (std::size_t j = 0; j < 16; ++j) {
    Vector voices;
    for (std::size_t i = 0; i < labels.size(); i += 2) {
      if (labels[i] == kReal) voices.push_back(means[1][i][j]);
    }
    const Vector weights = fit(faces, voices);
    for (std::size_t i = 0; i < labels.size(); ++i)
      distance[i] -= std::pow(means[1][i][j] - dot(weights, means[0][i]), 2);
  }
  Vector scores;
  std::vector<std::uint8_t> classes;
  for (std::size_t i = 1; i < labels.size(); i += 2) {
    scores.push_back(distance[i]);
    classes.push_back(labels[i]);
  }
  EXPECT_GT(score_auc(scores, classes).value(), 0.97);
}

}  // namespace
}  // namespace voca::data
