#pragma once

#include <hdf5.h>

#include <mutex>
#include <string>

#include "engine/base/unique_handle.h"
#include "engine/core/dtype.h"

// Handles, locking, errors and file access of the HDF5 library. Internal to data/.

namespace voca::data::hdf5 {

/// Scope of calls into the HDF5 library. Sessions exclude each other, across all files, because the library
/// may be built without thread safety. Suppresses the library's error output and its clean-up at exit:
/// Handles close what is open, and the clean-up could crash on what could not be closed.
class Session {
 public:
  Session();
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

 private:
  std::unique_lock<std::mutex> lock_;
  H5E_auto2_t function_ = nullptr;
  void* data_ = nullptr;
};

struct OpenObject {
  using Closer = herr_t (*)(hid_t);
  hid_t id = H5I_INVALID_HID;
  Closer closer = nullptr;
  [[nodiscard]] bool operator==(const OpenObject&) const = default;
};
struct ObjectTraits {
  static constexpr OpenObject kNone{};
  static void close(const OpenObject& object) {
    if (object.closer != nullptr) object.closer(object.id);
  }
};

/// Owning HDF5 handle with its close function.
class Handle {
 public:
  Handle() = default;
  /// `id` as the library returns it: negative is none.
  Handle(hid_t id, OpenObject::Closer closer) : object_(id < 0 ? OpenObject{} : OpenObject{id, closer}) {}

  void reset() { object_.reset(); }
  /// Closes the handle and returns whether that succeeded; write errors may surface only here.
  [[nodiscard]] bool close() {
    const OpenObject object = object_.release();
    return object == ObjectTraits::kNone || object.closer(object.id) >= 0;
  }
  [[nodiscard]] hid_t get() const { return object_.get().id; }
  [[nodiscard]] explicit operator bool() const { return static_cast<bool>(object_); }

 private:
  engine::UniqueHandle<ObjectTraits> object_;
};

/// Innermost message of the library's last error.
[[nodiscard]] std::string last_error();
/// Throws std::bad_alloc if memory is low: the library does not survive every failed allocation.
void require_memory();
/// Whether the last call failed for lack of memory.
[[nodiscard]] bool lacked_memory();

/// Routes the library's access to one file through a descriptor of the caller, and records system errors. The
/// library is not notified of a failed write: it would be left with a file that it cannot close and would
/// crash at exit. The caller must therefore check error() after flushing or closing the file.
class FileAccess {
 public:
  /// `descriptor` must stay open as long as the library has the file open.
  explicit FileAccess(int descriptor) : descriptor_(descriptor) {}
  FileAccess(const FileAccess&) = delete;
  FileAccess& operator=(const FileAccess&) = delete;

  /// Access property list for H5Fopen and H5Fcreate; this object must outlive the file opened with it.
  [[nodiscard]] Handle properties();
  /// errno of the first failed read or write; 0 if none failed.
  [[nodiscard]] int error() const { return error_; }

  [[nodiscard]] int descriptor() const { return descriptor_; }
  /// Records the first error; returns −1, the library's failure code.
  herr_t failed(int error_number) {
    if (error_ == 0) error_ = error_number;
    return -1;
  }

 private:
  int descriptor_;
  int error_ = 0;
};

/// File type of float16 or float32, little-endian.
[[nodiscard]] Handle frame_type(engine::DType dtype);

}  // namespace voca::data::hdf5
