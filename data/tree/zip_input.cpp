#include "data/tree/zip_input.h"

#include <unistd.h>

#include <cerrno>

#include "engine/base/path_status.h"

namespace voca::data {

ZipInput::ZipInput(int descriptor, std::uint64_t size) : descriptor_(descriptor), size_(size) {
  zip_error_init(&error_);
}

ZipInput::~ZipInput() {
  zip_error_fini(&error_);
  ::close(descriptor_);
}

zip_t* ZipInput::open_archive(zip_error_t* error) {
  zip_source_t* const source = zip_source_function_create(&ZipInput::on_command, this, error);
  if (source == nullptr) return nullptr;
  zip_t* const archive = zip_open_from_source(source, ZIP_RDONLY, error);
  if (archive == nullptr) zip_source_free(source);
  return archive;
}

zip_int64_t ZipInput::on_command(void* self, void* data, zip_uint64_t length, zip_source_cmd_t command) {
  ZipInput& input = *static_cast<ZipInput*>(self);
  switch (command) {
    case ZIP_SOURCE_SUPPORTS:
      return zip_source_make_command_bitmap(ZIP_SOURCE_SUPPORTS, ZIP_SOURCE_OPEN, ZIP_SOURCE_READ,
                                            ZIP_SOURCE_CLOSE, ZIP_SOURCE_STAT, ZIP_SOURCE_ERROR,
                                            ZIP_SOURCE_SEEK, ZIP_SOURCE_TELL, ZIP_SOURCE_FREE, -1);
    case ZIP_SOURCE_OPEN:
      input.position_ = 0;
      return 0;
    case ZIP_SOURCE_READ:
      return input.read(data, length);
    case ZIP_SOURCE_SEEK:
      return input.seek(data, length);
    case ZIP_SOURCE_TELL:
      return static_cast<zip_int64_t>(input.position_);
    case ZIP_SOURCE_STAT:
      return input.describe(data);
    case ZIP_SOURCE_ERROR:
      return zip_error_to_data(&input.error_, data, length);
    case ZIP_SOURCE_CLOSE:
    case ZIP_SOURCE_FREE:
      return 0;
    default:
      zip_error_set(&input.error_, ZIP_ER_OPNOTSUPP, 0);
      return -1;
  }
}

zip_int64_t ZipInput::read(void* data, zip_uint64_t length) {
  const ssize_t count = engine::uninterrupted(
      [&] { return ::pread(descriptor_, data, length, static_cast<off_t>(position_)); });
  if (count < 0) {
    error_number_ = errno;
    zip_error_set(&error_, ZIP_ER_READ, error_number_);
    return -1;
  }
  position_ += static_cast<std::uint64_t>(count);
  return count;
}

zip_int64_t ZipInput::seek(void* data, zip_uint64_t length) {
  const zip_int64_t to = zip_source_seek_compute_offset(position_, size_, data, length, &error_);
  if (to < 0) return -1;
  position_ = static_cast<std::uint64_t>(to);
  return 0;
}

zip_int64_t ZipInput::describe(void* data) const {
  auto& stat = *static_cast<zip_stat_t*>(data);
  zip_stat_init(&stat);
  stat.valid |= ZIP_STAT_SIZE;
  stat.size = size_;
  return sizeof(stat);
}

}  // namespace voca::data
