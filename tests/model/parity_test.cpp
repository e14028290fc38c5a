// The network against PyTorch: the files under tests/golden/model.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "engine/ops/ops.h"
#include "engine/trainer/schedule.h"
#include "kernels/adamw.h"
#include "support/golden.h"
#include "support/harness.h"
#include "support/tolerances.h"

namespace voca::model {
namespace {

using golden::Golden;
using testing::Network;

std::string test_name(const ::testing::TestParamInfo<std::filesystem::path>& info) {
  return info.param.stem().string();
}

double largest(const std::vector<double>& values) {
  double result = 0;
  for (const double value : values) result = std::max(result, std::abs(value));
  return result;
}

// NaN counts as the largest difference there is.
double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  EXPECT_EQ(a.size(), b.size());
  double result = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const double difference = std::abs(a[i] - b[i]);
    result = std::isnan(difference) ? HUGE_VAL : std::max(result, difference);
  }
  return result;
}

template <typename T>
std::vector<double> doubles(std::span<T> values) {
  return {values.begin(), values.end()};
}

template <typename T>
void compare_gradients(Network<T>& network, const Golden& golden, double tolerance) {
  double network_scale = 0;
  for (const auto& parameter : golden.parameters)
    network_scale = std::max(network_scale, largest(golden.at("grad/" + parameter.name).values));
  for (std::size_t id = 0; id < golden.parameters.size(); ++id) {
    const std::string& name = golden.parameters[id].name;
    const auto& expected = golden.at("grad/" + name).values;
    const std::span<const T> gradient = network.gradient(static_cast<int>(id));
    const double scale = std::max(largest(expected), testing::kSmallestScale * network_scale);
    EXPECT_LE(largest_difference(golden::sampled(gradient, expected.size()), expected), tolerance * scale)
        << name;
    double squares = 0;
    for (const T value : gradient) squares += static_cast<double>(value) * static_cast<double>(value);
    const double norm = golden.at("grad_norms").values[id];
    const double floor = scale * std::sqrt(static_cast<double>(gradient.size()));
    EXPECT_NEAR(std::sqrt(squares), norm, tolerance * std::max(norm, floor)) << name;
  }
}

class PyTorchCase : public ::testing::TestWithParam<std::filesystem::path> {};

TEST_P(PyTorchCase, LogitsAndLossesAgreeInFloat) {
  const Golden golden(GetParam());
  auto network = Network<float>::from(golden);
  const auto losses = network.step();
  EXPECT_LE(largest_difference(doubles(network.logits()), golden.at("logits_f32").values), testing::kLogits);
  EXPECT_LE(largest_difference(losses, golden.at("loss_f32").values),
            testing::kLogits * (1 + largest(losses)));
  compare_gradients(network, golden, testing::kGradients);
}

TEST_P(PyTorchCase, GradientsAgreeInDoubleToRounding) {
  const Golden golden(GetParam());
  auto network = Network<double>::from(golden);
  const auto losses = network.step();
  EXPECT_LE(largest_difference(doubles(network.logits()), golden.at("logits_f64").values), testing::kDouble);
  EXPECT_LE(largest_difference(losses, golden.at("loss_f64").values), testing::kDouble);
  compare_gradients(network, golden, testing::kDouble);
}

TEST_P(PyTorchCase, PredictionEqualsTheForwardPassOfTraining) {
  const Golden golden(GetParam());
  auto network = Network<float>::from(golden);
  const auto losses = network.step();
  const std::vector<float> trained(network.logits().begin(), network.logits().end());
  network.predict();
  EXPECT_TRUE(std::equal(trained.begin(), trained.end(), network.logits().begin()));
  double mean = 0;
  for (const float loss : network.row_losses()) mean += loss / static_cast<double>(golden.batch);
  EXPECT_NEAR(mean, losses[1], 1e-5);
}

INSTANTIATE_TEST_SUITE_P(Golden, PyTorchCase, ::testing::ValuesIn(golden::case_files()), test_name);

class PyTorchRun : public ::testing::TestWithParam<std::filesystem::path> {};

// Twenty steps of the whole recipe by hand: schedule, forward, backward, clip, AdamW.
template <typename T>
void train_like_pytorch(const Golden& golden, const std::string& suffix, double tolerance) {
  auto network = Network<T>::from(golden);
  const auto& recipe = golden.recipe;
  const engine::Schedule schedule({.kind = engine::value_named<engine::ScheduleKind>(recipe.schedule).value(),
                                   .lr = recipe.lr,
                                   .epochs = recipe.epochs,
                                   .warmup_epochs = recipe.warmup_epochs,
                                   .steps_per_epoch = recipe.steps_per_epoch});
  auto& parameters = network.parameters();
  T norm_value = 0;
  const engine::Tensor norm{.data = &norm_value,
                            .shape = {1},
                            .dtype = engine::kDTypeOf<T>,
                            .device = engine::DeviceKind::kCpu,
                            .name = "norm"};
  kernels::OptimizerState state_value;
  const engine::Tensor state{.data = &state_value,
                             .shape = {sizeof state_value},
                             .dtype = engine::DType::kU8,
                             .device = engine::DeviceKind::kCpu,
                             .name = "optimizer state"};
  const auto& expected = golden.at("loss" + suffix).values;
  const auto steps = static_cast<std::int64_t>(golden.at("lr").values.size());
  for (std::int64_t step = 0; step < steps; ++step) {
    const auto losses = network.step();
    for (std::size_t part = 0; part < losses.size(); ++part)
      EXPECT_NEAR(losses[part], expected[static_cast<std::size_t>(step) * 3 + part],
                  tolerance * std::max(0.1, std::abs(expected[static_cast<std::size_t>(step) * 3 + part])))
          << "step " << step << " part " << part;
    // The arena is free between passes: the optimiser takes its scratch from it.
    auto context = network.context();
    engine::ops::gradient_norm(context, parameters.gradients(), norm);
    const double expected_norm = golden.at("grad_norm" + suffix).values[static_cast<std::size_t>(step)];
    EXPECT_NEAR(norm_value, expected_norm, 10 * tolerance * expected_norm) << "step " << step;
    const double lr = schedule.at(step / recipe.steps_per_epoch, step % recipe.steps_per_epoch);
    EXPECT_NEAR(lr, golden.at("lr").values[static_cast<std::size_t>(step)], 1e-12) << "step " << step;
    state_value.lr = lr;
    engine::ops::adamw(context, {.options = {.weight_decay = recipe.weight_decay},
                                 .max_norm = recipe.max_grad_norm,
                                 .state = state,
                                 .norm = norm,
                                 .gradient = parameters.gradients(),
                                 .master = parameters.masters(),
                                 .exp_avg = parameters.exp_avgs(),
                                 .exp_avg_sq = parameters.exp_avg_sqs(),
                                 .weights = parameters.weights()});
  }
}

