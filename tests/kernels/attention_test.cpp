#include "kernels/attention.h"

#include "tests/kernels/support/dropout.h"
#include "tests/kernels/support/op_test.h"

namespace voca::kernels::testing {
namespace {

std::size_t at(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

// `gap`, `2 · gap` and `3 · gap` are the elements by which the row strides of q, k and v exceed heads · d.
AttentionShape shape_of(std::int64_t batch, std::int64_t heads, std::int64_t d, std::int64_t query_length,
                        std::int64_t key_length, std::int64_t gap = 0) {
  const std::int64_t width = heads * d;
  return {batch, heads, d, query_length, key_length, width + gap, width + 2 * gap, width + 3 * gap};
}

template <typename T>
std::vector<AttentionShape> shapes_of(Cpu) {
  return {shape_of(1, 1, 1, 1, 1),       shape_of(2, 3, 5, 1, 7),       shape_of(1, 2, 64, 7, 1),
          shape_of(2, 2, 32, 48, 48, 9), shape_of(1, 3, 17, 37, 71, 1), shape_of(3, 1, 96, 71, 37, 2),
          shape_of(1, 2, 64, 331, 129),  shape_of(1, 1, 33, 19, 1500),  shape_of(1, 1, 8, 17, 9001)};
}
/// Shapes for the fused kernels: every head size; lengths of one, of whole tiles and of partial tiles.
template <typename T>
std::vector<AttentionShape> shapes_of(Cuda) {
  return {shape_of(1, 1, 32, 1, 1),       shape_of(2, 3, 32, 1, 7),       shape_of(1, 2, 64, 7, 1),
          shape_of(2, 2, 32, 48, 48, 8),  shape_of(1, 3, 64, 37, 71, 16), shape_of(2, 1, 96, 71, 37, 8),
          shape_of(1, 2, 64, 128, 64),    shape_of(1, 1, 96, 65, 129),    shape_of(1, 1, 128, 64, 64),
          shape_of(1, 2, 128, 71, 97, 8), shape_of(1, 1, 32, 131, 320)};
}
const Dropout kDropouts[] = {{}, test_dropout(0.1), test_dropout(0.5, 9, 40)};

std::string name_of(const AttentionShape& s) {
  return "B " + std::to_string(s.batch) + " N " + std::to_string(s.heads) + " d " +
         std::to_string(s.head_size) + " Tq " + std::to_string(s.query_length) + " Tk " +
         std::to_string(s.key_length);
}

struct Inputs {
  std::vector<double> q, k, v;
};

Inputs inputs_of(const AttentionShape& s) {
  return {random_values(s.batch * s.query_length * s.query_stride, 1, -2, 2),
          random_values(s.batch * s.key_length * s.key_stride, 2, -2, 2),
          random_values(s.batch * s.key_length * s.value_stride, 3)};
}

std::int64_t out_size(const AttentionShape& s) {
  return s.batch * s.query_length * s.heads * s.head_size;
}

struct Reference {
  std::vector<double> out, logsumexp, dq, dk, dv;
};

// Attention by its formulas, one row of probabilities at a time. Adds to dq, dk and dv of `result`, so gaps
// between rows stay unchanged. Intermediate values that separate operations would store are rounded to
// Stored.
template <typename Stored>
Reference reference(const AttentionShape& s, const Inputs& in, const Dropout& dropout,
                    const std::vector<double>& dout, Reference result) {
  const double scale = 1 / std::sqrt(static_cast<double>(s.head_size));
  const std::int64_t d = s.head_size;
  const auto stored = [](double x) { return to_double(from_double<Stored>(x)); };
  result.out.assign(at(out_size(s)), 0);
  result.logsumexp.assign(at(s.batch * s.heads * s.query_length), 0);
  std::vector<double> p(at(s.key_length));
  std::vector<double> factor(at(s.key_length));
  for (std::int64_t bn = 0; bn < s.batch * s.heads; ++bn) {
    const std::int64_t b = bn / s.heads;
    const std::int64_t head = bn % s.heads * d;
    for (std::int64_t i = 0; i < s.query_length; ++i) {
      const std::int64_t qi = (b * s.query_length + i) * s.query_stride + head;
      const std::int64_t oi = (b * s.query_length + i) * s.heads * d + head;
      const auto kj = [&](std::int64_t j) { return (b * s.key_length + j) * s.key_stride + head; };
      const auto vj = [&](std::int64_t j) { return (b * s.key_length + j) * s.value_stride + head; };
      double sum = 0;
      double most = -1e300;
      for (std::int64_t j = 0; j < s.key_length; ++j) {
        double dot = 0;
        for (std::int64_t c = 0; c < d; ++c) dot += in.q[at(qi + c)] * in.k[at(kj(j) + c)];
        p[at(j)] = stored(scale * dot);
        most = std::max(most, p[at(j)]);
        factor[at(j)] = reference_factor(dropout, bn, i, j, s.query_length, s.key_length);
      }
      for (const double score : p) sum += std::exp(score - most);
      result.logsumexp[at(bn * s.query_length + i)] = most + std::log(sum);
      for (std::int64_t j = 0; j < s.key_length; ++j) {
        p[at(j)] = stored(std::exp(p[at(j)] - most) / sum);
        for (std::int64_t c = 0; c < d; ++c)
          result.out[at(oi + c)] += stored(p[at(j)] * factor[at(j)]) * in.v[at(vj(j) + c)];
      }
      const auto dropped_gradient = [&](std::int64_t j) {
        double dot = 0;
        for (std::int64_t c = 0; c < d; ++c) dot += dout[at(oi + c)] * in.v[at(vj(j) + c)];
        return stored(stored(dot) * factor[at(j)]);
      };
      double delta = 0;
      for (std::int64_t c = 0; c < d; ++c) delta += dout[at(oi + c)] * stored(result.out[at(oi + c)]);
      for (std::int64_t j = 0; j < s.key_length; ++j) {
        const double ds = stored(scale * p[at(j)] * (dropped_gradient(j) - delta));
        for (std::int64_t c = 0; c < d; ++c) {
          result.dq[at(qi + c)] += ds * in.k[at(kj(j) + c)];
          result.dk[at(kj(j) + c)] += ds * in.q[at(qi + c)];
          result.dv[at(vj(j) + c)] += stored(p[at(j)] * factor[at(j)]) * dout[at(oi + c)];
        }
      }
    }
  }
  return result;
}

// Rounds all results except logsumexp to Stored.
template <typename Stored>
Reference rounded(Reference r) {
  for (auto* values : {&r.out, &r.dq, &r.dk, &r.dv}) *values = rounded_to<Stored>(*values);
  return r;
}

// Rows with `poison` in the elements of the heads and 0.25 in the gaps, which the operation must not touch.
std::vector<double> poisoned(const AttentionShape& s, std::int64_t rows, std::int64_t stride, double poison) {
  std::vector<double> values(at(rows * stride), 0.25);
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < s.heads * s.head_size; ++c) values[at(r * stride + c)] = poison;
  }
  return values;
}

template <typename C>
class AttentionTest : public OpTest<C> {
 public:
  using Number = typename C::Element;
  using Statistic = Stat<Number>;
  template <typename U>
  using Array = Buffer<typename C::Backend, U>;

