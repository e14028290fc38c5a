#include "data/packed/hdf5_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace voca::data::hdf5 {

struct FileAccess::State {
  int descriptor = -1;
  int error = 0;
};

namespace {

/// An open file as seen by the library's drivers; the library's own part must come first.
struct File {
  H5FD_t library{};
  FileAccess::State* state = nullptr;
  haddr_t end_of_addresses = 0;
  haddr_t end_of_file = 0;
};

File& file_of(H5FD_t* file) {
  return *reinterpret_cast<File*>(file);
}
const File& file_of(const H5FD_t* file) {
  return *reinterpret_cast<const File*>(file);
}

/// Records the first error; returns −1, the library's failure code.
herr_t failed(FileAccess::State& state, int error_number) {
  if (state.error == 0) state.error = error_number;
  return -1;
}

H5FD_t* open_file(const char* /*name*/, unsigned flags, hid_t access, haddr_t /*most*/) {
  const auto* const info = static_cast<FileAccess::State* const*>(H5Pget_driver_info(access));
  if (info == nullptr) return nullptr;
  auto file = std::make_unique<File>();
  file->state = *info;
  struct stat status {};
  if (::fstat(file->state->descriptor, &status) != 0 ||
      ((flags & H5F_ACC_TRUNC) != 0 && ::ftruncate(file->state->descriptor, 0) != 0)) {
    failed(*file->state, errno);
    return nullptr;
  }
  file->end_of_file = (flags & H5F_ACC_TRUNC) != 0 ? 0 : static_cast<haddr_t>(status.st_size);
  return &file.release()->library;
}

herr_t close_file(H5FD_t* file) {
  const std::unique_ptr<File> own(&file_of(file));
  return 0;
}

/// Reports the flags of the library's default driver, so that the files written are the same.
herr_t query(const H5FD_t* /*file*/, unsigned long* flags) {
  *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE |
           H5FD_FEAT_AGGREGATE_SMALLDATA | H5FD_FEAT_DEFAULT_VFD_COMPATIBLE;
  return 0;
}

haddr_t end_of_addresses(const H5FD_t* file, H5FD_mem_t /*type*/) {
  return file_of(file).end_of_addresses;
}
herr_t set_end_of_addresses(H5FD_t* file, H5FD_mem_t /*type*/, haddr_t address) {
  file_of(file).end_of_addresses = address;
  return 0;
}
haddr_t end_of_file(const H5FD_t* file, H5FD_mem_t /*type*/) {
  return file_of(file).end_of_file;
}

/// Reads past the end of the file return zeros, as the format requires.
herr_t read(H5FD_t* file, H5FD_mem_t /*type*/, hid_t /*transfer*/, haddr_t at, size_t size, void* out) {
  FileAccess::State& state = *file_of(file).state;
  auto* bytes = static_cast<char*>(out);
  while (size > 0) {
    const ssize_t count = ::pread(state.descriptor, bytes, size, static_cast<off_t>(at));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return failed(state, errno);
    if (count == 0) {
      std::fill_n(bytes, size, '\0');
      return 0;
    }
    bytes += count;
    at += static_cast<haddr_t>(count);
    size -= static_cast<size_t>(count);
  }
  return 0;
}

herr_t write(H5FD_t* file, H5FD_mem_t /*type*/, hid_t /*transfer*/, haddr_t at, size_t size,
             const void* data) {
  File& own = file_of(file);
  const auto* bytes = static_cast<const char*>(data);
  own.end_of_file = std::max(own.end_of_file, at + size);
  while (size > 0 && own.state->error == 0) {
    const ssize_t count = ::pwrite(own.state->descriptor, bytes, size, static_cast<off_t>(at));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      failed(*own.state, count < 0 ? errno : ENOSPC);
      break;
    }
    bytes += count;
    at += static_cast<haddr_t>(count);
    size -= static_cast<size_t>(count);
  }
  return 0;
}

herr_t truncate(H5FD_t* file, hid_t /*transfer*/, hbool_t /*closing*/) {
  File& own = file_of(file);
  if (own.end_of_addresses == own.end_of_file) return 0;
  if (own.state->error == 0 &&
      ::ftruncate(own.state->descriptor, static_cast<off_t>(own.end_of_addresses)) != 0)
    failed(*own.state, errno);
  own.end_of_file = own.end_of_addresses;
  return 0;
}

hid_t register_driver() {
  H5FD_class_t driver{};
#ifdef H5FD_CLASS_VERSION  // HDF5 1.14
  driver.version = H5FD_CLASS_VERSION;
  driver.value = static_cast<H5FD_class_value_t>(512);  // the first value available to applications
#endif
  driver.name = "voca";
  driver.maxaddr = (haddr_t{1} << 62) - 1;
  driver.fc_degree = H5F_CLOSE_WEAK;
  driver.fapl_size = sizeof(FileAccess::State*);
  driver.open = open_file;
  driver.close = close_file;
  driver.query = query;
  driver.get_eoa = end_of_addresses;
  driver.set_eoa = set_end_of_addresses;
  driver.get_eof = end_of_file;
  driver.read = read;
  driver.write = write;
  driver.truncate = truncate;
  constexpr H5FD_mem_t kMap[H5FD_MEM_NTYPES] = H5FD_FLMAP_DICHOTOMY;
  std::copy(std::begin(kMap), std::end(kMap), std::begin(driver.fl_map));
  return H5FDregister(&driver);
}

}  // namespace

FileAccess::FileAccess(int descriptor) : state_(std::make_unique<State>(State{descriptor, 0})) {}
FileAccess::~FileAccess() = default;

Handle FileAccess::properties() const {
  static const hid_t driver = register_driver();
  Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  State* const state = state_.get();
  H5Pset_driver(access.get(), driver, static_cast<const void*>(&state));
  return access;
}

int FileAccess::error() const {
  return state_->error;
}

}  // namespace voca::data::hdf5
