#include "kernels/adamw.h"

#include <fstream>
#include <sstream>

#include "tests/kernels/support/op_test.h"

namespace voca::kernels::testing {
namespace {

/// Runs one update. The state is copied to the memory of the backend and back.
template <typename Backend, typename T, typename G>
void run(Backend backend, AdamW<T, G> args, OptimizerState& state) {
  Scratch<Backend> scratch(scratch_bytes(backend, args));
  Scratch<Backend> state_memory(sizeof state);
  Backend::copy_in(state_memory.data(), &state, sizeof state);
  args.state = static_cast<OptimizerState*>(state_memory.data());
  args.scratch = scratch.data();
  adamw(backend, args);
  Backend::copy_out(&state, state_memory.data(), sizeof state);
}

/// One case of tests/golden/adamw/adamw.txt, which make_goldens.py in the same directory generates.
struct Golden {
  struct Step {
    std::vector<double> lr, gradient, norm, parameter, exp_avg, exp_avg_sq;
  };
  std::string name;
  std::string dtype;
  double weight_decay = 0;
  double max_norm = 0;
  double loss_scale = 1;
  std::vector<double> start;
  std::vector<Step> steps;
};

std::vector<double> read_numbers(std::istream& file, const std::string& keyword) {
  std::string line;
  std::getline(file, line);
  std::istringstream words(line);
  std::string word;
  words >> word;
  EXPECT_EQ(word, keyword);
  std::vector<double> numbers;
  // strtod, because streams reject the subnormal numbers among the moments.
  while (words >> word) numbers.push_back(std::strtod(word.c_str(), nullptr));
  return numbers;
}

std::vector<Golden> read_goldens() {
  std::ifstream file(VOCA_GOLDEN_DIR "/adamw/adamw.txt");
  std::vector<Golden> goldens;
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string keyword;
    std::size_t elements = 0;
    std::size_t steps = 0;
    Golden golden;
    words >> keyword >> golden.name >> golden.dtype >> elements >> steps >> golden.weight_decay >>
        golden.max_norm >> golden.loss_scale;
    EXPECT_EQ(keyword, "case");
    golden.start = read_numbers(file, "start");
    EXPECT_EQ(golden.start.size(), elements);
    golden.steps.resize(steps);
    for (Golden::Step& step : golden.steps) {
      step.lr = read_numbers(file, "lr");
      step.gradient = read_numbers(file, "gradient");
      step.norm = read_numbers(file, "norm");
      step.parameter = read_numbers(file, "parameter");
      step.exp_avg = read_numbers(file, "exp_avg");
      step.exp_avg_sq = read_numbers(file, "exp_avg_sq");
    }
    goldens.push_back(golden);
  }
  return goldens;
}

template <typename C>
class AdamWTest : public OpTest<C> {};
TYPED_TEST_SUITE(AdamWTest, Cases);

TYPED_TEST(AdamWTest, FollowsTorchStepForStep) {
  using Element = typename TypeParam::Element;
  if (kIsNarrow<Element>) GTEST_SKIP() << "PyTorch's gradients are float32 and float64";
  using Statistic = Stat<Element>;
  const std::string dtype = std::is_same_v<Element, double> ? "float64" : "float32";
  // A few roundings per step, for every parameter regardless of the size of its gradient.
  const double tolerance = 8 * static_cast<double>(std::numeric_limits<Statistic>::epsilon());
  int cases = 0;
  for (const Golden& golden : read_goldens()) {
    if (golden.dtype != dtype) continue;
    ++cases;
    const std::vector<double> zeros(golden.start.size(), 0);
    auto master = this->template accumulated<Statistic>(golden.start);
    auto exp_avg = this->template accumulated<Statistic>(zeros);
    auto exp_avg_sq = this->template accumulated<Statistic>(zeros);
    OptimizerState state;
    for (std::size_t t = 0; t < golden.steps.size(); ++t) {
      const Golden::Step& step = golden.steps[t];
      auto gradient = this->input(step.gradient);
      auto norm = this->template input<Statistic>(std::vector<double>{step.norm[0] * golden.loss_scale});
      AdamW<Element> args;
      args.elements = std::ssize(golden.start);
      state.lr = step.lr[0];
      state.loss_scale = static_cast<float>(golden.loss_scale);
      args.options.weight_decay = golden.weight_decay;
      args.max_norm = golden.max_norm;
      args.norm = norm.data();
      args.gradient = gradient.data();
      args.master = master.data();
      args.exp_avg = exp_avg.data();
      args.exp_avg_sq = exp_avg_sq.data();
      run(typename TypeParam::Backend{}, args, state);
      EXPECT_EQ(state.steps, static_cast<std::int64_t>(t) + 1);
      for (std::size_t i = 0; i < golden.start.size(); ++i) {
        const auto near = [&](const auto& got, const std::vector<double>& want) {
          EXPECT_NEAR(got.values()[i], want[i], tolerance * static_cast<double>(t + 1) * std::abs(want[i]))
              << golden.name << ", step " << t << ", element " << i;
        };
        near(master, step.parameter);
        near(exp_avg, step.exp_avg);
        near(exp_avg_sq, step.exp_avg_sq);
      }
    }
  }
  EXPECT_EQ(cases, 3);
}

/// Fixture that runs one call on `n` elements with seeded inputs.
template <typename C>
class AdamWBuffers : public OpTest<C> {
 protected:
  using Element = typename C::Element;
  using Statistic = Stat<Element>;

