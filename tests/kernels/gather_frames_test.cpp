#include "kernels/gather_frames.h"

#include "tests/kernels/support/half_value.h"
#include "tests/kernels/support/op_test.h"

namespace voca::kernels::testing {
namespace {

/// Reference augmentation of one video: roll by `shift` over its frames, crop at `start`, then repeat the
/// last row up to `length`. Returns row indices of the video.
std::vector<std::int64_t> augment(std::int64_t frames, std::int64_t shift, std::int64_t start,
                                  std::int64_t length) {
  std::vector<std::int64_t> rolled(static_cast<std::size_t>(frames));
  for (std::int64_t i = 0; i < frames; ++i) {
    const std::int64_t to = ((i + shift) % frames + frames) % frames;  // numpy.roll moves i to i + shift
    rolled[static_cast<std::size_t>(to)] = i;
  }
  std::vector<std::int64_t> out;
  for (std::int64_t i = start; i < frames && std::ssize(out) < length; ++i) {
    out.push_back(rolled[static_cast<std::size_t>(i)]);
  }
  while (std::ssize(out) < length) out.push_back(out.back());
  return out;
}

/// Windows of consecutive videos of 1, 2, 3, 10 and 40 frames, with all kinds of crops, padding and shifts.
std::vector<FrameWindow> some_windows(std::int64_t length) {
  std::vector<FrameWindow> windows;
  std::int64_t first = 0;
  for (const std::int64_t frames : {1, 2, 3, 10, 40}) {
    for (const std::int64_t shift : {0, 3, -3, 1, -41}) {
      windows.push_back({first, frames, 0, shift});
      if (frames > length) {
        windows.push_back({first, frames, frames - length, shift});
        windows.push_back({first, frames, (frames - length) / 2, shift});
      } else {
        windows.push_back({first, frames, frames - 1, shift});
      }
    }
    first += frames;
  }
  return windows;
}
constexpr std::int64_t kFrames = 56;

template <typename C>
class GatherFramesTest : public OpTest<C> {
 protected:
  using Element = typename C::Element;

  template <typename Frame>
  std::vector<Raw<Element>> gather(const std::vector<Frame>& packed, const std::vector<FrameWindow>& windows,
                                   std::int64_t length, std::int64_t width) {
    static_assert(sizeof(FrameWindow) == 4 * sizeof(std::int64_t));
    std::vector<std::int64_t> fields;
    for (const FrameWindow& w : windows) {
      fields.insert(fields.end(), {w.first_frame, w.frames, w.start, w.shift});
    }
    auto frames = this->template input<Frame>(packed);
    auto window_fields = this->template input<std::int64_t>(fields);
    auto out = this->output(std::ssize(windows) * length * width);
    gather_frames<Element>(
        typename C::Backend{},
        {std::ssize(windows), length, width,
         std::is_same_v<Frame, float> ? FrameType::kFloat : FrameType::kHalf, frames.data(),
         reinterpret_cast<const FrameWindow*>(window_fields.data()), out.data()});
    return out.raw();
  }
};
TYPED_TEST_SUITE(GatherFramesTest, Cases);

TYPED_TEST(GatherFramesTest, CropsPadsAndRollsAsTheRecipe) {
  using Number = typename TypeParam::Element;
  for (const std::int64_t width : {1, 5, 17, 512}) {
    std::vector<float> floats;
    std::vector<std::uint16_t> halves;
    for (std::int64_t i = 0; i < kFrames * width; ++i) {
      floats.push_back(static_cast<float>(i) * 0.1F - 700.0F);
      halves.push_back(static_cast<std::uint16_t>(i * 40503 % 0x7C00 + (i % 2) * 0x8000));
    }
    for (const std::int64_t length : {1, 7, 64}) {
      const std::vector<FrameWindow> windows = some_windows(length);
      std::vector<Raw<Number>> from_floats;
      std::vector<Raw<Number>> from_halves;
      for (const FrameWindow& window : windows) {
        for (const std::int64_t row : augment(window.frames, window.shift, window.start, length)) {
          for (std::int64_t j = 0; j < width; ++j) {
            const auto i = static_cast<std::size_t>((window.first_frame + row) * width + j);
            from_floats.push_back(raw_of(from_double<Number>(static_cast<double>(floats[i]))));
            from_halves.push_back(raw_of(from_double<Number>(half_value(halves[i]))));
          }
        }
      }
      EXPECT_EQ(this->gather(floats, windows, length, width), from_floats) << width << " x " << length;
      EXPECT_EQ(this->gather(halves, windows, length, width), from_halves) << width << " x " << length;
    }
  }
}

TYPED_TEST(GatherFramesTest, EveryHalfIsRead) {
  using Number = typename TypeParam::Element;
  const typename TypeParam::Backend backend;
  std::vector<std::uint16_t> halves(65536);
  for (std::size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<std::uint16_t>(i);
  auto from = this->template input<std::uint16_t>(halves);
  // Sizes that are not a multiple of the vector width take another path.
  for (const std::int64_t n : {65536, 65535, 1, 5, 17}) {
    auto to = this->output(n);
    auto window = this->template input<std::int64_t>(std::vector<std::int64_t>{0, 1, 0, 0});
    gather_frames<Number>(backend, {1, 1, n, FrameType::kHalf, from.data() + (65536 - n),
                                    reinterpret_cast<const FrameWindow*>(window.data()), to.data()});
    const std::vector<double> got = to.values();
    for (std::size_t i = 0; i < got.size(); ++i) {
      const std::uint16_t half = halves[i + 65536 - got.size()];
      // Exact except in bf16.
      const double expected = to_double(from_double<Number>(half_value(half)));
      if (std::isnan(expected)) {
        ASSERT_TRUE(std::isnan(got[i])) << half;
      } else {
        ASSERT_EQ(got[i], expected) << half;
      }
      // CUDA conversions return a single NaN and drop its sign.
      if (TypeParam::Backend::kThreaded || !std::isnan(expected)) {
        ASSERT_EQ(std::signbit(got[i]), half >= 0x8000) << half;
      }
    }
  }
}

TYPED_TEST(GatherFramesTest, SameBitsForAnyThreadCount) {
  const std::vector<std::uint16_t> frames(static_cast<std::size_t>(kFrames * 128), 0x3555);
  this->expect_same_bits_for_any_thread_count(
      [&] { return this->gather(frames, some_windows(40), 40, 128); });
}

}  // namespace
}  // namespace voca::kernels::testing
