#pragma once

#include <hdf5.h>

#include <mutex>
#include <string>
#include <utility>

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

/// Owning HDF5 handle with its close function.
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
  /// Closes the handle and returns whether that succeeded; write errors may surface only here.
  [[nodiscard]] bool close() { return id_ < 0 || closer_(std::exchange(id_, -1)) >= 0; }
  [[nodiscard]] hid_t get() const { return id_; }
  [[nodiscard]] explicit operator bool() const { return id_ >= 0; }

 private:
  hid_t id_ = -1;
  Closer closer_ = nullptr;
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
