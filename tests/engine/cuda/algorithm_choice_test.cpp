#include "engine/cuda/algorithm_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "engine/base/error.h"
#include "tests/engine/support/files.h"

namespace voca::engine {
namespace {

using test::TemporaryFolder;

const GemmLibraryVersion kLibrary{
    .device = "NVIDIA A800", .capability = "8.0", .driver = 13000, .library = 130100};
const std::vector<std::string> kKeys{"a", "b", "c"};

Algorithm numbered(std::uint64_t number) {
  return {number, 0, ~std::uint64_t{0}, 5};
}

/// A library that finds another algorithm at each search, as timing does.
struct FakeLibrary {
  std::uint64_t next = 1;
  int searches = 0;
  bool has_room = true;
  Algorithm refused = numbered(999);

  GemmLibraryCalls calls() {
    return {.can_run = [this](const Algorithm& a) { return a != refused; },
            .search = [this]() -> std::optional<ChosenAlgorithm> {
              ++searches;
              if (!has_room) return std::nullopt;
              return ChosenAlgorithm{.algorithm = numbered(next++), .microseconds = 3, .candidates = 7};
            },
            .first = [] { return numbered(100); }};
  }
};

/// One rank's choice for all keys.
std::map<std::string, TakenAlgorithm> choose(AlgorithmCache& cache, const AlgorithmSharing& sharing,
                                             FakeLibrary& library) {
  AlgorithmChoice choice(cache, sharing);
  for (const std::string& key : kKeys) choice.choose(key, library.calls());
  choice.settle([&](const std::string& /*key*/, const Algorithm& a) { return a != library.refused; });
  return choice.taken();
}

class SharedAlgorithms : public testing::Test {
 protected:
  std::string told_;
  AlgorithmSharing first_{.tell = [this](const std::string& text) { told_ = text; }};
  AlgorithmSharing other_{.chooses = false, .hear = [this] { return told_; }};
  TemporaryFolder folder_;
  AlgorithmCache cache_{folder_.path(), kLibrary};
  AlgorithmCache none_{{}, kLibrary};
};

TEST_F(SharedAlgorithms, AreThoseOfRankZeroAndNobodyElseSearches) {
  FakeLibrary of_first;
  const auto chosen = choose(cache_, first_, of_first);
  EXPECT_EQ(of_first.searches, 3);
  FakeLibrary of_other{.next = 50};
  // The other has a cache of its own, which says something else.
  none_.insert("a", {.algorithm = numbered(77), .microseconds = 1, .candidates = 1});
  const auto heard = choose(none_, other_, of_other);
  EXPECT_EQ(of_other.searches, 0);
  for (const std::string& key : kKeys) EXPECT_EQ(heard.at(key).algorithm, chosen.at(key).algorithm) << key;
}

TEST_F(SharedAlgorithms, AreToldThoughTheyCameFromTheCache) {
  FakeLibrary library;
  const auto chosen = choose(cache_, first_, library);
  told_.clear();
  AlgorithmCache next_run(folder_.path(), kLibrary);
  FakeLibrary later{.next = 50};
  EXPECT_EQ(choose(next_run, first_, later).at("b").algorithm, chosen.at("b").algorithm);
  EXPECT_EQ(later.searches, 0);
  FakeLibrary of_other;
  EXPECT_EQ(choose(none_, other_, of_other).at("b").algorithm, chosen.at("b").algorithm);
}

TEST_F(SharedAlgorithms, WithoutRoomToTimeAreTheLibrarysFirstOfRankZero) {
  FakeLibrary no_room{.has_room = false};
  static_cast<void>(choose(cache_, first_, no_room));
  FakeLibrary of_other;
  EXPECT_EQ(choose(none_, other_, of_other).at("c").algorithm, numbered(100));
  EXPECT_EQ(of_other.searches, 0);
}

TEST_F(SharedAlgorithms, ThatCannotRunHereAreCountedAndNotSearchedFor) {
  FakeLibrary of_first;
  static_cast<void>(choose(cache_, first_, of_first));
  FakeLibrary of_other{.refused = numbered(2)};
  AlgorithmChoice choice(none_, other_);
  for (const std::string& key : kKeys) choice.choose(key, of_other.calls());
  EXPECT_EQ(choice.passed_over(), 1);
  EXPECT_EQ(of_other.searches, 0);
  EXPECT_EQ(choice.taken().at("b").algorithm, numbered(100));
}

TEST_F(SharedAlgorithms, WhatAnotherJobFoundFirstIsTakenOverAndTold) {
  FakeLibrary of_other_job{.next = 30};
  FakeLibrary library;
  AlgorithmChoice choice(cache_, first_);
  for (const std::string& key : kKeys) choice.choose(key, library.calls());
  AlgorithmCache theirs(folder_.path(), kLibrary);
  static_cast<void>(choose(theirs, {}, of_other_job));  // saves meanwhile
  choice.settle([](const std::string&, const Algorithm&) { return true; });
  EXPECT_EQ(choice.taken().at("a").algorithm, numbered(30));
  FakeLibrary of_other;
  EXPECT_EQ(choose(none_, other_, of_other).at("a").algorithm, numbered(30));
}

TEST_F(SharedAlgorithms, ThatAreDamagedAreRefused) {
  for (const char* text : {"", "{", R"({"a": 1})", R"({"a": "12"})"}) {
    told_ = text;
    EXPECT_THROW(AlgorithmChoice(none_, other_), DataError) << text;
  }
}

}  // namespace
}  // namespace voca::engine
