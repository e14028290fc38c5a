#include "tests/model/support/golden.h"

#include <gtest/gtest.h>

#include <bit>
#include <set>

namespace voca::model::golden {
namespace {

void expect_same_bits(const std::vector<float>& generated, const Array& stored, const std::string& what) {
  ASSERT_GE(generated.size(), stored.values.size()) << what;
  for (std::size_t i = 0; i < stored.values.size(); ++i) {
    EXPECT_EQ(std::bit_cast<std::uint32_t>(generated[i]),
              std::bit_cast<std::uint32_t>(static_cast<float>(stored.values[i])))
        << what << " element " << i;
  }
}

std::vector<std::filesystem::path> all_files() {
  std::vector<std::filesystem::path> files = case_files();
  for (const auto& file : run_files()) files.push_back(file);
  return files;
}

TEST(Golden, GeneratorRepeatsPythonBitForBit) {
  for (const auto& file : all_files()) {
    const Golden golden(file);
    expect_same_bits(golden.visual(), golden.at("check/visual"), golden.name + " visual");
    expect_same_bits(golden.weights(golden.parameters.front()), golden.at("check/first_parameter"),
                     golden.name + " " + golden.parameters.front().name);
  }
}

TEST(Golden, SamplesOfALargeTensorAreDistinctElements) {
  for (const auto& file : case_files()) {
    const Golden golden(file);
    for (const Parameter& parameter : golden.parameters) {
      const Array& gradient = golden.at("grad/" + parameter.name);
      const auto indices =
          sample_indices(parameter.elements(), static_cast<std::int64_t>(gradient.values.size()));
      EXPECT_EQ(std::set<std::int64_t>(indices.begin(), indices.end()).size(), indices.size())
          << golden.name << " " << parameter.name;
      if (parameter.elements() <= 512) {
        EXPECT_EQ(std::ssize(gradient.values), parameter.elements());
      } else {
        EXPECT_EQ(std::ssize(gradient.values), 256);
      }
    }
    EXPECT_EQ(golden.at("grad_norms").values.size(), golden.parameters.size());
    EXPECT_EQ(golden.at("grad_sums").values.size(), golden.parameters.size());
  }
}

TEST(Golden, EveryLabelIsAClass) {
  for (const auto& file : all_files()) {
    const Golden golden(file);
    const std::vector<std::int32_t> labels = golden.labels();
    ASSERT_EQ(std::ssize(labels), golden.batch) << golden.name;
    for (const std::int32_t label : labels) {
      EXPECT_GE(label, 0) << golden.name;
      EXPECT_LT(label, std::max<std::int64_t>(2, golden.config.num_classes)) << golden.name;
    }
  }
}

TEST(Golden, RunsHaveTwentyStepsOfLossNormAndRate) {
  for (const auto& file : run_files()) {
    const Golden golden(file);
    EXPECT_EQ(golden.recipe.epochs * golden.recipe.steps_per_epoch, 20) << golden.name;
    EXPECT_EQ(golden.at("lr").values.size(), 20U);
    EXPECT_EQ(golden.at("loss_f64").shape, (std::vector<std::int64_t>{20, 3}));
    EXPECT_EQ(golden.at("grad_norm_f64").values.size(), 20U);
  }
}

}  // namespace
}  // namespace voca::model::golden