  struct Forward {
    Array<Number> out;
    Array<Statistic> logsumexp;
  };
  struct Gradients {
    Array<Number> dq, dk, dv;
  };

  Forward forward(const AttentionShape& s, const Inputs& in, const Dropout& dropout) {
    auto q = this->input(in.q);
    auto k = this->input(in.k);
    auto v = this->input(in.v);
    Scratch<typename C::Backend> scratch(
        scratch_bytes(typename C::Backend{}, AttentionForward<Number>{.shape = s}));
    Forward result{this->output(out_size(s)),
                   this->template output<Statistic>(s.batch * s.heads * s.query_length)};
    attention_forward(typename C::Backend{},
                      AttentionForward<Number>{s, q.data(), k.data(), v.data(), dropout, result.out.data(),
                                               result.logsumexp.data(), scratch.data()});
    return result;
  }

  Gradients backward(const AttentionShape& s, const Inputs& in, const Dropout& dropout,
                     const std::vector<double>& upstream, Forward& saved) {
    auto q = this->input(in.q);
    auto k = this->input(in.k);
    auto v = this->input(in.v);
    auto dout = this->input(upstream);
    auto out = this->input(saved.out.values());
    auto logsumexp = this->template input<Statistic>(saved.logsumexp.values());
    Scratch<typename C::Backend> scratch(
        scratch_bytes(typename C::Backend{}, AttentionBackward<Number>{.shape = s}));
    const double nan = std::nan("");
    Gradients result{this->accumulated(poisoned(s, s.batch * s.query_length, s.query_stride, nan)),
                     this->accumulated(poisoned(s, s.batch * s.key_length, s.key_stride, nan)),
                     this->accumulated(poisoned(s, s.batch * s.key_length, s.value_stride, nan))};
    attention_backward(typename C::Backend{},
                       AttentionBackward<Number>{s, dout.data(), q.data(), k.data(), v.data(), out.data(),
                                                 logsumexp.data(), dropout, result.dq.data(),
                                                 result.dk.data(), result.dv.data(), scratch.data()});
    return result;
  }

