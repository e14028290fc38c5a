#pragma once

#include <unistd.h>

#include <utility>

namespace voca::engine {

/// Owning file descriptor, closed by the destructor; −1 is none.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int value) : value_(value) {}
  ~UniqueFd() {
    if (value_ >= 0) ::close(value_);
  }
  UniqueFd(UniqueFd&& other) noexcept : value_(std::exchange(other.value_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    std::swap(value_, other.value_);
    return *this;
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  /// Takes ownership of `value`; must be empty before.
  void reset(int value) { value_ = value; }
  [[nodiscard]] int get() const { return value_; }

 private:
  int value_ = -1;
};

}  // namespace voca::engine