TEST_P(PyTorchRun, TwentyStepsFollowInFloat) {
  train_like_pytorch<float>(Golden(GetParam()), "_f32", testing::kRun);
}

TEST_P(PyTorchRun, TwentyStepsFollowInDouble) {
  // AdamW divides by √v, which amplifies rounding where a gradient is almost zero.
  train_like_pytorch<double>(Golden(GetParam()), "_f64", 1e-6);
}

INSTANTIATE_TEST_SUITE_P(Golden, PyTorchRun, ::testing::ValuesIn(golden::run_files()), test_name);

TEST(Initialisation, FollowsPyTorchsDistributions) {
  for (const CrossAttention form : {CrossAttention::kA2v, CrossAttention::kBidirectional}) {
    const auto model = make_crossmodal_transformer({.cross_attention = form}, {});
    const auto device = engine::make_cpu_device(2);
    engine::ParameterStore parameters(model->parameters(), engine::DType::kF32, false, device.get());
    parameters.initialise(1);
    int compared = 0;
    for (const auto& line : golden::initialisation()) {
      if (line.cross_attention != name_of(form)) continue;
      const auto& specs = parameters.specs();
      const auto spec =
          std::find_if(specs.begin(), specs.end(), [&](const auto& s) { return s.name == line.name; });
      ASSERT_NE(spec, specs.end()) << line.name;
      const engine::Tensor weight = parameters.weight(static_cast<int>(spec - specs.begin()));
      ASSERT_EQ(std::vector<std::int64_t>(weight.shape.extents().begin(), weight.shape.extents().end()),
                line.shape);
      const std::span<const float> values(weight.as<float>(), static_cast<std::size_t>(weight.elements()));
      const auto [low, high] = std::minmax_element(values.begin(), values.end());
      double sum = 0;
      double squares = 0;
      for (const double value : values) {
        sum += value;
        squares += value * value;
      }
      const auto n = static_cast<double>(values.size());
      if (!line.uniform) {
        EXPECT_EQ(*low, static_cast<float>(line.value)) << line.name;
        EXPECT_EQ(*high, static_cast<float>(line.value)) << line.name;
      } else {
        const double deviation = line.bound / std::sqrt(3.0);
        EXPECT_GE(*low, static_cast<float>(-line.bound)) << line.name;
        EXPECT_LE(*high, static_cast<float>(line.bound)) << line.name;
        EXPECT_NEAR(sum / n, 0, 5 * deviation / std::sqrt(n)) << line.name;
        if (values.size() > 100) {
          EXPECT_NEAR(std::sqrt(squares / n), deviation, 5 * deviation / std::sqrt(n)) << line.name;
          EXPECT_LT(*low, -0.9 * line.bound) << line.name;
          EXPECT_GT(*high, 0.9 * line.bound) << line.name;
        }
      }
      ++compared;
    }
    EXPECT_GT(compared, 30);
  }
}

TEST(Initialisation, StartsAllEncoderLayersEqual) {
  const auto model = make_crossmodal_transformer({.hidden = 64, .num_layers = 3}, {});
  const auto device = engine::make_cpu_device(2);
  engine::ParameterStore parameters(model->parameters(), engine::DType::kF32, false, device.get());
  parameters.initialise(3);
  const auto& specs = parameters.specs();
  int compared = 0;
  for (int id = 0; id < parameters.count(); ++id) {
    const auto& spec = specs[static_cast<std::size_t>(id)];
    if (spec.same_start_as < 0) continue;
    const engine::Tensor mine = parameters.weight(id);
    const engine::Tensor first = parameters.weight(spec.same_start_as);
    EXPECT_TRUE(std::equal(mine.as<float>(), mine.as<float>() + mine.elements(), first.as<float>()))
        << spec.name;
    EXPECT_NE(spec.name.find("temporal_encoder.layers."), std::string::npos);
    EXPECT_EQ(specs[static_cast<std::size_t>(spec.same_start_as)].name.find("temporal_encoder.layers.0."),
              0U);
    ++compared;
  }
  EXPECT_EQ(compared, 24);
}

}  // namespace
}  // namespace voca::model
