#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/data/support/scratch.h"
#include "tests/tools/support/program.h"

namespace voca::tools::testing {
namespace {

using data::testing::Scratch;

// Minutes on two cores: excluded from sanitizer builds by its label.
TEST(Slow, TwoThousandSyntheticVideosAreLearnt) {
  const Scratch scratch;
  const auto& here = scratch.path();
  ASSERT_EQ(
      run({"synth", "--out=tree", "--videos=2000", "--frames_min=30", "--frames_max=60", "--quiet"}, here)
          .exit_code,
      0);
  ASSERT_EQ(run({"pack", "--features_root=tree", "--out=features.h5", "--group_by=identity", "--quiet"}, here)
                .exit_code,
            0);
  const Outcome trained =
      run({"train", "--features_root=features.h5", "--hidden=64", "--num_layers=2", "--num_heads=4",
           "--seq_len=40", "--batch_size=16", "--epochs=8", "--warmup_epochs=1", "--lr=1e-3",
           "--use_contrastive", "--label_smoothing=0.1", "--save_path=best.pt", "--quiet", "--json"},
          here);
  ASSERT_EQ(trained.exit_code, 0) << trained.err;
  EXPECT_GE(trained.json()["test"]["auc"].get<double>(), 0.97);
  const Outcome on_train =
      run({"eval", "--checkpoint=best.pt", "--features_root=features.h5", "--split=train", "--json"}, here);
  ASSERT_EQ(on_train.exit_code, 0) << on_train.err;
  EXPECT_GE(on_train.json()["acc"].get<double>(), 0.98);
}

}  // namespace
}  // namespace voca::tools::testing
