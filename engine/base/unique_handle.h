#pragma once

#include <type_traits>
#include <utility>

namespace voca::engine {

/// Owns a handle of a library or of the system. Traits::kNone is the value for none; Traits::close(handle)
/// closes any other, its result is ignored.
template <typename Traits>
class UniqueHandle {
 public:
  using Value = std::remove_const_t<decltype(Traits::kNone)>;

  UniqueHandle() = default;
  explicit UniqueHandle(Value value) : value_(value) {}
  ~UniqueHandle() { reset(); }
  UniqueHandle(UniqueHandle&& other) noexcept : value_(other.release()) {}
  UniqueHandle& operator=(UniqueHandle&& other) noexcept {
    if (this != &other) reset(other.release());
    return *this;
  }
  UniqueHandle(const UniqueHandle&) = delete;
  UniqueHandle& operator=(const UniqueHandle&) = delete;

  [[nodiscard]] explicit operator bool() const { return value_ != Traits::kNone; }
  [[nodiscard]] const Value& get() const { return value_; }
  /// Closes the handle and owns `value` instead.
  void reset(Value value = Traits::kNone) {
    if (*this) Traits::close(value_);
    value_ = value;
  }
  /// For a function that creates a handle at an address; there must be none yet.
  [[nodiscard]] Value* address() { return &value_; }
  /// Gives up ownership.
  [[nodiscard]] Value release() { return std::exchange(value_, Traits::kNone); }

 private:
  Value value_ = Traits::kNone;
};

}  // namespace voca::engine
