#include "kernels/gather_frames.h"

#include "benchmarks/kernels/support/roof.h"

namespace voca::kernels::benchmarks {
namespace {

/// One stream of a batch of 64 videos of 300 frames each, cropped and some of them rolled.
void gather_frames(benchmark::State& state) {
  const std::int64_t batch = 64;
  const std::int64_t length = 256;
  const std::int64_t width = 512;
  const std::int64_t frames = 300;
  const FrameType type = state.range(0) == 16 ? FrameType::kHalf : FrameType::kFloat;
  const auto values = numbers(batch * frames * width);
  const std::vector<std::uint16_t> halves(values.size(), 0x3555);
  std::vector<FrameWindow> windows;
  for (std::int64_t b = 0; b < batch; ++b)
    windows.push_back({b * frames, frames, b % 40, b % 5 == 0 ? 3 : 0});
  std::vector<float> out(static_cast<std::size_t>(batch * length * width));
  const void* source = type == FrameType::kHalf ? static_cast<const void*>(halves.data()) : values.data();
  for (auto _ : state) {
    gather_frames<float>(Cpu{}, {batch, length, width, type, source, windows.data(), out.data()});
  }
  const double bytes_an_element = static_cast<double>(state.range(0)) / 8 + 4;
  report(state, bytes_an_element * static_cast<double>(out.size()), 0);
}
BENCHMARK(gather_frames)->ArgName("bits")->Arg(16)->Arg(32)->UseRealTime();

}  // namespace
}  // namespace voca::kernels::benchmarks
