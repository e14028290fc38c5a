#pragma once

#include <hdf5.h>

#include <mutex>
#include <string>
#include <utility>

#include "engine/core/dtype.h"

// The library's handles, locks and errors. Internal to data/.

namespace voca::data::hdf5 {

/// A stretch of calls into the library. One at a time, of all files: it may be built without its own lock.
/// Keeps it from printing its errors, and from cleaning up when the program ends: what is open is closed by
/// its Handle, and what could not be closed it would stumble over.
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

/// A handle and how to close it.
class Handle {
 public:
  using Closer = herr_t (*)(hid_t);
  Handle() = default;
  Handle(hid_t id, Closer closer) : id_(id), closer_(closer) {}
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), closer_(other.closer_) {}
  Handle& operator=(Handle&& other) noexcept {
    if (this != &other) {
      reset();
      id_ = std::exchange(other.id_, -1);
      closer_ = other.closer_;
    }
    return *this;
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() { reset(); }

  void reset() {
    if (id_ >= 0) closer_(id_);
    id_ = -1;
  }
  /// Closes and says whether that went well: writes are reported as late as that.
  [[nodiscard]] bool close() { return id_ < 0 || closer_(std::exchange(id_, -1)) >= 0; }
  [[nodiscard]] hid_t get() const { return id_; }
  [[nodiscard]] explicit operator bool() const { return id_ >= 0; }

 private:
  hid_t id_ = -1;
  Closer closer_ = nullptr;
};

/// The innermost message of the library's last error.
[[nodiscard]] std::string last_error();
/// Throws std::bad_alloc where little memory is left: the library does not survive everywhere that it gets
/// none.
void require_memory();
/// Whether the last call failed because it could not get memory.
[[nodiscard]] bool lacked_memory();

/// The file type of float16 or float32, little-endian. To be closed by the caller (Handle).
[[nodiscard]] Handle frame_type(engine::DType dtype);

}  // namespace voca::data::hdf5