  /// Inputs of the step: norm of the gradients, factor of the gradients, losses.
  double norm = 0.5;
  double gradient_scale = 1;
  std::vector<double> losses;
  OptimizerState state{.lr = 0.1};

  /// Runs one step with gradients rounded to Element and stored as G.
  template <typename G>
  std::vector<Statistic> step(std::int64_t n, AdamW<Element, G> args, bool with_weights = false) {
    auto norm_buffer = this->template input<Statistic>(std::vector<double>{norm});
    auto loss_buffer = this->template input<Statistic>(losses);
    std::vector<double> gradient_values = random_values(n, 1);
    for (double& value : gradient_values) value *= gradient_scale;
    auto gradient = this->template input<G>(rounded_to<Element>(gradient_values));
    auto master = this->template accumulated<Statistic>(random_values(n, 2));
    auto exp_avg = this->template accumulated<Statistic>(random_values(n, 3));
    auto exp_avg_sq = this->template accumulated<Statistic>(random_values(n, 4, 0, 1));
    auto weights = this->output(n);
    args.elements = n;
    args.norm = norm_buffer.data();
    args.losses = loss_buffer.data();
    args.loss_count = std::ssize(losses);
    args.gradient = gradient.data();
    args.master = master.data();
    args.exp_avg = exp_avg.data();
    args.exp_avg_sq = exp_avg_sq.data();
    args.weights = with_weights ? weights.data() : nullptr;
    run(typename C::Backend{}, args, state);
    if (with_weights) {
      EXPECT_EQ(weights.values(), rounded_to<Element>(master.values()));
    }
    return concatenate(concatenate(master.raw(), exp_avg.raw()), exp_avg_sq.raw());
  }
  /// Masters and moments before step().
  static std::vector<double> start(std::int64_t n) {
    const auto values = concatenate(random_values(n, 2), random_values(n, 3));
    return rounded_to<Statistic>(concatenate(values, random_values(n, 4, 0, 1)));
  }
};
TYPED_TEST_SUITE(AdamWBuffers, Cases);

TYPED_TEST(AdamWBuffers, EveryElementIsUpdatedAndNoOther) {
  for (const std::int64_t n : {1, 7, 1009, 16384, 40001}) {
    AdamW<typename TypeParam::Element> args;
    args.options.beta1 = 0.8;
    args.options.beta2 = 0.9;
    args.options.eps = 1e-3;
    args.options.weight_decay = 0.2;
    this->state.steps = 2;
    const auto got = this->step(n, args, true);
    // Formulas of the header, in double.
    const std::vector<double> g = rounded_to<typename TypeParam::Element>(random_values(n, 1));
    std::vector<double> w = random_values(n, 2);
    std::vector<double> m = random_values(n, 3);
    std::vector<double> v = random_values(n, 4, 0, 1);
    for (std::size_t i = 0; i < g.size(); ++i) {
      m[i] += 0.2 * (g[i] - m[i]);
      v[i] = 0.9 * v[i] + 0.1 * g[i] * g[i];
      w[i] = w[i] * (1 - 0.1 * 0.2) -
             0.1 / (1 - std::pow(0.8, 3)) * m[i] / (std::sqrt(v[i]) / std::sqrt(1 - std::pow(0.9, 3)) + 1e-3);
    }
    const double tolerance = kElementwise.of<typename TypeParam::Element>();
    EXPECT_LE(normalised_error(got, concatenate(concatenate(w, m), v)), tolerance) << n;
  }
}

TYPED_TEST(AdamWBuffers, GradientsInTheMastersTypeGiveTheSameBits) {
  using T = typename TypeParam::Element;
  for (const std::int64_t n : {1, 7, 1009}) {
    this->state = {.lr = 0.1};
    const auto narrow = this->step(n, AdamW<T>{}, true);
    this->state = {.lr = 0.1};
    EXPECT_EQ(this->step(n, AdamW<T, Stat<T>>{}, true), narrow);
  }
}

TYPED_TEST(AdamWBuffers, ClippingIsOffAtZeroAndBelowTheLimit) {
  AdamW<typename TypeParam::Element> args;
  const auto step = [&] {
    this->state = {.lr = 0.1};
    return this->step(100, args);
  };
  this->norm = 0.9;
  const auto unclipped = step();
  args.max_norm = 1;
  EXPECT_EQ(step(), unclipped);
  args.max_norm = 0.5;
  EXPECT_NE(step(), unclipped);
}

// The loss scale is a power of two, so the results are exact.
TYPED_TEST(AdamWBuffers, TheLossScaleIsTakenOutOfGradientAndNorm) {
  AdamW<typename TypeParam::Element> args;
  args.max_norm = 1;
  const auto step = [&](float loss_scale) {
    this->norm = 100 * static_cast<double>(loss_scale);
    this->gradient_scale = static_cast<double>(loss_scale);
    this->state = {.lr = 0.1, .steps = 6, .loss_scale = loss_scale};
    auto got = this->step(1009, args);
    EXPECT_EQ(this->state.norm, 100);
    EXPECT_EQ(this->state.steps, 7);
    EXPECT_EQ(this->state.loss_scale, loss_scale);
    EXPECT_EQ(this->state.good_steps, 0);
    return got;
  };
  EXPECT_EQ(step(8), step(1));
}

TYPED_TEST(AdamWBuffers, OverflowLeavesTheStepOutAndHalvesTheLossScale) {
  AdamW<typename TypeParam::Element> args;
  args.options.weight_decay = 0.1;
  args.growth_interval = 3;
  this->losses = {0.5, 0.25};
  for (const double value : {static_cast<double>(INFINITY), static_cast<double>(NAN)}) {
    this->norm = value;
    this->state = {.lr = 0.1, .steps = 6, .loss_scale = 8, .good_steps = 2};
    const auto got = this->step(1009, args);
    EXPECT_EQ(std::vector<double>(got.begin(), got.end()), this->start(1009));
    EXPECT_EQ(this->state.outcome, StepOutcome::kOverflow);
    EXPECT_EQ(this->state.steps, 6);
    EXPECT_EQ(this->state.good_steps, 0);
    EXPECT_EQ(this->state.loss_scale, 4);
  }
}

TYPED_TEST(AdamWBuffers, WhatIsNotFiniteWithoutAScaleToBlameIsABadStep) {
  AdamW<typename TypeParam::Element> args;
  struct Bad {
    double norm;
    std::vector<double> losses;
    std::int64_t growth_interval;
    float loss_scale;
  };
  const double nan = static_cast<double>(NAN);
  const std::vector<Bad> cases{{nan, {1}, 0, 1},    {nan, {1}, 3, 1},         {nan, {1}, 0, 8},
                               {1, {1, nan}, 3, 8}, {1, {INFINITY, 1}, 0, 1}, {nan, {nan}, 3, 8}};
  for (const Bad& bad : cases) {
    this->norm = bad.norm;
    this->losses = bad.losses;
    this->state = {.lr = 0.1, .steps = 6, .loss_scale = bad.loss_scale, .good_steps = 2};
    args.growth_interval = bad.growth_interval;
    const auto got = this->step(100, args);
    EXPECT_EQ(std::vector<double>(got.begin(), got.end()), this->start(100));
    EXPECT_EQ(this->state.outcome, StepOutcome::kNotFinite);
    EXPECT_EQ(this->state.steps, 6);
    EXPECT_EQ(this->state.good_steps, 2);
    EXPECT_EQ(this->state.loss_scale, bad.loss_scale);
  }
}

TYPED_TEST(AdamWBuffers, LossScaleDoublesAfterSoManyGoodSteps) {
  AdamW<typename TypeParam::Element> args;
  args.growth_interval = 3;
  this->state = {.lr = 0.1, .loss_scale = 8};
  for (const float scale : {8.0F, 8.0F, 16.0F, 16.0F}) {
    this->step(100, args);
    EXPECT_EQ(this->state.loss_scale, scale);
    EXPECT_EQ(this->state.outcome, StepOutcome::kUpdated);
  }
  EXPECT_EQ(this->state.steps, 4);
  EXPECT_EQ(this->state.good_steps, 1);
}

TYPED_TEST(AdamWBuffers, SameBitsForAnyThreadCount) {
  AdamW<typename TypeParam::Element> args;
  args.options.weight_decay = 0.1;
  this->expect_same_bits_for_any_thread_count([&] {
    this->state = {.lr = 0.1};
    return this->step(100003, args);
  });
}

}  // namespace
}  // namespace voca::kernels::testing
