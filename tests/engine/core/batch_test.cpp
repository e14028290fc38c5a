#include "engine/core/batch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/base/error.h"

namespace voca::engine {
namespace {

using ::testing::StrEq;

std::string refusal(const BatchSpec& available, const BatchSpec& needed) {
  try {
    check_provides(available, needed, "a.h5");
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

TEST(CheckProvides, NamesTheFirstTensorThatIsMissingOrOfAnotherShape) {
  const BatchSpec packed{.inputs = {{"visual", {8, 4}, {}}, {"audio", {8, 3}, {}}},
                         .targets = {{"label", {}, DType::kI32}}};
  EXPECT_THAT(refusal(packed, packed), StrEq(""));
  EXPECT_THAT(refusal(packed, {.inputs = {{"audio", {8, 3}, {}}}, .targets = {}}), StrEq(""));
  EXPECT_THAT(
      refusal(packed, {.inputs = {{"audio", {8, 5}, {}}}, .targets = {}}),
      StrEq("a.h5: lacks the input audio (8, 5) per sample that the network needs; it has visual (8, 4), "
            "audio (8, 3)"));
  EXPECT_THAT(
      refusal(packed, {.inputs = packed.inputs, .targets = {{"frame_label", {8}, DType::kI32}}}),
      StrEq("a.h5: lacks the target frame_label (8) per sample that the network needs; it has label"));
}

}  // namespace
}  // namespace voca::engine
