#include "engine/cuda/algorithm_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <limits>
#include <set>
#include <thread>
#include <vector>

#include "engine/base/atomic_file.h"
#include "engine/base/error.h"
#include "tests/engine/support/files.h"

namespace voca::engine {
namespace {

using kernels::Transpose;
using test::TemporaryFolder;
using testing::HasSubstr;

constexpr double kFailed = std::numeric_limits<double>::infinity();

const GemmLibraryVersion kLibrary{
    .device = "NVIDIA A800", .capability = "8.0", .driver = 13000, .library = 130100};

ChosenAlgorithm algorithm(std::uint64_t number) {
  return {.algorithm = {number, 0, ~std::uint64_t{0}, 5}, .microseconds = 12.25, .candidates = 31};
}

LibraryGemm gemm() {
  return {{.transpose_b = Transpose::kYes,
           .m = 512,
           .n = 768,
           .k = 256,
           .lda = 256,
           .ldb = 256,
           .add_bias = true,
           .ldc = 768},
          DType::kBF16};
}

TEST(AlgorithmChoice, IsTheFirstUnlessAnotherIsFasterByMoreThanTwoPercent) {
  EXPECT_EQ(choose_candidate(std::vector<double>{10, 9.9, 9.81}), 0U);
  EXPECT_EQ(choose_candidate(std::vector<double>{10, 9.9, 9.7, 9.75}), 2U);
  EXPECT_EQ(choose_candidate(std::vector<double>{10, 12}), 0U);
  EXPECT_EQ(choose_candidate(std::vector<double>{7}), 0U);
}

TEST(AlgorithmChoice, PassesOverCandidatesThatFailed) {
  EXPECT_EQ(choose_candidate(std::vector<double>{kFailed, 10, 9.9}), 1U);
  EXPECT_EQ(choose_candidate(std::vector<double>{kFailed, 10, std::nan(""), 5}), 3U);
  EXPECT_EQ(choose_candidate(std::vector<double>{kFailed, kFailed}), std::nullopt);
  EXPECT_EQ(choose_candidate({}), std::nullopt);
}

TEST(GemmKey, TellsGemmsApartThatAnAlgorithmTellsApart) {
  std::vector<LibraryGemm> gemms(13, gemm());
  gemms[1].dtype = DType::kF16;
  gemms[2].transpose_a = Transpose::kYes;
  gemms[3].transpose_b = Transpose::kNo;
  gemms[4].m = 513;
  gemms[5].n = 769;
  gemms[6].k = 255;
  gemms[7].lda = 264;
  gemms[8].ldc = 2304;
  gemms[9].add_bias = false;
  gemms[10].beta = 1;
  gemms[11].alignment = 8;
  gemms[12].batch = 4;
  gemms.push_back(gemms.back());
  gemms.back().stride_b = 9;
  std::set<std::string> keys;
  for (const LibraryGemm& p : gemms) keys.insert(gemm_key(p, false));
  EXPECT_EQ(keys.size(), gemms.size());
}

TEST(GemmKey, IsTheSameWhereverTheOperandsLie) {
  LibraryGemm elsewhere = gemm();
  float somewhere = 0;
  elsewhere.a = elsewhere.b = elsewhere.bias = elsewhere.c = &somewhere;
  EXPECT_EQ(gemm_key(elsewhere, false), gemm_key(gemm(), false));
}

TEST(GemmKey, KnowsTf32OnlyInFloat32) {
  EXPECT_EQ(gemm_key(gemm(), true), gemm_key(gemm(), false));
  LibraryGemm wide = gemm();
  wide.dtype = DType::kF32;
  EXPECT_NE(gemm_key(wide, true), gemm_key(wide, false));
}

TEST(AlgorithmCache, GivesTheNextRunWhatItWasGiven) {
  const TemporaryFolder folder;
  {
    AlgorithmCache cache(folder.path() / "deep" / "er", kLibrary);
    EXPECT_EQ(cache.find("a"), nullptr);
    cache.insert("a", algorithm(1));
    cache.insert("b", algorithm(2));
    cache.save();
    EXPECT_EQ(cache.message(), "");
  }
  const AlgorithmCache again(folder.path() / "deep" / "er", kLibrary);
  ASSERT_NE(again.find("a"), nullptr);
  EXPECT_EQ(*again.find("a"), algorithm(1));
  EXPECT_EQ(*again.find("b"), algorithm(2));
  EXPECT_EQ(again.size(), 2U);
  EXPECT_EQ(again.message(), "");
}

TEST(AlgorithmCache, IsAnotherForAnotherGpuDriverOrLibrary) {
  const TemporaryFolder folder;
  AlgorithmCache cache(folder.path(), kLibrary);
  cache.insert("a", algorithm(1));
  cache.save();
  std::vector<GemmLibraryVersion> others(4, kLibrary);
  others[0].device = "NVIDIA H100";
  others[1].capability = "9.0";
  others[2].driver = 12020;
  others[3].library = 120205;
  for (const GemmLibraryVersion& other : others) {
    const AlgorithmCache theirs(folder.path(), other);
    EXPECT_EQ(theirs.size(), 0U);
    EXPECT_NE(theirs.path(), cache.path());
  }
}

TEST(AlgorithmCache, OfTwoProcessesTheFirstToWriteIsRight) {
  const TemporaryFolder folder;
  AlgorithmCache first(folder.path(), kLibrary);
  AlgorithmCache second(folder.path(), kLibrary);
  first.insert("both", algorithm(1));
  first.insert("one", algorithm(3));
  second.insert("both", algorithm(2));
  second.insert("other", algorithm(4));
  first.save();
  second.save();
  EXPECT_EQ(*second.find("both"), algorithm(1));
  const AlgorithmCache after(folder.path(), kLibrary);
  EXPECT_EQ(*after.find("both"), algorithm(1));
  EXPECT_EQ(*after.find("one"), algorithm(3));
  EXPECT_EQ(*after.find("other"), algorithm(4));
}

/// Another process saves while this one is about to rename its file into place.
TEST(AlgorithmCache, ASaveInsideASaveLosesNothing) {
  const TemporaryFolder folder;
  AlgorithmCache cache(folder.path(), kLibrary);
  cache.insert("outer", algorithm(1));
  pid_t other = -1;
  set_file_fault([&](FileStep step, const std::filesystem::path&) {
    if (step != FileStep::kRename || other >= 0) return 0;
    other = ::fork();
    if (other == 0) {
      const std::filesystem::path where = folder.path();
      set_file_fault({});  // and with it what this has captured
      AlgorithmCache inner(where, kLibrary);
      inner.insert("inner", algorithm(2));
      inner.save();
      ::_exit(inner.message().empty() ? 0 : 1);
    }
    // Without a lock the other is through in this time; with one it waits for us.
    for (int i = 0; i < 100 && ::kill(other, 0) == 0; ++i) {
      siginfo_t ended{};
      if (::waitid(P_PID, static_cast<id_t>(other), &ended, WEXITED | WNOHANG | WNOWAIT) == 0 &&
          ended.si_pid == other)
        break;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return 0;
  });
  cache.save();
  set_file_fault({});
  int status = -1;
  ASSERT_EQ(::waitpid(other, &status, 0), other);
  EXPECT_EQ(status, 0);
  const AlgorithmCache after(folder.path(), kLibrary);
  ASSERT_NE(after.find("outer"), nullptr);
  ASSERT_NE(after.find("inner"), nullptr);
  EXPECT_EQ(*after.find("outer"), algorithm(1));
  EXPECT_EQ(*after.find("inner"), algorithm(2));
}

TEST(AlgorithmCache, IgnoresADamagedFileWithAMessageAndReplacesIt) {
  const TemporaryFolder folder;
  AlgorithmCache cache(folder.path(), kLibrary);
  cache.insert("a", algorithm(1));
  cache.save();
  const std::string good = read_text_file(cache.path(), 1 << 20);
  std::vector<std::string> damaged{"", "{", "null", "[]", good.substr(0, good.size() / 2)};
  damaged.push_back(good);
  damaged.back().replace(good.find("12.25"), 5, "12.75");  // well-formed, and not what was written
  damaged.push_back(good);
  damaged.back().replace(good.find("\"format\": 1"), 11, "\"format\": 2");
  damaged.push_back(good);
  damaged.back().replace(good.find("A800"), 4, "H100");
  for (const std::string& text : damaged) {
    write_file_atomically(cache.path(), text);
    AlgorithmCache reader(folder.path(), kLibrary);
    EXPECT_EQ(reader.size(), 0U);
    EXPECT_THAT(reader.message(), HasSubstr(cache.path().string()));
    reader.insert("b", algorithm(2));
    reader.save();
    const AlgorithmCache after(folder.path(), kLibrary);
    EXPECT_EQ(after.size(), 1U);
    EXPECT_EQ(after.message(), "");
  }
}

TEST(AlgorithmCache, ThatCannotBeWrittenIsAMessage) {
  const TemporaryFolder folder;
  const std::filesystem::path file = folder.path() / "file";
  write_file_atomically(file, "no folder");
  AlgorithmCache cache(file, kLibrary);
  cache.insert("a", algorithm(1));
  cache.save();
  EXPECT_THAT(cache.message(), HasSubstr("tunes its algorithms again"));
  EXPECT_EQ(*cache.find("a"), algorithm(1));
}

TEST(AlgorithmCache, WithoutAFolderKeepsNothing) {
  AlgorithmCache cache({}, kLibrary);
  cache.insert("a", algorithm(1));
  cache.save();
  EXPECT_EQ(cache.message(), "");
  EXPECT_EQ(AlgorithmCache({}, kLibrary).size(), 0U);
}

}  // namespace
}  // namespace voca::engine
