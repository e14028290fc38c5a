#pragma once

#include <hdf5.h>

#include <mutex>
#include <string>

#include "engine/base/unique_handle.h"
#include "engine/core/dtype.h"

// Handles, locking and errors of the HDF5 library. Internal to data/.

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
  static void close(const OpenObject& object) { object.closer(object.id); }
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

/// File type of float16 or float32, little-endian.
[[nodiscard]] Handle frame_type(engine::DType dtype);

}  // namespace voca::data::hdf5
