#include "model/metrics/measure_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "engine/base/error.h"

namespace voca::model {
namespace {

using ::testing::HasSubstr;

std::string evaluation_page() {
  std::ifstream file(std::string(VOCA_GOLDEN_DIR) + "/../../docs/evaluation.md");
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

/// Each row is a key of the JSON with the row's value, is documented, and shares its names with no other row.
template <typename Metrics>
void expect_consistent(const Metrics& metrics) {
  const nlohmann::ordered_json json = metrics_json(metrics);
  const std::string page = evaluation_page();
  ASSERT_FALSE(page.empty());
  std::set<std::string_view> names;
  std::set<std::string_view> records;
  for (const Measure<Metrics>& row : measures_of(metrics)) {
    const std::string name(row.name);
    EXPECT_TRUE(names.insert(row.name).second) << name;
    EXPECT_TRUE(row.record.empty() || records.insert(row.record).second) << name;
    const std::optional<double> value = row.value(metrics);
    ASSERT_TRUE(json.contains(name)) << name;
    EXPECT_EQ(json[name], value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json()) << name;
    EXPECT_THAT(page, HasSubstr("`" + name)) << "docs/evaluation.md";
    EXPECT_TRUE(row.select_by.empty() || !row.record.empty()) << name << ": what selects is recorded";
  }
}

TEST(Measures, OfTwoClassesAreOneRowEach) {
  BinaryMetrics metrics =
      binary_metrics(std::vector{0.1, 0.4, 0.35, 0.8}, std::vector{0, 0, 1, 1}, /*threshold=*/0.3);
  metrics.loss = 0.25;
  expect_consistent(metrics);
  expect_consistent(binary_metrics(std::vector{0.1}, std::vector{0}, 0.5));  // most are undefined
}

TEST(Measures, OfClassesAreOneRowEach) {
  ClassMetrics metrics = class_metrics(std::vector{0.7, 0.2, 0.1, 0.1, 0.2, 0.7}, std::vector{0, 2}, 3);
  metrics.loss = 0.5;
  expect_consistent(metrics);
}

/// A measure of one-class splits must not be promised where there is none.
TEST(Measures, ThatNeedTwoClassesAreUndefinedForOne) {
  const BinaryMetrics metrics = binary_metrics(std::vector{0.2, 0.9}, std::vector{1, 1}, 0.5);
  for (const Measure<BinaryMetrics>& row : measures_of(metrics)) {
    // The loss is the caller's; average precision of reals exists, and says nothing, where all are real.
    if (row.select_by.empty() || row.name == "loss" || row.select_by == "ap") continue;
    EXPECT_EQ(row.value(metrics).has_value(), !row.needs_two_classes) << row.name;
  }
}

TEST(Selections, AreTheContract) {
  EXPECT_THAT(selection_names(), ::testing::ElementsAre("auc", "ap", "loss", "acc"));
  EXPECT_EQ(selection("loss").better, Better::kLower);
  EXPECT_EQ(selection("auc").better, Better::kHigher);
  EXPECT_FALSE(selection("ap").is_of_classes);
  EXPECT_TRUE(selection("acc").is_of_classes);
  EXPECT_FALSE(selection("acc").needs_two_classes);
  try {
    static_cast<void>(selection("f1"));
    ADD_FAILURE();
  } catch (const engine::UsageError& error) {
    EXPECT_THAT(error.what(), HasSubstr("--select_by: \"f1\" is not one of auc, ap, loss, acc"));
  }
}

}  // namespace
}  // namespace voca::model
