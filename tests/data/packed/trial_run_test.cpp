#include "data/packed/trial_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <new>
#include <string>
#include <vector>

#include "engine/base/error.h"
#include "tests/data/support/scratch.h"

namespace voca::data {
namespace {

using ::testing::HasSubstr;
using testing::message_of;

constexpr std::uint64_t kBytes = 1 << 20;

TEST(TrialRun, HandsOnEveryTextInOrderByObject) {
  // More than a pipe holds.
  std::vector<std::string> ids(20'000);
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = std::string(i % 9, 'x') + std::to_string(i);
  ids[7] = "";
  const TextsOfObjects found = run_trial("a.h5", kBytes, [&](const TrialReport& report) {
    report.begin("attribute dtype");
    report.found("attribute dtype", {""});
    report.begin("/ids");
    report.found("/ids", ids);
    report.found("/none", {});
    report.found("/twice", {"a", "b"});
    report.begin("/ids");
    report.found("/twice", {"c\x01"});
  });
  EXPECT_EQ(found.at("attribute dtype"), std::vector<std::string>{""});
  EXPECT_EQ(found.at("/ids"), ids);
  EXPECT_TRUE(found.at("/none").empty());
  EXPECT_EQ(found.at("/twice"), std::vector<std::string>{"c\x01"});
}

TEST(TrialRun, RethrowsTheErrorOfItsWork) {
  const auto fail = [](const auto& error) {
    static_cast<void>(run_trial("a.h5", kBytes, [&](const TrialReport& report) {
      report.found("/ids", {"a"});
      throw error;
    }));
  };
  EXPECT_THROW(fail(engine::DataError("a.h5: no")), engine::DataError);
  EXPECT_THROW(fail(engine::IoError("a.h5: no")), engine::IoError);
  EXPECT_THROW(fail(std::bad_alloc()), std::bad_alloc);
  EXPECT_EQ(message_of([&] { fail(engine::DataError("a.h5: no")); }), "a.h5: no");
}

TEST(TrialRun, ACrashNamesTheObjectThatWasReadLast) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "may run in this process";
#endif
  for (const bool after_its_texts : {false, true}) {
    const auto crash = [&] {
      static_cast<void>(run_trial("a.h5", kBytes, [&](const TrialReport& report) {
        report.begin("/labels");
        report.begin("/ids");
        if (after_its_texts) report.found("/ids", {"a"});
        std::abort();
      }));
    };
    EXPECT_THROW(crash(), engine::DataError);
    EXPECT_THAT(message_of(crash), HasSubstr("a.h5: damaged: the HDF5 library crashes on /ids"));
  }
}

}  // namespace
}  // namespace voca::data
