#pragma once

#include <zip.h>

#include <cstdint>

namespace voca::data {

/// An open file as libzip reads it. libzip tells of a read that failed within an entry as of the end of the
/// file; here the reason is kept. It outlives the archives that are opened from it; one thread at a time.
class ZipInput {
 public:
  /// Takes the descriptor of a regular file of `size` bytes and closes it in the end.
  ZipInput(int descriptor, std::uint64_t size);
  ~ZipInput();
  ZipInput(const ZipInput&) = delete;
  ZipInput& operator=(const ZipInput&) = delete;

  /// The archive; null with `error` set (zip_error_t, freed by the caller) where there is none.
  [[nodiscard]] zip_t* open_archive(zip_error_t* error);
  /// errno's value of the read that failed; 0 while none has.
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
