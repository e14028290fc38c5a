#include "engine/core/ensemble.h"

#include <gtest/gtest.h>

#include "engine/base/error.h"
#include "engine/trainer/evaluator.h"
#include "tests/engine/support/toy.h"

namespace voca::engine {
namespace {

using test::ToyModel;
using test::ToySource;

Predictions predict(const Model& model, Workspace& workspace) {
  ToySource source({.samples = 11, .compute_type = DType::kF64});
  return *Evaluator(model, source, workspace, /*losses=*/true).run();
}

TEST(Ensemble, PredictsWhatItsMembersPredictAlone) {
  const std::unique_ptr<Device> device = make_cpu_device(1);
  const MemoryRequest request{.compute_type = DType::kF64, .eval_batch = 4};
  const ToyModel first;
  const ToyModel second;
  Workspace of_first(first, request, *device);
  Workspace of_second(second, request, *device);
  of_first.parameters().initialise(3);
  of_second.parameters().initialise(4);

  const Ensemble ensemble({&first, &second, &first});
  Workspace together(ensemble, request, *device);
  together.parameters().assign([&](std::vector<Tensor>& values) {
    std::size_t next = 0;
    for (Workspace* workspace : {&of_first, &of_second, &of_first}) {
      for (int id = 0; id < workspace->parameters().count(); ++id, ++next) {
        const Tensor from = workspace->parameters().weight(id);
        std::copy_n(from.as<double>(), from.elements(), values[next].as<double>());
      }
    }
  });
  const std::vector<Predictions> members = ensemble.of_members(predict(ensemble, together));

  ASSERT_EQ(members.size(), 3U);
  const std::vector<Predictions> alone{predict(first, of_first), predict(second, of_second),
                                       predict(first, of_first)};
  for (std::size_t i = 0; i < members.size(); ++i) {
    EXPECT_EQ(members[i].samples, alone[i].samples);
    ASSERT_EQ(members[i].outputs.size(), alone[i].outputs.size());
    EXPECT_EQ(members[i].outputs[0].name, alone[i].outputs[0].name);
    EXPECT_EQ(members[i].outputs[0].values, alone[i].outputs[0].values);
    EXPECT_EQ(members[i].targets[0].values, alone[i].targets[0].values);
  }
  EXPECT_NE(members[0].outputs[0].values, members[1].outputs[0].values);
  EXPECT_EQ(members[0].losses, alone[0].losses);
  EXPECT_TRUE(members[1].losses.empty());
}

TEST(Ensemble, RefusesWhatDoesNotGoTogether) {
  const ToyModel model;
  EXPECT_THROW(Ensemble({}), InternalError);
  EXPECT_THROW(Ensemble(std::vector<const Model*>(TensorList::kCapacity + 1, &model)), InternalError);
}

}  // namespace
}  // namespace voca::engine
