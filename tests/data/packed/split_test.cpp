#include "data/packed/split.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "data/packed/audit.h"
#include "engine/base/error.h"
#include "engine/base/random.h"

namespace voca::data {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr SplitRatios kUsual{0.6, 0.2, 0.2};

std::vector<std::uint8_t> labels_with(std::size_t real, std::size_t fake) {
  std::vector<std::uint8_t> labels(real, 1);
  labels.insert(labels.end(), fake, 0);
  return labels;
}

std::array<std::int64_t, kSplits> counts_of(std::span<const Split> splits,
                                            std::span<const std::uint8_t> labels, int label) {
  std::array<std::int64_t, kSplits> counts{};
  for (std::size_t i = 0; i < splits.size(); ++i) {
    if (labels[i] == label) ++counts[static_cast<std::size_t>(splits[i])];
  }
  return counts;
}

TEST(Ratios, AreThreeSharesOfSumOne) {
  EXPECT_EQ(SplitRatios::parse("0.6,0.2,0.2"), kUsual);
  EXPECT_EQ(SplitRatios::parse("1,0,0"), (SplitRatios{1.0, 0.0, 0.0}));
  for (const char* const bad : {"", "1", "0.5,0.5", "0.5,0.5,0.5", "1.5,-0.5,0", "a,b,c", "0.6,0.2,0.2,0",
                                "nan,0,1", "0.6,0.2,0.2 ", "inf,0,0"})
    EXPECT_FALSE(SplitRatios::parse(bad)) << bad;
  EXPECT_EQ(kUsual.text(), "0.6,0.2,0.2");
}

TEST(GroupBy, IsReadAndWritten) {
  EXPECT_EQ(GroupBy::parse("none").value().kind, GroupBy::Kind::kNone);
  EXPECT_EQ(GroupBy::parse("identity").value().kind, GroupBy::Kind::kIdentity);
  EXPECT_EQ(GroupBy::parse("a(b)").value().expression, "a(b)");
  for (const char* text : {"none", "identity", "a(b)"}) EXPECT_EQ(GroupBy::parse(text).value().text(), text);
}

TEST(DrawSplits, EachLabelIsSharedOutByTheRatios) {
  const auto labels = labels_with(100, 45);
  const std::vector<Split> splits = draw_splits(labels, {}, kUsual, 7);
  EXPECT_THAT(counts_of(splits, labels, 1), ElementsAre(60, 20, 20));
  EXPECT_THAT(counts_of(splits, labels, 0), ElementsAre(27, 9, 9));
}

TEST(DrawSplits, CountsAreOffByLessThanOneForAnyNumberOfVideos) {
  for (std::size_t n = 1; n < 60; ++n) {
    const auto labels = labels_with(n, 0);
    const auto counts = counts_of(draw_splits(labels, {}, kUsual, n), labels, 1);
    for (std::size_t s = 0; s < kSplits; ++s)
      EXPECT_LT(std::abs(static_cast<double>(counts[s]) - kUsual[s] * static_cast<double>(n)), 1.0) << n;
  }
}

TEST(DrawSplits, TheSeedDecidesAndNothingElse) {
  const auto labels = labels_with(50, 50);
  EXPECT_EQ(draw_splits(labels, {}, kUsual, 1), draw_splits(labels, {}, kUsual, 1));
  EXPECT_NE(draw_splits(labels, {}, kUsual, 1), draw_splits(labels, {}, kUsual, 2));
}

TEST(DrawSplits, ARatioOfZeroLeavesASplitEmpty) {
  const auto labels = labels_with(31, 17);
  std::vector<std::int32_t> groups;
  for (int i = 0; i < 48; ++i) groups.push_back(i / 3);
  for (const SplitRatios& ratios : {SplitRatios{1, 0, 0}, SplitRatios{0, 0, 1}, SplitRatios{0.5, 0, 0.5}}) {
    for (const bool grouped : {false, true}) {
      const auto splits =
          draw_splits(labels, grouped ? std::span(groups) : std::span<std::int32_t>(), ratios, 3);
      for (const Split split : splits) EXPECT_GT(ratios[static_cast<std::size_t>(split)], 0.0);
    }
  }
}

TEST(DrawSplits, GroupsStayWholeAndTheRatiosAreMetNearly) {
  engine::RandomStream random(3, engine::RandomPurpose::kSynthetic, 0);
  std::vector<std::uint8_t> labels;
  std::vector<std::int32_t> groups;
  for (int group = 0; group < 100; ++group) {
    for (std::int64_t i = 0; i < 1 + random.below(20); ++i) {
      labels.push_back(static_cast<std::uint8_t>(random.below(3) == 0));
      groups.push_back(group % 10 == 9 ? -1 : group);
    }
  }
  const std::vector<Split> splits = draw_splits(labels, groups, kUsual, 5);
  std::map<std::int32_t, std::set<Split>> seen;
  for (std::size_t i = 0; i < splits.size(); ++i) {
    if (groups[i] >= 0) seen[groups[i]].insert(splits[i]);
  }
  for (const auto& [group, in] : seen) EXPECT_EQ(in.size(), 1U) << "group " << group;
  for (const int label : {0, 1}) {
    const auto counts = counts_of(splits, labels, label);
    const auto total = static_cast<double>(counts[0] + counts[1] + counts[2]);
    for (std::size_t s = 0; s < kSplits; ++s)
      EXPECT_NEAR(static_cast<double>(counts[s]) / total, kUsual[s], 0.03) << "label " << label;
  }
}

TEST(Identities, AreFoundInNames) {
  const IdentityFinder finder;
  EXPECT_THAT(finder.find("real/id00012_clip3"), ElementsAre("id00012"));
  EXPECT_THAT(finder.find("fake/id00012_id00345_wav2lip_id00012"), ElementsAre("id00012", "id00345"));
  EXPECT_THAT(finder.find("fake/00109_id000761x"), ElementsAre("id000761"));
  EXPECT_THAT(finder.find("real/video00012_id123"), IsEmpty());
  const IdentityFinder persons("person-([a-z]+)");
  EXPECT_THAT(persons.find("real/person-ann_person-bob"), ElementsAre("ann", "bob"));
  EXPECT_THAT(IdentityFinder("^...").find("real/abcdef"), ElementsAre("abc"));
  EXPECT_THROW(IdentityFinder("("), engine::UsageError);
}

TEST(Identities, GroupsAreConnectedThroughSharedIdentities) {
  const std::vector<std::string> ids{"fake/id00001_id00002", "fake/x",       "fake/id00003_a",
                                     "real/id00002_id00004", "real/id00005", "real/id00004_b",
                                     "real/id00003_b"};
  EXPECT_THAT(identity_groups(ids, IdentityFinder()), ElementsAre(0, -1, 1, 0, 2, 0, 1));
}

TEST(SplitHash, CoversIdsAndSplits) {
  const std::vector<std::string> ids{"a", "b"};
  const std::string hash = split_hash(ids, std::vector<std::uint8_t>{0, 1});
  EXPECT_EQ(hash.size(), 64U);
  EXPECT_NE(split_hash(ids, std::vector<std::uint8_t>{1, 0}), hash);
  EXPECT_NE(split_hash(std::vector<std::string>{"a", "c"}, std::vector<std::uint8_t>{0, 1}), hash);
}

TEST(Audit, CountsIdentitiesThatCrossSplits) {
  const std::vector<std::string> ids{"real/id00001_a", "real/id00001_b", "fake/id00002_id00003",
                                     "fake/id00003_x", "real/plain"};
  const std::vector<std::uint8_t> labels{1, 1, 0, 0, 1};
  const std::vector<Split> splits{Split::kTrain, Split::kTest, Split::kVal, Split::kTest, Split::kTrain};
  const std::vector<std::int64_t> frames{10, 11, 30, 31, 12};
  const std::vector<double> energy{1.0, 2.0, 2.0, 1.0, 1.5};
  const std::vector<std::uint32_t> checksums{1, 2, 3, 4, 5};
  const DatasetAudit result =
      audit({ids, labels, splits, {{frames, frames}}, {{energy, energy}}, checksums}, IdentityFinder());
  EXPECT_EQ(result.copies.crossing_videos, 0);
  EXPECT_EQ(result.identities.identities, 3);
  EXPECT_EQ(result.identities.videos_without, 1);
  EXPECT_EQ(result.identities.crossing, 2);         // id00001 (train, test), id00003 (val, test)
  EXPECT_EQ(result.identities.crossing_videos, 1);  // id00001_b is of a person train has
  EXPECT_THAT(result.identities.examples, ElementsAre("id00001", "id00003"));
  ASSERT_EQ(result.leaks.size(), 4U);
  EXPECT_EQ(result.leaks[0].auc, 0.0);  // fakes are longer, all of them: as telling as 1
  EXPECT_TRUE(result.leaks[0].leaks());
  EXPECT_EQ(result.leaks[2].auc, 0.5);
  EXPECT_FALSE(result.leaks[2].leaks());
  const std::vector<std::string> lines = audit_lines(result);
  EXPECT_THAT(lines[0], HasSubstr("warning: 2 of 3 identities"));
  EXPECT_THAT(lines[1], HasSubstr("warning: visual length alone: AUC 0.0000"));
  EXPECT_THAT(lines[3], ::testing::Not(HasSubstr("warning")));
}

TEST(Audit, NamesCopiesOfTrainVideosInValAndTest) {
  const std::vector<std::string> ids{"real/a", "real/b", "real/c", "real/d"};
  const std::vector<std::uint8_t> labels{1, 1, 1, 1};
  const std::vector<Split> splits{Split::kTrain, Split::kTest, Split::kVal, Split::kTest};
  const std::vector<std::int64_t> frames{10, 10, 11, 12};
  const std::vector<double> energy(4, 1.0);
  const std::vector<std::uint32_t> checksums{7, 7, 7, 8};
  const DatasetAudit result =
      audit({ids, labels, splits, {{frames, frames}}, {{energy, energy}}, checksums}, IdentityFinder());
  EXPECT_EQ(result.copies.crossing_videos, 1);  // c only has the checksum
  EXPECT_THAT(audit_lines(result)[1],
              HasSubstr("warning: 1 val and test videos have the very frames of a train "
                        "video (as real/b and real/a)"));
}

TEST(Audit, TheAucIsMannWhitneysWithHalvesForTies) {
  const std::vector<double> scores{1e9, 3.0, 3.0, -2.0, 7.0};
  const std::vector<std::uint8_t> labels{1, 1, 0, 0, kUnknownLabel};
  EXPECT_EQ(score_auc(scores, labels), 3.5 / 4.0);
  EXPECT_EQ(score_auc(scores, std::vector<std::uint8_t>{1, 1, 1, 1, kUnknownLabel}), std::nullopt);
}

}  // namespace
}  // namespace voca::data
