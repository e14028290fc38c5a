#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/error.h"
#include "engine/core/dtype.h"

// NumPy's array format (numpy.lib.format), versions 1.0, 2.0 and 3.0. Supports numbers of the types below, in
// any byte order and in C or Fortran order. Objects (pickles) are rejected before any of their bytes is read.

namespace voca::data {

/// Uninitialised bytes, for large buffers that are overwritten at once.
struct Buffer {
  std::unique_ptr<std::byte[]> bytes;
  std::size_t size = 0;

  Buffer() = default;
  explicit Buffer(std::size_t count) : bytes(new std::byte[count]), size(count) {}
  [[nodiscard]] std::byte* data() const { return bytes.get(); }
  [[nodiscard]] std::span<std::byte> span() const { return {bytes.get(), size}; }
};

/// Fault of an array or of its file.
enum class ArrayFault : std::uint8_t {
  kUnreadable,  ///< not a readable file: missing, a link loop, a folder or a pipe
  kDamaged,     ///< not a zip archive, or a truncated or inconsistent one
  kChecksum,    ///< the CRC-32 of the zip entry differs
  kMissing,     ///< the archive has no such array
  kEmpty,       ///< the array has no elements
  kShape,       ///< the wrong number of dimensions, or an impossible size
  kType,        ///< not numbers of a supported type
};

/// DataError with its ArrayFault, for callers that count faults.
class ArrayError : public engine::DataError {
 public:
  template <typename... Args>
  ArrayError(ArrayFault fault, fmt::format_string<Args...> format, Args&&... args)
      : engine::DataError(format, std::forward<Args>(args)...), fault_(fault) {}
  [[nodiscard]] ArrayFault fault() const noexcept { return fault_; }

 private:
  ArrayFault fault_;
};

/// Contents of an array's header.
struct NpyHeader {
  engine::DType dtype = engine::DType::kF32;
  std::vector<std::int64_t> shape;  ///< outermost first; empty for a 0-d array
  bool fortran_order = false;
  bool big_endian = false;
  std::size_t data_offset = 0;  ///< bytes before the first element

  /// Product of the extents; cannot overflow, which parsing has checked.
  [[nodiscard]] std::int64_t elements() const;
  [[nodiscard]] std::size_t data_bytes() const;
};

/// Size of the header in bytes, given `start`, the first 12 or more bytes of an array's file. `where` names
/// the array in messages. Throws ArrayError.
[[nodiscard]] std::size_t npy_header_bytes(std::span<const std::byte> start, const std::string& where);
/// Parses a header of npy_header_bytes() bytes. Throws ArrayError naming the fault: magic, version, length,
/// dictionary, type (including objects and strings), shape (negative, or more than 2^62 bytes).
[[nodiscard]] NpyHeader parse_npy_header(std::span<const std::byte> header, const std::string& where);

/// Numbers in C order and native byte order.
struct Array {
  engine::DType dtype = engine::DType::kF32;
  std::vector<std::int64_t> shape;
  Buffer data;

  [[nodiscard]] std::int64_t elements() const;
};

/// Converts `data` (header.data_bytes() bytes as in the file) to an Array. The buffer is reused, except that
/// Fortran order is copied to a second one.
[[nodiscard]] Array make_array(const NpyHeader& header, Buffer data);

/// Header of a C-order, little-endian array, version 1.0, padded to 64 bytes like NumPy's.
[[nodiscard]] std::string npy_header_text(engine::DType dtype, std::span<const std::int64_t> shape);

}  // namespace voca::data
