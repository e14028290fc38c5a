#include "kernels/gemm.h"

#include <array>

#include "tests/kernels/support/op_test.h"

namespace voca::kernels::testing {
namespace {

struct Shape {
  std::int64_t m;
  std::int64_t n;
  std::int64_t k;
};

constexpr Shape kShapes[] = {{1, 1, 1},       {1, 37, 5},      {53, 1, 7},      {71, 229, 1},  {17, 19, 23},
                             {64, 256, 64},   {300, 1031, 67}, {1031, 67, 301}, {1, 512, 256}, {512, 1, 2049},
                             {96, 128, 2048}, {131, 73, 4099}, {513, 257, 260}};

// alpha op(A) op(B) + beta C, with every leading dimension `gap` larger than necessary.
struct Reference {
  std::int64_t lda;
  std::int64_t ldb;
  std::int64_t ldc;
  std::vector<double> result;

  template <typename T>
  Reference(const Gemm<T>& g, const std::vector<double>& a, const std::vector<double>& b,
            const std::vector<double>& c)
      : lda(g.lda), ldb(g.ldb), ldc(g.ldc), result(c) {
    const bool ta = g.transpose_a == Transpose::kYes;
    const bool tb = g.transpose_b == Transpose::kYes;
    std::vector<double> row(static_cast<std::size_t>(g.n));
    for (std::int64_t i = 0; i < g.m; ++i) {
      std::fill(row.begin(), row.end(), 0.0);
      for (std::int64_t p = 0; p < g.k; ++p) {
        const double left = a[static_cast<std::size_t>(ta ? p * lda + i : i * lda + p)];
        for (std::int64_t j = 0; j < g.n; ++j) {
          row[static_cast<std::size_t>(j)] +=
              left * b[static_cast<std::size_t>(tb ? j * ldb + p : p * ldb + j)];
        }
      }
      for (std::int64_t j = 0; j < g.n; ++j) {
        double& out = result[static_cast<std::size_t>(i * ldc + j)];
        const double kept = g.beta == 0 ? 0.0 : g.beta * out;
        out = g.alpha * row[static_cast<std::size_t>(j)] + kept;
      }
    }
  }
};

template <typename C>
class GemmTest : public OpTest<C> {
 protected:
  using Backend = typename C::Backend;

