#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "engine/core/arena.h"
#include "engine/core/device.h"
#include "engine/core/parameters.h"

namespace voca::engine {
namespace {

using ::testing::HasSubstr;

std::string message_of(const auto& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

// The same code lays out and runs; what it needs depends on `width`.
void allocate_like_a_step(Arena& arena, std::int64_t width) {
  const ArenaScope scope(arena);
  (void)arena.allocate("kept", {width, 3}, DType::kF32);
  {
    const ArenaScope inner(arena);
    (void)arena.allocate("large scratch", {width, 100}, DType::kF64);
  }
  (void)arena.allocate("small", {width}, DType::kU8);
}

TEST(Arena, RunsInExactlyWhatTheDryRunMeasured) {
  Arena dry;
  allocate_like_a_step(dry, 7);
  EXPECT_EQ(dry.used(), 0U);
  const auto device = make_cpu_device(1);
  const auto block = device->allocate("activations", dry.high_water());
  Arena arena(block.data(), dry.high_water(), DeviceKind::kCpu);
  for (int step = 0; step < 3; ++step) allocate_like_a_step(arena, 7);
  EXPECT_EQ(arena.high_water(), dry.high_water());
  EXPECT_EQ(arena.used(), 0U);
}

TEST(Arena, NamesTheTensorThatDoesNotFit) {
  Arena dry;
  allocate_like_a_step(dry, 7);
  const auto device = make_cpu_device(1);
  const auto block = device->allocate("activations", dry.high_water());
  Arena arena(block.data(), dry.high_water(), DeviceKind::kCpu);
  EXPECT_THAT(message_of([&] { allocate_like_a_step(arena, 8); }), HasSubstr("large scratch"));
}

TEST(Arena, TellsWhatLivesAtThePeak) {
  Arena dry;
  allocate_like_a_step(dry, 8);
  std::size_t sum = 0;
  bool scratch_seen = false;
  for (const MemoryLine& line : dry.peak_lines()) {
    sum += line.bytes;
    scratch_seen |= line.name == "large scratch";
    EXPECT_NE(line.name, "small");
  }
  EXPECT_EQ(sum, dry.high_water());
  EXPECT_TRUE(scratch_seen);
}

TEST(Arena, HandsOutAlignedMemoryThatDoesNotOverlap) {
  const auto device = make_cpu_device(1);
  const auto block = device->allocate("activations", 4096);
  Arena arena(block.data(), 4096, DeviceKind::kCpu);
  const Tensor a = arena.allocate("a", {3}, DType::kU8);
  const Tensor b = arena.allocate("b", {5}, DType::kF64);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(a.data) % 64, 0U);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(b.data) % 64, 0U);
  EXPECT_GE(static_cast<std::byte*>(b.data) - static_cast<std::byte*>(a.data), 3);
}

TEST(Device, ListsWhatIsHeldAndForgetsWhatIsFreed) {
  const auto device = make_cpu_device(1);
  {
    const auto a = device->allocate("a", 100);
    auto b = device->allocate("b", 28);
    EXPECT_EQ(device->allocated_bytes(), 128U);
    const Device::Block moved = std::move(b);
    EXPECT_EQ(device->allocated_bytes(), 128U);
    EXPECT_EQ(device->lines().size(), 2U);
  }
  EXPECT_EQ(device->allocated_bytes(), 0U);
}

TEST(Device, SaysWhatIsHeldWhenMemoryRunsOut) {
  const auto device = make_cpu_device(1);
  const auto held = device->allocate("weights", 1000);
  const std::string message =
      message_of([&] { (void)device->allocate("activations", std::size_t{1} << 60); });
  EXPECT_THAT(message, HasSubstr("out of memory"));
  EXPECT_THAT(message, HasSubstr("activations"));
  EXPECT_THAT(message, HasSubstr("weights"));
}

std::vector<ParameterSpec> three_parameters() {
  return {
      {.name = "first", .shape = {5}, .initializer = {.value = 2}, .same_start_as = -1, .backward_rank = 2},
      {.name = "second",
       .shape = {3, 4},
       .initializer = {.kind = Initializer::Kind::kUniform, .value = 0.5},
       .same_start_as = -1,
       .backward_rank = 0},
      {.name = "third",
       .shape = {3, 4},
       .initializer = {.kind = Initializer::Kind::kUniform, .value = 0.5},
       .same_start_as = 1,
       .backward_rank = 1}};
}

TEST(ParameterStore, LiesInBackwardOrderWithZeroGaps) {
  const auto device = make_cpu_device(1);
  ParameterStore store(three_parameters(), DType::kF32, true, device.get());
  EXPECT_EQ(store.parameters(), 29);
  const auto* base = store.weights().as<float>();
  EXPECT_EQ(store.weight(1).as<float>(), base);
  EXPECT_EQ(store.weight(2).as<float>(), base + 16);
  EXPECT_EQ(store.weight(0).as<float>(), base + 32);
  EXPECT_EQ(store.weights().elements(), 48);
  store.initialise(9);
  float gaps = 0;
  for (const int gap : {12, 13, 14, 15, 28, 31, 37, 47}) gaps += base[gap];
  EXPECT_EQ(gaps, 0);
  EXPECT_EQ(store.weight(0).as<float>()[4], 2);
  for (int i = 0; i < 12; ++i) {
    EXPECT_LE(std::abs(base[i]), 0.5F);
    EXPECT_EQ(base[i], base[16 + i]) << "third starts as second";
  }
}

TEST(ParameterStore, StartsFromTheSeed) {
  const auto device = make_cpu_device(1);
  ParameterStore store(three_parameters(), DType::kF32, true, device.get());
  store.initialise(9);
  const float first = store.weight(1).as<float>()[0];
  store.initialise(10);
  EXPECT_NE(store.weight(1).as<float>()[0], first);
  store.initialise(9);
  EXPECT_EQ(store.weight(1).as<float>()[0], first);
}

TEST(ParameterStore, SaysWithoutMemoryWhatItWouldHold) {
  const auto device = make_cpu_device(1);
  const ParameterStore planned(three_parameters(), DType::kF32, true, nullptr);
  const ParameterStore held(three_parameters(), DType::kF32, true, device.get());
  ASSERT_EQ(planned.lines().size(), held.lines().size());
  std::size_t sum = 0;
  for (std::size_t i = 0; i < planned.lines().size(); ++i) {
    EXPECT_EQ(planned.lines()[i].name, device->lines()[i].name);
    EXPECT_EQ(planned.lines()[i].bytes, device->lines()[i].bytes);
    sum += planned.lines()[i].bytes;
  }
  EXPECT_EQ(sum, device->allocated_bytes());
  EXPECT_EQ(planned.weight(0).data, nullptr);
}

TEST(Tensor, NamesItselfWhenMisused) {
  const Tensor tensor{.shape = {2, 3}, .dtype = DType::kF32, .name = "logits"};
  EXPECT_THAT(message_of([&] { (void)tensor.as<double>(); }), HasSubstr("logits"));
  EXPECT_THAT(message_of([&] { (void)tensor.view({7}); }), HasSubstr("(2, 3)"));
  EXPECT_THAT(message_of([&] { (void)tensor.rows(1, 2); }), HasSubstr("logits"));
  EXPECT_EQ(tensor.view({6}).shape, (Shape{6}));
  EXPECT_EQ(tensor.rows(1, 1).shape, (Shape{1, 3}));
}

}  // namespace
}  // namespace voca::engine
