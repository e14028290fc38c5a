#include "kernels/adamw.h"

#include <fstream>
#include <sstream>

#include "tests/kernels/support/op_test.h"

namespace voca::kernels::testing {
namespace {

template <typename T>
void run(Cpu, const AdamW<T>& args) {
  cpu::adamw(args);
}
template <typename T>
void run(AnyCuda, AdamW<T> args) {
  Scratch<TestedBackend> scratch(cuda::adamw_scratch_bytes());
  args.scratch = scratch.data();
  cuda::adamw(args, nullptr);
}

/// One case of tests/golden/adamw/adamw.txt, made by make_goldens.py next to it.
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
  // strtod: streams do not read the subnormal numbers among the moments.
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
  // A few roundings a step; every parameter, however small its gradient.
  const double tolerance = 8 * static_cast<double>(std::numeric_limits<Statistic>::epsilon());
  int cases = 0;
  for (const Golden& golden : read_goldens()) {
    if (golden.dtype != dtype) continue;
    ++cases;
    const std::vector<double> zeros(golden.start.size(), 0);
    auto master = this->template accumulated<Statistic>(golden.start);
    auto exp_avg = this->template accumulated<Statistic>(zeros);
    auto exp_avg_sq = this->template accumulated<Statistic>(zeros);
    for (std::size_t t = 0; t < golden.steps.size(); ++t) {
      const Golden::Step& step = golden.steps[t];
      auto gradient = this->input(step.gradient);
      auto norm = this->template input<Statistic>(std::vector<double>{step.norm[0] * golden.loss_scale});
      AdamW<Element> args;
      args.elements = std::ssize(golden.start);
      args.lr = step.lr[0];
      args.weight_decay = golden.weight_decay;
      args.step = static_cast<std::int64_t>(t) + 1;
      args.gradient_scale = 1 / golden.loss_scale;
      args.max_norm = golden.max_norm;
      args.norm = golden.max_norm > 0 ? norm.data() : nullptr;
      args.gradient = gradient.data();
      args.master = master.data();
      args.exp_avg = exp_avg.data();
      args.exp_avg_sq = exp_avg_sq.data();
      run(typename TypeParam::Backend{}, args);
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

/// The buffers of one call on `n` elements, from seeded numbers.
template <typename C>
class AdamWBuffers : public OpTest<C> {
 protected:
  using Element = typename C::Element;
  using Statistic = Stat<Element>;

  std::vector<Statistic> step(std::int64_t n, AdamW<Element> args, bool with_weights) {
    auto gradient = this->input(random_values(n, 1));
    auto master = this->template accumulated<Statistic>(random_values(n, 2));
    auto exp_avg = this->template accumulated<Statistic>(random_values(n, 3));
    auto exp_avg_sq = this->template accumulated<Statistic>(random_values(n, 4, 0, 1));
    auto weights = this->output(n);
    args.elements = n;
    args.gradient = gradient.data();
    args.master = master.data();
    args.exp_avg = exp_avg.data();
    args.exp_avg_sq = exp_avg_sq.data();
    args.weights = with_weights ? weights.data() : nullptr;
    run(typename C::Backend{}, args);
    if (with_weights) {
      EXPECT_EQ(weights.values(), rounded_to<Element>(master.values()));
    }
    return concatenate(concatenate(master.raw(), exp_avg.raw()), exp_avg_sq.raw());
  }
};
TYPED_TEST_SUITE(AdamWBuffers, Cases);

TYPED_TEST(AdamWBuffers, EveryElementIsUpdatedAndNoOther) {
  for (const std::int64_t n : {1, 7, 1009, 16384, 40001}) {
    AdamW<typename TypeParam::Element> args;
    args.lr = 0.1;
    args.beta1 = 0.8;
    args.beta2 = 0.9;
    args.eps = 1e-3;
    args.weight_decay = 0.2;
    args.step = 3;
    const auto got = this->step(n, args, true);
    // The formulas of the header, in double.
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

TYPED_TEST(AdamWBuffers, ClippingIsOffAtZeroAndBelowTheLimit) {
  using Number = Stat<typename TypeParam::Element>;
  AdamW<typename TypeParam::Element> args;
  args.lr = 0.1;
  const auto unclipped = this->step(100, args, false);
  auto norm = this->template input<Number>(std::vector<double>{0.9});
  args.norm = norm.data();
  args.max_norm = 1;
  EXPECT_EQ(this->step(100, args, false), unclipped);
  args.max_norm = 0.5;
  EXPECT_NE(this->step(100, args, false), unclipped);
}

TYPED_TEST(AdamWBuffers, NanNormReachesTheWeights) {
  using Number = Stat<typename TypeParam::Element>;
  AdamW<typename TypeParam::Element> args;
  args.lr = 0.1;
  args.max_norm = 1;
  auto norm = this->template input<Number>(std::vector<double>{NAN});
  args.norm = norm.data();
  for (const Number value : this->step(10, args, false)) EXPECT_TRUE(std::isnan(value));
}

TYPED_TEST(AdamWBuffers, SameBitsForAnyThreadCount) {
  AdamW<typename TypeParam::Element> args;
  args.lr = 0.1;
  args.weight_decay = 0.1;
  this->expect_same_bits_for_any_thread_count([&] { return this->step(100003, args, false); });
}

#if defined(VOCA_TEST_CUDA_ON_HOST) || defined(VOCA_TEST_CUDA)

/// Steps whose learning rate, number and loss scale lie on the device.
template <typename C>
class AdamWOnTheDevice : public AdamWBuffers<C> {
 protected:
  using Backend = typename C::Backend;
  using Element = typename C::Element;

  /// One step from `state`, which it updates, with a norm of that value.
  std::vector<float> step(OptimizerState& state, double norm, AdamW<Element> args, bool with_weights = true) {
    auto norm_buffer = this->template input<float>(std::vector<double>{norm});
    void* memory = Backend::allocate(sizeof state);
    Backend::copy_in(memory, &state, sizeof state);
    args.norm = norm_buffer.data();
    args.state = static_cast<OptimizerState*>(memory);
    auto out = AdamWBuffers<C>::step(1009, args, with_weights);
    Backend::copy_out(&state, memory, sizeof state);
    Backend::free(memory);
    return out;
  }
  static AdamW<Element> options() {
    AdamW<Element> args;
    args.weight_decay = 0.1;
    args.max_norm = 1;
    return args;
  }
};
TYPED_TEST_SUITE(AdamWOnTheDevice, Cases);

TYPED_TEST(AdamWOnTheDevice, TakesRateStepAndLossScaleFromTheState) {
  auto args = this->options();
  args.lr = 0.1;
  args.step = 7;
  args.gradient_scale = 0.25 / 8;
  auto norm = this->template input<float>(std::vector<double>{100});
  args.norm = norm.data();
  const auto want = AdamWBuffers<TypeParam>::step(1009, args, true);
  OptimizerState state{.lr = 0.1, .steps = 6, .loss_scale = 8};
  args = this->options();
  args.gradient_scale = 0.25;
  EXPECT_EQ(this->step(state, 100, args), want);
  EXPECT_EQ(state.steps, 7);
  EXPECT_EQ(state.loss_scale, 8);
  EXPECT_EQ(state.good_steps, 0);
}

TYPED_TEST(AdamWOnTheDevice, OverflowLeavesTheStepOutAndHalvesTheLossScale) {
  auto args = this->options();
  args.growth_interval = 3;
  for (const double norm : {static_cast<double>(INFINITY), static_cast<double>(NAN)}) {
    OptimizerState state{.lr = 0.1, .steps = 6, .loss_scale = 8, .good_steps = 2, .skipped = 4};
    auto untouched = concatenate(random_values(1009, 2), random_values(1009, 3));
    untouched = concatenate(untouched, random_values(1009, 4, 0, 1));
    const auto got = this->step(state, norm, args, false);
    EXPECT_EQ(std::vector<double>(got.begin(), got.end()), rounded_to<float>(untouched));
    EXPECT_EQ(state.overflow, 1);
    EXPECT_EQ(state.steps, 6);
    EXPECT_EQ(state.skipped, 5);
    EXPECT_EQ(state.good_steps, 0);
    EXPECT_EQ(state.loss_scale, 4);
  }
}

TYPED_TEST(AdamWOnTheDevice, LossScaleDoublesAfterSoManyGoodSteps) {
  auto args = this->options();
  args.growth_interval = 3;
  OptimizerState state{.lr = 0.1, .loss_scale = 8};
  for (const float scale : {8.0F, 8.0F, 16.0F, 16.0F}) {
    this->step(state, 2, args);
    EXPECT_EQ(state.loss_scale, scale);
    EXPECT_EQ(state.overflow, 0);
  }
  EXPECT_EQ(state.steps, 4);
  EXPECT_EQ(state.good_steps, 1);
}

#endif

}  // namespace
}  // namespace voca::kernels::testing
