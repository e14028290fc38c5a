#pragma once

#include <unistd.h>

#include <utility>

namespace voca::engine {

/// A file descriptor that is closed at the end of its life; −1 is none.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int value) : value_(value) {}
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(Descriptor&& other) noexcept : value_(std::exchange(other.value_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(value_, other.value_);
    return *this;
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  /// Takes another one over; holds none before.
  void reset(int value) { value_ = value; }
  [[nodiscard]] int get() const { return value_; }

 private:
  int value_ = -1;
};

}  // namespace voca::engine