  static void multiply(Gemm<typename C::Element> args) {
    Scratch<Backend> scratch(scratch_bytes(Backend{}, args));
    args.scratch = scratch.data();
    gemm(Backend{}, args);
  }
};
TYPED_TEST_SUITE(GemmTest, Cases);

TYPED_TEST(GemmTest, MatchesTheNaiveProductForEveryTransposition) {
  using T = typename TypeParam::Element;
  for (const Shape& s : kShapes) {
    for (const int transposed : {0, 1, 2, 3}) {
      SCOPED_TRACE(::testing::Message()
                   << s.m << " x " << s.n << " x " << s.k << ", transposed " << transposed);
      const bool ta = (transposed & 1) != 0;
      const bool tb = (transposed & 2) != 0;
      const std::int64_t gap = 3;
      Gemm<T> args{.transpose_a = ta ? Transpose::kYes : Transpose::kNo,
                   .transpose_b = tb ? Transpose::kYes : Transpose::kNo,
                   .m = s.m,
                   .n = s.n,
                   .k = s.k,
                   .alpha = 0.5,
                   .lda = (ta ? s.m : s.k) + gap,
                   .ldb = (tb ? s.k : s.n) + gap,
                   .beta = transposed % 2 == 0 ? 0.0 : -2.0,
                   .ldc = s.n + gap};
      auto a = this->input(random_values((ta ? s.k : s.m) * args.lda, 1));
      auto b = this->input(random_values((tb ? s.n : s.k) * args.ldb, 2));
      // If beta is 0, the old contents of C must not matter, not even NaN; the gaps must stay unchanged.
      std::vector<double> before = random_values(s.m * args.ldc, 3);
      if (args.beta == 0) {
        for (std::int64_t i = 0; i < s.m; ++i) {
          for (std::int64_t j = 0; j < s.n; ++j)
            before[static_cast<std::size_t>(i * args.ldc + j)] = std::nan("");
        }
      }
      auto c = this->accumulated(before);
      const Reference want(args, a.values(), b.values(), c.values());
      args.a = a.data();
      args.b = b.data();
      args.c = c.data();
      this->multiply(args);
      this->expect_close(c, want.result, kGemm, "c");
    }
  }
}

TYPED_TEST(GemmTest, BatchedProductsAreThoseOfTheParts) {
  using T = typename TypeParam::Element;
  const std::int64_t m = 19;
  const std::int64_t n = 33;
  const std::int64_t k = 21;
  const std::int64_t batch = 7;
  Gemm<T> args{.transpose_b = Transpose::kYes,
               .m = m,
               .n = n,
               .k = k,
               .lda = k,
               .ldb = k,
               .ldc = n,
               .batch = batch,
               .stride_a = m * k + 2,
               .stride_b = n * k,
               .stride_c = m * n + 5};
  auto a = this->input(random_values(batch * args.stride_a, 1));
  auto b = this->input(random_values(batch * args.stride_b, 2));
  auto c = this->accumulated(random_values(batch * args.stride_c, 3));
  std::vector<double> want = c.values();
  const auto av = a.values();
  const auto bv = b.values();
  for (std::int64_t i = 0; i < batch; ++i) {
    const auto slice = [](const std::vector<double>& all, std::int64_t at, std::int64_t count) {
      return std::vector<double>(all.begin() + at, all.begin() + at + count);
    };
    const Reference one(args, slice(av, i * args.stride_a, m * k), slice(bv, i * args.stride_b, n * k),
                        slice(want, i * args.stride_c, m * n));
    std::copy(one.result.begin(), one.result.end(), want.begin() + i * args.stride_c);
  }
  args.a = a.data();
  args.b = b.data();
  args.c = c.data();
  this->multiply(args);
  this->expect_close(c, want, kGemm, "c");
}

TYPED_TEST(GemmTest, TheBiasIsAddedToEveryRowOfEveryTileAndBatch) {
  using T = typename TypeParam::Element;
  // More than one tile; a batch; nothing to multiply.
  for (const auto& [s, batch] :
       {std::pair{Shape{1031, 1100, 67}, 1}, {Shape{19, 33, 21}, 3}, {Shape{5, 7, 0}, 1}}) {
    for (const double beta : {0.0, -2.0}) {
      SCOPED_TRACE(::testing::Message() << s.m << " x " << s.n << " x " << s.k << ", beta " << beta);
      Gemm<T> args{.m = s.m,
                   .n = s.n,
                   .k = s.k,
                   .lda = std::max<std::int64_t>(s.k, 1),
                   .ldb = s.n,
                   .add_bias = true,
                   .beta = beta,
                   .ldc = s.n,
                   .batch = batch,
                   .stride_a = s.m * s.k,
                   .stride_b = s.k * s.n,
                   .stride_c = s.m * s.n};
      auto a = this->input(random_values(batch * args.stride_a, 1));
      auto b = this->input(random_values(batch * args.stride_b, 2));
      auto bias = this->input(random_values(s.n, 3));
      auto c = beta == 0 ? this->output(batch * args.stride_c)
                         : this->accumulated(random_values(batch * args.stride_c, 4));
      const auto av = a.values();
      const auto bv = b.values();
      const auto biasv = bias.values();
      std::vector<double> want = c.values();
      for (std::int64_t i = 0; i < batch; ++i) {
        const auto slice = [i](const std::vector<double>& all, std::int64_t count) {
          return std::vector<double>(all.begin() + i * count, all.begin() + (i + 1) * count);
        };
        Reference one(args, slice(av, args.stride_a), slice(bv, args.stride_b), slice(want, args.stride_c));
        for (std::size_t j = 0; j < one.result.size(); ++j) one.result[j] += biasv[j % biasv.size()];
        std::copy(one.result.begin(), one.result.end(), want.begin() + i * args.stride_c);
      }
      args.a = a.data();
      args.b = b.data();
      args.bias = bias.data();
      args.c = c.data();
      this->multiply(args);
      this->expect_close(c, want, kGemm, "c");
    }
  }
}

TYPED_TEST(GemmTest, ANotANumberSpreadsToItsRowAndNoFurther) {
  std::vector<double> values = random_values(300 * 80, 1);
  values[17 * 80 + 3] = std::nan("");
  auto a = this->input(values);
  auto b = this->input(random_values(90 * 80, 2));
  auto c = this->output(300 * 90);
  this->multiply({.transpose_b = Transpose::kYes,
                  .m = 300,
                  .n = 90,
                  .k = 80,
                  .a = a.data(),
                  .lda = 80,
                  .b = b.data(),
                  .ldb = 80,
                  .c = c.data(),
                  .ldc = 90});
  const auto got = c.values();
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_EQ(std::isnan(got[i]), i / 90 == 17) << i;
}

TYPED_TEST(GemmTest, BitsDoNotDependOnTheThreads) {
  for (const Shape& s : {Shape{513, 257, 260}, Shape{256, 256, 2048}, Shape{64, 48, 9000}}) {
    auto a = this->input(random_values(s.m * s.k, 1));
    auto b = this->input(random_values(s.k * s.n, 2));
    this->expect_same_bits_for_any_thread_count([&] {
      auto c = this->output(s.m * s.n);
      this->multiply({.m = s.m,
                      .n = s.n,
                      .k = s.k,
                      .a = a.data(),
                      .lda = s.k,
                      .b = b.data(),
                      .ldb = s.n,
                      .c = c.data(),
                      .ldc = s.n});
      return c.raw();
    });
  }
}

TYPED_TEST(GemmTest, BitsDoNotDependOnTheRestOfTheMatrixNorOnItsStorage) {
  using T = typename TypeParam::Element;
  const Shape s{300, 229, 801};
  const std::vector<double> av = random_values(s.m * s.k, 1);
  const std::vector<double> bv = random_values(s.k * s.n, 2);
  const auto transposed = [](const std::vector<double>& from, std::int64_t rows, std::int64_t columns) {
    std::vector<double> to(from.size());
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < columns; ++j)
        to[static_cast<std::size_t>(j * rows + i)] = from[static_cast<std::size_t>(i * columns + j)];
    }
    return to;
  };
  auto a = this->input(av);
  auto b = this->input(bv);
  auto bias = this->input(random_values(s.n, 3));
  auto whole = this->output(s.m * s.n);
  const Gemm<T> args{.m = s.m,
                     .n = s.n,
                     .k = s.k,
                     .alpha = 0.7,
                     .a = a.data(),
                     .lda = s.k,
                     .b = b.data(),
                     .ldb = s.n,
                     .add_bias = true,
                     .bias = bias.data(),
                     .c = whole.data(),
                     .ldc = s.n};
  this->multiply(args);
  const auto want = whole.values();
  auto at = this->input(transposed(av, s.m, s.k));
  auto bt = this->input(transposed(bv, s.k, s.n));
  for (const auto& [row, rows, column, columns] :
       {std::array<std::int64_t, 4>{0, 300, 0, 229}, {17, 1, 0, 229}, {3, 100, 200, 29}, {290, 5, 31, 1}}) {
    for (const int storage : {0, 1, 2, 3}) {
      SCOPED_TRACE(::testing::Message() << rows << " x " << columns << ", transposed " << storage);
      Gemm<T> part = args;
      part.m = rows;
      part.n = columns;
      part.a += row * s.k;
      part.b += column;
      part.bias += column;
      if ((storage & 1) != 0) {
        part.transpose_a = Transpose::kYes;
        part.a = at.data() + row;
        part.lda = s.m;
      }
      if ((storage & 2) != 0) {
        part.transpose_b = Transpose::kYes;
        part.b = bt.data() + column * s.k;
        part.ldb = s.k;
      }
      auto c = this->output(rows * columns);
      part.c = c.data();
      part.ldc = columns;
      this->multiply(part);
      const auto got = c.values();
      std::int64_t different = 0;
      for (std::int64_t i = 0; i < rows; ++i) {
        for (std::int64_t j = 0; j < columns; ++j) {
          different += got[static_cast<std::size_t>(i * columns + j)] !=
                               want[static_cast<std::size_t>((row + i) * s.n + column + j)]
                           ? 1
                           : 0;
        }
      }
      EXPECT_EQ(different, 0);
    }
  }
}

}  // namespace
}  // namespace voca::kernels::testing
