#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "data/packed/hdf5.h"
#include "engine/base/path_status.h"

namespace voca::data::hdf5 {
namespace {

/// An open file as seen by the library's drivers; the library's own part must come first.
struct File {
  H5FD_t library{};
  FileAccess* access = nullptr;
  haddr_t end_of_addresses = 0;
  haddr_t end_of_file = 0;
};

File& file_of(H5FD_t* file) {
  return *reinterpret_cast<File*>(file);
}
const File& file_of(const H5FD_t* file) {
  return *reinterpret_cast<const File*>(file);
}

H5FD_t* open_file(const char* /*name*/, unsigned flags, hid_t access, haddr_t /*most*/) {
  const auto* const info = static_cast<FileAccess* const*>(H5Pget_driver_info(access));
  if (info == nullptr) return nullptr;
  auto file = std::make_unique<File>();
  file->access = *info;
  const bool truncates = (flags & H5F_ACC_TRUNC) != 0;
  struct stat status {};
  if (::fstat(file->access->descriptor(), &status) != 0 ||
      (truncates && ::ftruncate(file->access->descriptor(), 0) != 0)) {
    file->access->failed(errno);
    return nullptr;
  }
  file->end_of_file = truncates ? 0 : static_cast<haddr_t>(status.st_size);
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

/// Reads past the end of the file return zeros, as the format requires.
herr_t read(H5FD_t* file, H5FD_mem_t /*type*/, hid_t /*transfer*/, haddr_t at, size_t size, void* out) {
  FileAccess& access = *file_of(file).access;
  auto* const bytes = static_cast<char*>(out);
  for (std::size_t done = 0; done < size;) {
    const ssize_t count = engine::uninterrupted([&] {
      return ::pread(access.descriptor(), bytes + done, size - done, static_cast<off_t>(at + done));
    });
    if (count < 0) return access.failed(errno);
    if (count == 0) {
      std::fill_n(bytes + done, size - done, '\0');
      return 0;
    }
    done += static_cast<std::size_t>(count);
  }
  return 0;
}

herr_t write(H5FD_t* file, H5FD_mem_t /*type*/, hid_t /*transfer*/, haddr_t at, size_t size,
             const void* data) {
  File& own = file_of(file);
  own.end_of_file = std::max(own.end_of_file, at + size);
  for (std::size_t done = 0; done < size && own.access->error() == 0;) {
    const ssize_t count = engine::uninterrupted([&] {
      return ::pwrite(own.access->descriptor(), static_cast<const char*>(data) + done, size - done,
                      static_cast<off_t>(at + done));
    });
    if (count <= 0) own.access->failed(count < 0 ? errno : ENOSPC);
    done += static_cast<std::size_t>(std::max<ssize_t>(count, 0));
  }
  return 0;
}

herr_t truncate(H5FD_t* file, hid_t /*transfer*/, hbool_t /*closing*/) {
  File& own = file_of(file);
  if (own.end_of_addresses == own.end_of_file) return 0;
  if (own.access->error() == 0 &&
      ::ftruncate(own.access->descriptor(), static_cast<off_t>(own.end_of_addresses)) != 0)
    own.access->failed(errno);
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
  driver.fapl_size = sizeof(FileAccess*);
  driver.open = open_file;
  driver.close = close_file;
  driver.query = query;
  driver.get_eoa = [](const H5FD_t* file, H5FD_mem_t) { return file_of(file).end_of_addresses; };
  driver.set_eoa = [](H5FD_t* file, H5FD_mem_t, haddr_t address) {
    file_of(file).end_of_addresses = address;
    return herr_t{0};
  };
  driver.get_eof = [](const H5FD_t* file, H5FD_mem_t) { return file_of(file).end_of_file; };
  driver.read = read;
  driver.write = write;
  driver.truncate = truncate;
  constexpr H5FD_mem_t kMap[H5FD_MEM_NTYPES] = H5FD_FLMAP_DICHOTOMY;
  std::copy(std::begin(kMap), std::end(kMap), std::begin(driver.fl_map));
  return H5FDregister(&driver);
}

}  // namespace

Handle FileAccess::properties() {
  static const hid_t driver = register_driver();
  Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  FileAccess* const self = this;
  H5Pset_driver(access.get(), driver, static_cast<const void*>(&self));
  return access;
}

}  // namespace voca::data::hdf5
