#include "engine/ops/ops.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "engine/base/random.h"
#include "engine/core/device.h"

namespace voca::engine {
namespace {

using ::testing::HasSubstr;

// Memory for a test's tensors, filled with normal numbers.
class Bench {
 public:
  Bench()
      : device_(make_cpu_device(2)),
        block_(device_->allocate("test", kBytes)),
        arena_(block_.data(), kBytes, DeviceKind::kCpu) {}

  Tensor tensor(const char* name, const Shape& shape) {
    Tensor result = arena_.allocate(name, shape, DType::kF64);
    for (std::int64_t i = 0; i < result.elements(); ++i) result.as<double>()[i] = random_.normal();
    return result;
  }
  Context context() { return Context{arena_}; }

 private:
  static constexpr std::size_t kBytes = 8 << 20;
  std::unique_ptr<Device> device_;
  Device::Block block_;
  Arena arena_;
  RandomStream random_{3, RandomPurpose::kSynthetic, 0};
};

void expect_close(const Tensor& a, const Tensor& b) {
  ASSERT_EQ(a.shape, b.shape);
  double largest = 0;
  for (std::int64_t i = 0; i < a.elements(); ++i) {
    const double difference = std::abs(a.as<double>()[i] - b.as<double>()[i]);
    largest = std::isnan(difference) ? HUGE_VAL : std::max(largest, difference);
  }
  EXPECT_LE(largest, 1e-12) << a.name;
}

struct AttentionCase {
  std::int64_t batch, heads, head_size, query_length, key_length;
  double dropout;
};

class AttentionPaths : public ::testing::TestWithParam<AttentionCase> {};

TEST_P(AttentionPaths, ComputeTheSame) {
  const auto [batch, heads, head_size, query_length, key_length, p] = GetParam();
  Bench bench;
  auto context = bench.context();
  const std::int64_t hidden = heads * head_size;
  const ops::Heads q{bench.tensor("q", {batch, query_length, hidden}), 0};
  const Tensor kv = bench.tensor("kv", {batch, key_length, 2 * hidden});
  const Tensor dout = bench.tensor("dout", {batch, query_length, hidden});
  const auto dropout = StepRandom{.seed = 1, .step = 2, .first_sample = 3}.dropout(
      5, p, heads * static_cast<std::int64_t>(kernels::attention_mask_size(query_length, key_length)));
  std::vector<std::array<Tensor, 3>> results;
  for (const auto path : {ops::AttentionPath::kFused, ops::AttentionPath::kUnfused}) {
    const Tensor out = bench.tensor("out", dout.shape);
    const Tensor logsumexp = bench.tensor("logsumexp", {batch, heads, query_length});
    ops::attention(context, {.heads = heads,
                             .q = q,
                             .k = {kv, 0},
                             .v = {kv, 1},
                             .dropout = dropout,
                             .out = out,
                             .logsumexp = logsumexp,
                             .path = path});
    const Tensor dq = bench.tensor("dq", q.packed.shape);
    const Tensor dkv = bench.tensor("dkv", kv.shape);
    ops::attention_backward(context, {.heads = heads,
                                      .dout = dout,
                                      .q = q,
                                      .k = {kv, 0},
                                      .v = {kv, 1},
                                      .out = out,
                                      .logsumexp = logsumexp,
                                      .dropout = dropout,
                                      .dq = {dq, 0},
                                      .dk = {dkv, 0},
                                      .dv = {dkv, 1},
                                      .path = path});
    results.push_back({out, dq, dkv});
  }
  for (std::size_t i = 0; i < 3; ++i) expect_close(results[0].at(i), results[1].at(i));
}

INSTANTIATE_TEST_SUITE_P(Shapes, AttentionPaths,
                         ::testing::Values(AttentionCase{1, 1, 1, 1, 1, 0.0},
                                           AttentionCase{2, 3, 5, 17, 33, 0.3},
                                           AttentionCase{3, 2, 24, 16, 16, 0.1},
                                           AttentionCase{1, 4, 32, 50, 7, 0.5}));

TEST(Ops, NameTheTensorThatDoesNotFit) {
  Bench bench;
  auto context = bench.context();
  const Tensor x = bench.tensor("features", {4, 6});
  const Tensor weight = bench.tensor("classifier.0.weight", {3, 5});
  const Tensor y = bench.tensor("y", {4, 3});
  try {
    ops::linear(context, x, weight, {}, y);
    FAIL() << "a weight that does not fit was taken";
  } catch (const InternalError& error) {
    EXPECT_THAT(error.what(), HasSubstr("linear"));
    EXPECT_THAT(error.what(), HasSubstr("classifier.0.weight"));
    EXPECT_THAT(error.what(), HasSubstr("(3, 6)"));
  }
}

TEST(Ops, ComputeNothingOnMeta) {
  Arena arena;
  Context context{arena};
  const Tensor x = arena.allocate("x", {4, 6}, DType::kF32);
  const Tensor weight = arena.allocate("weight", {3, 6}, DType::kF32);
  const Tensor y = arena.allocate("y", {4, 3}, DType::kF32);
  ops::linear(context, x, weight, {}, y);
  EXPECT_THROW(ops::linear(context, x, y, {}, y), InternalError);
}

TEST(Ops, RefuseATypeThatNoKernelHas) {
  Arena arena;
  Context context{arena};
  const Tensor x = arena.allocate("x", {4, 6}, DType::kF16);
  EXPECT_THROW(ops::gelu(context, x, {}, {}, x), InternalError);
}

}  // namespace
}  // namespace voca::engine
