#pragma once

#include <hdf5.h>

#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/dtype.h"

// The little of the HDF5 C API that packed files need, with handles that close themselves. Internal to data/.
// Everything here is called with hdf5_mutex() held: the library may be built without its own lock.

namespace voca::data::hdf5 {

/// Serialises all calls into the library, of all files.
[[nodiscard]] std::mutex& hdf5_mutex();

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

/// Keeps the library from printing its error stack to stderr while this lives.
class Quiet {
 public:
  Quiet();
  ~Quiet();
  Quiet(const Quiet&) = delete;
  Quiet& operator=(const Quiet&) = delete;

 private:
  H5E_auto2_t function_ = nullptr;
  void* data_ = nullptr;
};

/// The innermost message of the library's last error.
[[nodiscard]] std::string last_error();

/// The file type of float16 or float32, little-endian. To be closed by the caller (Handle).
[[nodiscard]] Handle frame_type(engine::DType dtype);

/// A file opened for reading, every object of which is checked to lie in it. Throws DataError naming file and
/// object.
class Reader {
 public:
  explicit Reader(std::string path, std::uint64_t file_bytes);

  [[nodiscard]] bool has(const std::string& name) const;
  /// The dataset `name` ("/visual/frames"), reached through hard links only, neither external nor virtual,
  /// all of its elements there.
  [[nodiscard]] Handle dataset(const std::string& name) const;
  [[nodiscard]] std::vector<hsize_t> extents(const Handle& dataset) const;
  /// A one-dimensional dataset of whole numbers; −1 for any length.
  template <typename T>
  [[nodiscard]] std::vector<T> integers(const std::string& name, std::int64_t length) const;
  [[nodiscard]] std::vector<std::string> strings(const std::string& name) const;

  [[nodiscard]] std::optional<std::string> text_attribute(const char* name) const;
  [[nodiscard]] std::optional<std::int64_t> integer_attribute(const char* name) const;
  [[nodiscard]] std::vector<double> real_attribute(const char* name) const;

  [[nodiscard]] Handle take_file() { return std::move(file_); }

 private:
  [[nodiscard]] Handle attribute(const char* name) const;
  void check_links(const std::string& name) const;
  /// That the library can undo every filter.
  void check_filters(const Handle& plist, const std::string& name) const;
  void check_storage(const Handle& dataset, const std::string& name) const;

  std::string path_;
  std::uint64_t file_bytes_;
  Handle file_;
};

}  // namespace voca::data::hdf5
