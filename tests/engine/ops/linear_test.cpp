#include "engine/core/arena.h"
#include "engine/ops/ops.h"
#include "tests/kernels/support/op_test.h"

// The linear map on the CPU, with the guarded buffers of the kernels' tests.

namespace voca::kernels::testing {
namespace {

struct Shape {
  std::int64_t rows;
  std::int64_t in;
  std::int64_t out;
};

/// Data of one call; a null pointer leaves the argument out.
template <typename T>
struct Linear {
  Shape shape;
  T* x;
  T* weight;
  T* bias;
  T* y;
};
template <typename T>
struct LinearBackward {
  Shape shape;
  T* dy;
  T* x;
  T* weight;
  T* dx = nullptr;
  bool accumulate_dx = false;
  T* dweight = nullptr;
  T* dbias = nullptr;
};

template <typename T>
engine::Tensor tensor(T* data, const engine::Shape& shape) {
  if (data == nullptr) return {};
  return {data, shape, engine::kDTypeOf<T>, engine::DeviceKind::kCpu, "operand"};
}

/// Calls work(context) in a dry run, and again in as much memory as that has asked for.
template <typename Work>
void run_in_its_memory(Work work) {
  engine::Arena measured;
  engine::Context dry_run{measured};
  work(dry_run);
  std::vector<std::byte> memory(measured.high_water());
  engine::Arena arena(memory.data(), memory.size(), engine::DeviceKind::kCpu);
  engine::Context context{arena};
  work(context);
}

template <typename T>
void run(const Linear<T>& a) {
  run_in_its_memory([&](engine::Context& context) {
    const auto [rows, in, out] = a.shape;
    engine::ops::linear(context, tensor(a.x, {rows, in}), tensor(a.weight, {out, in}), tensor(a.bias, {out}),
                        tensor(a.y, {rows, out}));
  });
}

template <typename T>
void run(const LinearBackward<T>& a) {
  run_in_its_memory([&](engine::Context& context) {
    const auto [rows, in, out] = a.shape;
    engine::ops::linear_backward(context, {.dy = tensor(a.dy, {rows, out}),
                                           .x = tensor(a.x, {rows, in}),
                                           .weight = tensor(a.weight, {out, in}),
                                           .dx = tensor(a.dx, {rows, in}),
                                           .accumulate_dx = a.accumulate_dx,
                                           .dweight = tensor(a.dweight, {out, in}),
                                           .dbias = tensor(a.dbias, {out})});
  });
}

constexpr Shape kShapes[] = {{1, 1, 1},     {1, 7, 3},      {5, 1, 11},     {13, 17, 1},
                             {71, 229, 37}, {523, 64, 128}, {2053, 131, 67}};

std::size_t at(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

std::vector<double> reference_forward(const Shape& s, const std::vector<double>& x,
                                      const std::vector<double>& weight, const std::vector<double>& bias) {
  std::vector<double> y(at(s.rows * s.out));
  for (std::int64_t r = 0; r < s.rows; ++r) {
    for (std::int64_t o = 0; o < s.out; ++o) {
      double sum = bias.empty() ? 0 : bias[at(o)];
      for (std::int64_t i = 0; i < s.in; ++i) sum += x[at(r * s.in + i)] * weight[at(o * s.in + i)];
      y[at(r * s.out + o)] = sum;
    }
  }
  return y;
}

template <typename C>
class LinearTest : public OpTest<C> {};
TYPED_TEST_SUITE(LinearTest, Cases);

TYPED_TEST(LinearTest, ForwardMatchesTheFormulaWithAndWithoutBias) {
  using T = typename TypeParam::Element;
  for (const Shape& s : kShapes) {
    for (const bool with_bias : {false, true}) {
      SCOPED_TRACE(::testing::Message()
                   << s.rows << " rows, " << s.in << " to " << s.out << ", bias " << with_bias);
      auto x = this->input(random_values(s.rows * s.in, 1));
      auto weight = this->input(random_values(s.out * s.in, 2));
      auto bias = this->input(random_values(s.out, 3));
      auto y = this->output(s.rows * s.out);
      run(Linear<T>{s, x.data(), weight.data(), with_bias ? bias.data() : nullptr, y.data()});
      this->expect_close(y,
                         reference_forward(s, x.values(), weight.values(),
                                           with_bias ? bias.values() : std::vector<double>{}),
                         kGemm, "y");
    }
  }
}

TYPED_TEST(LinearTest, BackwardMatchesTheFormulaAndAccumulatesWhatItSays) {
  using T = typename TypeParam::Element;
  for (const Shape& s : kShapes) {
    for (const bool accumulate : {false, true}) {
      SCOPED_TRACE(::testing::Message()
                   << s.rows << " rows, " << s.in << " to " << s.out << ", accumulate " << accumulate);
      auto x = this->input(random_values(s.rows * s.in, 1));
      auto weight = this->input(random_values(s.out * s.in, 2));
      auto dy = this->input(random_values(s.rows * s.out, 3));
      auto dweight = this->accumulated(random_values(s.out * s.in, 4));
      auto dbias = this->accumulated(random_values(s.out, 5));
      auto dx = accumulate ? this->accumulated(random_values(s.rows * s.in, 6)) : this->output(s.rows * s.in);
      std::vector<double> want_dweight = dweight.values();
      std::vector<double> want_dbias = dbias.values();
      std::vector<double> want_dx = accumulate ? dx.values() : std::vector<double>(at(s.rows * s.in));
      const auto xv = x.values();
      const auto wv = weight.values();
      const auto dyv = dy.values();
      for (std::int64_t r = 0; r < s.rows; ++r) {
        for (std::int64_t o = 0; o < s.out; ++o) {
          const double d = dyv[at(r * s.out + o)];
          want_dbias[at(o)] += d;
          for (std::int64_t i = 0; i < s.in; ++i) {
            want_dweight[at(o * s.in + i)] += d * xv[at(r * s.in + i)];
            want_dx[at(r * s.in + i)] += d * wv[at(o * s.in + i)];
          }
        }
      }
      run(LinearBackward<T>{.shape = s,
                            .dy = dy.data(),
                            .x = x.data(),
                            .weight = weight.data(),
                            .dx = dx.data(),
                            .accumulate_dx = accumulate,
                            .dweight = dweight.data(),
                            .dbias = dbias.data()});
      this->expect_close(dx, want_dx, kGemm, "dx");
      this->expect_close(dweight, want_dweight, kGemm, "dweight");
      this->expect_close(dbias, want_dbias, kGemm, "dbias");
    }
  }
}

TYPED_TEST(LinearTest, BackwardLeavesOutWhatIsNotAskedFor) {
  using T = typename TypeParam::Element;
  auto x = this->input(random_values(35, 1));
  auto weight = this->input(random_values(21, 2));
  auto dy = this->input(random_values(15, 3));
  auto dweight = this->accumulated(std::vector<double>(21));
  run(LinearBackward<T>{.shape = {5, 7, 3},
                        .dy = dy.data(),
                        .x = x.data(),
                        .weight = weight.data(),
                        .dweight = dweight.data()});
  for (const double d : dweight.values()) EXPECT_NE(d, 0);
}

TYPED_TEST(LinearTest, BitsDoNotDependOnTheThreads) {
  using T = typename TypeParam::Element;
  const Shape s{2053, 131, 267};
  auto x = this->input(random_values(s.rows * s.in, 1));
  auto weight = this->input(random_values(s.out * s.in, 2));
  auto bias = this->input(random_values(s.out, 3));
  auto dy = this->input(random_values(s.rows * s.out, 4));
  this->expect_same_bits_for_any_thread_count([&] {
    auto y = this->output(s.rows * s.out);
    auto dx = this->output(s.rows * s.in);
    auto dweight = this->accumulated(random_values(s.out * s.in, 5));
    auto dbias = this->accumulated(random_values(s.out, 6));
    run(Linear<T>{s, x.data(), weight.data(), bias.data(), y.data()});
    run(LinearBackward<T>{.shape = s,
                          .dy = dy.data(),
                          .x = x.data(),
                          .weight = weight.data(),
                          .dx = dx.data(),
                          .dweight = dweight.data(),
                          .dbias = dbias.data()});
    return concatenate(concatenate(y.raw(), dx.raw()), concatenate(dweight.raw(), dbias.raw()));
  });
}

template <typename C>
class LinearDerivative : public OpTest<C> {};
TYPED_TEST_SUITE(LinearDerivative, DoubleCases);

TYPED_TEST(LinearDerivative, BackwardIsTheDerivativeOfForward) {
  const Shape s{6, 5, 4};
  const auto x = random_values(s.rows * s.in, 1);
  const auto weight = random_values(s.out * s.in, 2);
  const auto bias = random_values(s.out, 3);
  const auto w = random_values(s.rows * s.out, 4);
  const auto objective = [&](const std::vector<double>& xs, const std::vector<double>& ws,
                             const std::vector<double>& bs) {
    auto xb = this->input(xs);
    auto wb = this->input(ws);
    auto bb = this->input(bs);
    auto y = this->output(s.rows * s.out);
    run(Linear<double>{s, xb.data(), wb.data(), bb.data(), y.data()});
    return weighted_sum_of(w, y.values());
  };
  auto xb = this->input(x);
  auto wb = this->input(weight);
  auto dy = this->input(w);
  auto dx = this->output(s.rows * s.in);
  auto dweight = this->accumulated(std::vector<double>(at(s.out * s.in)));
  auto dbias = this->accumulated(std::vector<double>(at(s.out)));
  run(LinearBackward<double>{.shape = s,
                             .dy = dy.data(),
                             .x = xb.data(),
                             .weight = wb.data(),
                             .dx = dx.data(),
                             .dweight = dweight.data(),
                             .dbias = dbias.data()});
  expect_gradient([&](const auto& p) { return objective(p, weight, bias); }, x, dx.values(), "dx");
  expect_gradient([&](const auto& p) { return objective(x, p, bias); }, weight, dweight.values(), "dweight");
  expect_gradient([&](const auto& p) { return objective(x, weight, p); }, bias, dbias.values(), "dbias");
}

}  // namespace
}  // namespace voca::kernels::testing
