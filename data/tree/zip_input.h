#pragma once

#include <zip.h>

#include <cstdint>

namespace voca::data {

/// An open file for libzip. libzip reports a failed read within an entry as end of file; this class records
/// the cause. Must outlive the archives opened from it; one thread at a time.
class ZipInput {
 public:
  /// Takes ownership of `descriptor`, a regular file of `size` bytes.
  ZipInput(int descriptor, std::uint64_t size);
  ~ZipInput();
  ZipInput(const ZipInput&) = delete;
  ZipInput& operator=(const ZipInput&) = delete;

  /// Opens the archive; returns null and sets `error` (zip_error_t, freed by the caller) on failure.
  [[nodiscard]] zip_t* open_archive(zip_error_t* error);
  /// errno of the failed read; 0 if none failed.
  [[nodiscard]] int error_number() const { return error_number_; }

 private:
  static zip_int64_t on_command(void* self, void* data, zip_uint64_t length, zip_source_cmd_t command);
  zip_int64_t read(void* data, zip_uint64_t length);
  zip_int64_t seek(void* data, zip_uint64_t length);
  zip_int64_t describe(void* data) const;

  int descriptor_;
  std::uint64_t size_;
  std::uint64_t position_ = 0;
  int error_number_ = 0;
  zip_error_t error_{};
};

}  // namespace voca::data