  // Rounds the inputs to the element type, as the operation sees them.
  static Inputs rounded_inputs(const Inputs& in) {
    return {rounded_to<Number>(in.q), rounded_to<Number>(in.k), rounded_to<Number>(in.v)};
  }

  static Reference expected(const AttentionShape& s, const Inputs& in, const Dropout& dropout,
                            const std::vector<double>& dout) {
    return reference<double>(s, in, dropout, dout, before(s));
  }
  static Reference naive(const AttentionShape& s, const Inputs& in, const Dropout& dropout,
                         const std::vector<double>& dout) {
    return testing::rounded<Number>(reference<Number>(s, in, dropout, dout, before(s)));
  }

  // Head size that every backend supports.
  static constexpr std::int64_t kHead = 32;

 private:
  static Reference before(const AttentionShape& s) {
    Reference r;
    r.dq = poisoned(s, s.batch * s.query_length, s.query_stride, 0);
    r.dk = poisoned(s, s.batch * s.key_length, s.key_stride, 0);
    r.dv = poisoned(s, s.batch * s.key_length, s.value_stride, 0);
    return r;
  }
};
TYPED_TEST_SUITE(AttentionTest, TensorCoreCases);

TYPED_TEST(AttentionTest, MatchesTheFormulaForwardAndBackward) {
  using Element = typename TypeParam::Element;
  for (const AttentionShape& s : shapes_of<Element>(typename TypeParam::Backend{})) {
    for (const Dropout& dropout : kDropouts) {
      SCOPED_TRACE(name_of(s) + ", threshold " + std::to_string(dropout.threshold));
      const Inputs in = this->rounded_inputs(inputs_of(s));
      const auto dout = rounded_to<Element>(random_values(out_size(s), 4));
      const Reference want = this->expected(s, in, dropout, dout);
      const Reference naive = this->naive(s, in, dropout, dout);
      auto got = this->forward(s, in, dropout);
      this->expect_close(got.out, want.out, naive.out, kAttention, "out");
      this->expect_close(got.logsumexp, want.logsumexp, kReduction, "logsumexp");
      auto gradients = this->backward(s, in, dropout, dout, got);
      this->expect_close(gradients.dv, want.dv, naive.dv, kAttention, "dv");
      if (s.key_length > 1) {
        this->expect_close(gradients.dq, want.dq, naive.dq, kAttention, "dq");
        this->expect_close(gradients.dk, want.dk, naive.dk, kAttention, "dk");
      } else {
        // P is 1 for any scores, and dS is 0 up to cancellation error, which is small compared with dP of
        // size d; delta uses the rounded output.
        const double rounding = (kAttention.of<Element>() + (kIsNarrow<Element> ? epsilon<Element>() : 0)) *
                                static_cast<double>(s.head_size);
        for (const double value : gradients.dq.values())
          EXPECT_TRUE(value == 0.25 || std::abs(value) < rounding);
        for (const double value : gradients.dk.values())
          EXPECT_TRUE(value == 0.25 || std::abs(value) < rounding);
      }
    }
  }
}

TYPED_TEST(AttentionTest, ReadsAndWritesSlicesOfOnePackedProjection) {
  using Element = typename TypeParam::Element;
  constexpr std::int64_t head = AttentionTest<TypeParam>::kHead;
  constexpr std::int64_t width = 3 * head;
  constexpr std::int64_t stride = 3 * width;
  const AttentionShape packed{2, 3, head, 40, 40, stride, stride, stride};
  const AttentionShape apart = shape_of(2, 3, head, 40, 40);
  const auto qkv = random_values(2 * 40 * stride, 1);
  const auto dout = random_values(out_size(packed), 4);
  Inputs in;
  for (std::int64_t i = 0; i < 2 * 40 * stride; ++i)
    (i % stride < width ? in.q : i % stride < 2 * width ? in.k : in.v).push_back(qkv[at(i)]);
  auto saved = this->forward(apart, in, test_dropout(0.1));
  auto want = this->backward(apart, in, test_dropout(0.1), dout, saved);

  using Backend = typename TypeParam::Backend;
  auto all = this->input(qkv);
  auto upstream = this->input(dout);
  auto out = this->output(out_size(packed));
  auto logsumexp = this->template output<Stat<Element>>(2 * 3 * 40);
  auto gradient = this->output(2 * 40 * stride);
  Scratch<Backend> first(scratch_bytes(Backend{}, AttentionForward<Element>{.shape = packed}));
  Scratch<Backend> second(scratch_bytes(Backend{}, AttentionBackward<Element>{.shape = packed}));
  attention_forward(Backend{},
                    AttentionForward<Element>{packed, all.data(), all.data() + width, all.data() + 2 * width,
                                              test_dropout(0.1), out.data(), logsumexp.data(), first.data()});
  attention_backward(Backend{},
                     AttentionBackward<Element>{packed, upstream.data(), all.data(), all.data() + width,
                                                all.data() + 2 * width, out.data(), logsumexp.data(),
                                                test_dropout(0.1), gradient.data(), gradient.data() + width,
                                                gradient.data() + 2 * width, second.data()});
  EXPECT_EQ(out.raw(), saved.out.raw());
  const auto got = gradient.raw();
  std::vector<Raw<Element>> dq;
  std::vector<Raw<Element>> dk;
  std::vector<Raw<Element>> dv;
  for (std::int64_t i = 0; i < 2 * 40 * stride; ++i)
    (i % stride < width ? dq : i % stride < 2 * width ? dk : dv).push_back(got[at(i)]);
  EXPECT_EQ(dq, want.dq.raw());
  EXPECT_EQ(dk, want.dk.raw());
  EXPECT_EQ(dv, want.dv.raw());
}

TYPED_TEST(AttentionTest, InferenceNeedsNoLogsumexp) {
  using Element = typename TypeParam::Element;
  using Backend = typename TypeParam::Backend;
  const AttentionShape s = shape_of(1, 3, AttentionTest<TypeParam>::kHead, 37, 71, 8);
  const Inputs in = inputs_of(s);
  auto want = this->forward(s, in, {});
  auto q = this->input(in.q);
  auto k = this->input(in.k);
  auto v = this->input(in.v);
  auto out = this->output(out_size(s));
  Scratch<Backend> scratch(scratch_bytes(Backend{}, AttentionForward<Element>{.shape = s}));
  attention_forward(Backend{}, AttentionForward<Element>{
                                   s, q.data(), k.data(), v.data(), {}, out.data(), nullptr, scratch.data()});
  EXPECT_EQ(out.raw(), want.out.raw());
}

TYPED_TEST(AttentionTest, HugeScoresDoNotOverflow) {
  const AttentionShape s = shape_of(1, 1, AttentionTest<TypeParam>::kHead, 20, 20);
  Inputs in = inputs_of(s);
  for (double& value : in.q) value *= 1000;
  in = this->rounded_inputs(in);
  auto got = this->forward(s, in, {});
  const auto dout = rounded_to<typename TypeParam::Element>(random_values(out_size(s), 4));
  for (const double value : got.out.values()) EXPECT_TRUE(std::isfinite(value));
  for (const double value : this->backward(s, in, {}, dout, got).dq.values())
    EXPECT_TRUE(std::isfinite(value));
}

TYPED_TEST(AttentionTest, NotANumberInAQuerySpreadsToItsRowAndNoFurther) {
  constexpr std::int64_t head = AttentionTest<TypeParam>::kHead;
  const AttentionShape s = shape_of(2, 1, head, 21, 30);
  Inputs in = inputs_of(s);
  in.q[at(5 * s.query_stride + 3)] = std::nan("");
  const auto out = this->forward(s, in, test_dropout(0.5)).out.values();
  for (std::size_t i = 0; i < out.size(); ++i) EXPECT_EQ(std::isnan(out[i]), i / at(head) == 5) << i;
}

TYPED_TEST(AttentionTest, NotANumberInAKeySpreadsToItsSampleAndNoFurther) {
  constexpr std::int64_t head = AttentionTest<TypeParam>::kHead;
  const AttentionShape s = shape_of(2, 1, head, 21, 30);
  Inputs in = inputs_of(s);
  in.k[at(5 * s.key_stride + 3)] = std::nan("");
  const auto out = this->forward(s, in, test_dropout(0.5)).out.values();
  for (std::size_t i = 0; i < out.size(); ++i) EXPECT_EQ(std::isnan(out[i]), i < at(21 * head)) << i;
}

TYPED_TEST(AttentionTest, BitsDoNotDependOnTheThreads) {
  const bool cpu = TypeParam::Backend::kThreaded;
  const AttentionShape s = cpu ? shape_of(3, 2, 40, 301, 131, 3) : shape_of(3, 2, 64, 101, 131, 8);
  const Inputs in = inputs_of(s);
  const auto dout = random_values(out_size(s), 4);
  this->expect_same_bits_for_any_thread_count([&] {
    auto saved = this->forward(s, in, test_dropout(0.1));
    auto gradients = this->backward(s, in, test_dropout(0.1), dout, saved);
    return concatenate(concatenate(saved.out.raw(), gradients.dq.raw()),
                       concatenate(gradients.dk.raw(), gradients.dv.raw()));
  });
}

template <typename C>
class AttentionDerivative : public AttentionTest<C> {};
TYPED_TEST_SUITE(AttentionDerivative, DoubleCases);

TYPED_TEST(AttentionDerivative, BackwardIsTheDerivativeOfForward) {
  const AttentionShape s = shape_of(2, 2, 3, 5, 18);
  const Inputs in = inputs_of(s);
  const auto w = random_values(out_size(s), 4);
  for (const Dropout& dropout : kDropouts) {
    auto saved = this->forward(s, in, dropout);
    auto gradients = this->backward(s, in, dropout, w, saved);
    const auto check = [&](std::vector<double> Inputs::*which, const std::vector<double>& analytic,
                           const char* what) {
      expect_gradient(
          [&](const std::vector<double>& point) {
            Inputs moved = in;
            moved.*which = point;
            return weighted_sum_of(w, this->forward(s, moved, dropout).out.values());
          },
          in.*which, analytic, what);
    };
    check(&Inputs::q, gradients.dq.values(), "dq");
    check(&Inputs::k, gradients.dk.values(), "dk");
    check(&Inputs::v, gradients.dv.values(), "dv");
  }
}

}  // namespace
}  // namespace voca::kernels::testing
