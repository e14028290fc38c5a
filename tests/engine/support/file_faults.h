#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>

#include "engine/base/atomic_file.h"

namespace voca::engine::test {

/// While it lives: counts the steps of all AtomicFiles and lets one of them fail.
class FileFaults {
 public:
  /// Only counts.
  FileFaults() : FileFaults(-1, 0) {}
  /// Step `at` (from 0) fails with `error_number`.
  FileFaults(int at, int error_number) {
    set_file_fault([this, at, error_number](FileStep, const std::filesystem::path&) {
      if (steps_++ != at) return 0;
      ++hit_;
      return error_number;
    });
  }
  ~FileFaults() { set_file_fault({}); }
  FileFaults(const FileFaults&) = delete;
  FileFaults& operator=(const FileFaults&) = delete;

  [[nodiscard]] int steps() const { return steps_; }
  [[nodiscard]] int hit() const { return hit_; }

 private:
  int steps_ = 0;
  int hit_ = 0;
};

/// One byte of a file changed in place, and changed back.
class FlippedByte {
 public:
  FlippedByte(const std::filesystem::path& path, std::int64_t at, int mask) : at_(at), mask_(mask) {
    descriptor_ = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    flip();
  }
  ~FlippedByte() {
    if (!forgotten_) flip();
    ::close(descriptor_);
  }
  FlippedByte(const FlippedByte&) = delete;
  FlippedByte& operator=(const FlippedByte&) = delete;
  /// It stays changed.
  void forget() { forgotten_ = true; }

 private:
  void flip() const {
    unsigned char byte = 0;
    EXPECT_EQ(::pread(descriptor_, &byte, 1, at_), 1);
    byte = static_cast<unsigned char>(byte ^ mask_);
    EXPECT_EQ(::pwrite(descriptor_, &byte, 1, at_), 1);
  }

  int descriptor_ = -1;
  std::int64_t at_;
  int mask_;
  bool forgotten_ = false;
};

}  // namespace voca::engine::test
