#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include "tests/kernels/support/element.h"

namespace voca::kernels::testing {

/// Permitted access of the operation to an array.
enum class Access : std::uint8_t {
  kRead,   ///< must stay unchanged
  kWrite,  ///< may change
};

/// Array in backend memory between two guard bands. The destructor reports a test failure if a band (or, for
/// Access::kRead, the array itself) was modified.
template <typename Backend, typename T>
class Buffer {
 public:
  Buffer(const std::vector<T>& values, Access access) : size_(values.size()), access_(access) {
    image_.assign(2 * kGuard + size_, guard());
    std::copy(values.begin(), values.end(), image_.begin() + static_cast<std::ptrdiff_t>(kGuard));
    memory_ = Backend::allocate(bytes());
    Backend::copy_in(memory_, image_.data(), bytes());
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  Buffer(Buffer&& other) noexcept
      : size_(other.size_),
        access_(other.access_),
        image_(std::move(other.image_)),
        memory_(std::exchange(other.memory_, nullptr)) {}
  Buffer& operator=(Buffer&&) = delete;
  ~Buffer() {
    if (memory_ == nullptr) return;
    check();
    Backend::free(memory_);
  }

  /// Pointer passed to the operation.
  [[nodiscard]] T* data() { return static_cast<T*>(memory_) + kGuard; }
  [[nodiscard]] std::size_t size() const { return size_; }

  /// Current contents of the array, as raw bits.
  [[nodiscard]] std::vector<Raw<T>> raw() const {
    const std::vector<T> now = fetch();
    std::vector<Raw<T>> out(size_);
    for (std::size_t i = 0; i < size_; ++i) out[i] = raw_of(now[kGuard + i]);
    return out;
  }
  /// Current contents of the array, in double.
  [[nodiscard]] std::vector<double> values() const {
    const std::vector<T> now = fetch();
    std::vector<double> out(size_);
    for (std::size_t i = 0; i < size_; ++i) out[i] = to_double(now[kGuard + i]);
    return out;
  }

 private:
  // Odd if no alignment is required, so that the array is aligned only to its element size.
  static constexpr std::size_t kAligned = Backend::kArrayAlignment / sizeof(T);
  static constexpr std::size_t kGuard = kAligned > 0 ? 16 * kAligned : 67;

  static T guard() {
    if constexpr (std::is_integral_v<T>) return static_cast<T>(0x5A);
    return from_double<T>(-12345.678);
  }
  [[nodiscard]] std::size_t bytes() const { return image_.size() * sizeof(T); }
  [[nodiscard]] std::vector<T> fetch() const {
    std::vector<T> now(image_.size());
    Backend::copy_out(now.data(), memory_, bytes());
    return now;
  }
  void check() const {
    const std::vector<T> now = fetch();
    for (std::size_t i = 0; i < now.size(); ++i) {
      const bool inside = i >= kGuard && i < kGuard + size_;
      if (inside && access_ == Access::kWrite) continue;
      if (std::memcmp(&now[i], &image_[i], sizeof(T)) == 0) continue;
      ADD_FAILURE() << (inside ? "an input was written to" : "written outside an array") << ": element "
                    << static_cast<std::int64_t>(i) - static_cast<std::int64_t>(kGuard) << " of " << size_;
      return;
    }
  }

  std::size_t size_;
  Access access_;
  std::vector<T> image_;  // initial contents, guard bands included
  void* memory_ = nullptr;
};

/// Scratch memory filled with NaN, between guard bands; 64-byte aligned.
template <typename Backend>
class Scratch {
 public:
  explicit Scratch(std::size_t bytes) : bytes_(bytes), image_(bytes + 2 * kGuard, kByte) {
    memory_ = static_cast<unsigned char*>(Backend::allocate(image_.size()));
    Backend::copy_in(memory_, image_.data(), image_.size());
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() {
    std::vector<unsigned char> now(image_.size());
    Backend::copy_out(now.data(), memory_, now.size());
    for (std::size_t i = 0; i < now.size(); ++i) {
      if (i >= kGuard && i < kGuard + bytes_) continue;
      if (now[i] == kByte) continue;
      ADD_FAILURE() << "written outside the scratch: byte "
                    << static_cast<std::int64_t>(i) - static_cast<std::int64_t>(kGuard) << " of " << bytes_;
      break;
    }
    Backend::free(memory_);
  }

  [[nodiscard]] void* data() { return bytes_ > 0 ? memory_ + kGuard : nullptr; }

 private:
  static constexpr std::size_t kGuard = 256;
  static constexpr unsigned char kByte = 0xFF;  // all bits set is NaN in every floating-point type

  std::size_t bytes_;
  std::vector<unsigned char> image_;
  unsigned char* memory_ = nullptr;
};

}  // namespace voca::kernels::testing
