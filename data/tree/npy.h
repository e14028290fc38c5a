#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/base/error.h"
#include "engine/core/dtype.h"

// NumPy's array format (numpy.lib.format), versions 1.0, 2.0 and 3.0: what is read is numbers of the types
// below, in any byte order and in C or Fortran order. Objects (pickles) are refused before a byte of them is
// looked at.

namespace voca::data {

/// Bytes without a value until they are written: large buffers that are filled at once.
struct Buffer {
  std::unique_ptr<std::byte[]> bytes;
  std::size_t size = 0;

  Buffer() = default;
  explicit Buffer(std::size_t count) : bytes(new std::byte[count]), size(count) {}
  [[nodiscard]] std::byte* data() const { return bytes.get(); }
  [[nodiscard]] std::span<std::byte> span() const { return {bytes.get(), size}; }
};

/// What is wrong with an array or with the file it is in.
enum class ArrayFault : std::uint8_t {
  kUnreadable,  ///< no file to be read: missing, a loop of links, a folder or a pipe
  kDamaged,     ///< no zip archive, a truncated one, or one that contradicts itself
  kChecksum,    ///< the bytes are not the ones that were written (CRC-32 of the zip entry)
  kMissing,     ///< the archive has no such array
  kEmpty,       ///< an array without elements
  kShape,       ///< the wrong number of dimensions, or an impossible size
  kType,        ///< not numbers of a type that is read
};

/// A DataError that says which fault it was, for those who count them.
class ArrayError : public engine::DataError {
 public:
  ArrayError(ArrayFault fault, const std::string& message)
      : engine::DataError("{}", message), fault_(fault) {}
  [[nodiscard]] ArrayFault fault() const noexcept { return fault_; }

 private:
  ArrayFault fault_;
};

/// What an array's header says.
struct NpyHeader {
  engine::DType dtype = engine::DType::kF32;
  std::vector<std::int64_t> shape;  ///< outermost first; empty for a 0-d array
  bool fortran_order = false;
  bool big_endian = false;
  std::size_t data_offset = 0;  ///< bytes before the first element

  /// Product of the extents; checked not to overflow when the header was read.
  [[nodiscard]] std::int64_t elements() const;
  [[nodiscard]] std::size_t data_bytes() const;
};

/// Bytes of `start` (the first 12 or more of an array's file) up to the first element. `where` names the
/// array in messages. Throws ArrayError.
[[nodiscard]] std::size_t npy_header_bytes(std::span<const std::byte> start, const std::string& where);
/// Parses a header of npy_header_bytes() bytes. Throws ArrayError naming what is wrong: magic, version,
/// length, dictionary, type (objects and strings among them), shape (negative, or bytes beyond 2^62).
[[nodiscard]] NpyHeader parse_npy_header(std::span<const std::byte> header, const std::string& where);

/// Numbers in C order and in this machine's byte order.
struct Array {
  engine::DType dtype = engine::DType::kF32;
  std::vector<std::int64_t> shape;
  Buffer data;

  [[nodiscard]] std::int64_t elements() const;
};

/// `data` (header.data_bytes() bytes as they lie in the file) as an Array; taken over where nothing needs to
/// change, reordered into a second buffer where the order is Fortran's.
[[nodiscard]] Array make_array(const NpyHeader& header, Buffer data);

/// The header of a C-order, little-endian array, version 1.0, padded as NumPy pads it (to 64 bytes).
[[nodiscard]] std::string npy_header_text(engine::DType dtype, std::span<const std::int64_t> shape);

}  // namespace voca::data
