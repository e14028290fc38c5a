#include "tools/options/train_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace voca::tools::testing {
namespace {

using nlohmann::ordered_json;

struct LaterOption {
  std::string name;
  ordered_json now;      ///< every option, this one with its default
  ordered_json earlier;  ///< as a version recorded them that lacked it
  ordered_json other;    ///< every option, this one with another value
};

std::vector<LaterOption> later_options() {
  TrainArguments arguments;
  EXPECT_TRUE(arguments.parse(std::vector<const char*>{"--features_root=f.h5"}));
  const ordered_json added = arguments.set.values_added_later();
  const ordered_json values = arguments.set.values();
  std::vector<LaterOption> options;
  for (const auto& [name, usual] : added.items()) {
    LaterOption option{name, values, values, values};
    option.earlier.erase(name);
    option.other[name] = usual.is_string() ? ordered_json("another") : ordered_json(0.125);
    options.push_back(option);
  }
  return options;
}

TEST(TrainOptions, AStateOfAVersionWithoutAnOptionIsOfItsDefault) {
  EXPECT_FALSE(later_options().empty());
  for (const LaterOption& option : later_options()) {
    ASSERT_TRUE(option.now.contains(option.name)) << option.name;
    // What the hash of a state is taken of.
    const std::string numeric = numeric_options(option.now, 1).dump();
    EXPECT_EQ(numeric, numeric_options(option.earlier, 1).dump()) << option.name;
    EXPECT_NE(numeric, numeric_options(option.other, 1).dump()) << option.name;
  }
}

TEST(TrainOptions, ADifferenceFromTheDefaultOfALaterOptionIsNamed) {
  for (const LaterOption& option : later_options()) {
    EXPECT_FALSE(first_difference({.options = option.now}, {.options = option.earlier})) << option.name;
    EXPECT_FALSE(first_difference({.options = option.earlier}, {.options = option.now})) << option.name;
    for (const ordered_json& usual : {option.now, option.earlier}) {
      const auto changed = first_difference({.options = option.other}, {.options = usual});
      const auto back = first_difference({.options = usual}, {.options = option.other});
      ASSERT_TRUE(changed && back) << option.name;
      EXPECT_EQ(changed->option, option.name);
      EXPECT_EQ(back->option, option.name);
    }
  }
}

}  // namespace
}  // namespace voca::tools::testing
