#include "data/npy.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>

namespace voca::data {
namespace {

using engine::DType;

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr std::size_t kFixedBytes = kMagic.size() + 2;  // magic, major, minor
/// NumPy itself refuses headers beyond 10 000 bytes; the version 1.0 format cannot say more than this.
constexpr std::size_t kMaxHeader = 65535;
constexpr std::int64_t kMaxBytes = std::int64_t{1} << 62;

[[noreturn]] void fail(ArrayFault fault, const std::string& where, std::string_view what) {
  throw ArrayError(fault, fmt::format("{}: {}", where, what));
}

/// The Python literal of a header: {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }
class HeaderParser {
 public:
  HeaderParser(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  NpyHeader parse() {
    expect('{');
    while (!accept('}')) {
      const std::string_view key = quoted();
      expect(':');
      if (key == "descr") {
        once(has_descr_);
        descr();
      } else if (key == "fortran_order") {
        once(has_order_);
        header_.fortran_order = boolean();
      } else if (key == "shape") {
        once(has_shape_);
        shape();
      } else {
        damaged("its header has a key other than descr, fortran_order and shape");
      }
      if (!accept(',') && !next_is('}')) damaged("its header is no Python dictionary");
    }
    skip_space();
    if (at_ != text_.size()) damaged("its header goes on after the dictionary");
    if (!has_descr_ || !has_order_ || !has_shape_) damaged("its header lacks descr, fortran_order or shape");
    check_size();
    return std::move(header_);
  }

 private:
  [[noreturn]] void damaged(std::string_view what) const { fail(ArrayFault::kDamaged, where_, what); }

  void once(bool& seen) {
    if (seen) damaged("its header says something twice");
    seen = true;
  }

  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t')) ++at_;
  }
  bool next_is(char c) {
    skip_space();
    return at_ < text_.size() && text_[at_] == c;
  }
  bool accept(char c) {
    if (!next_is(c)) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) damaged("its header is no Python dictionary");
  }

  std::string_view quoted() {
    skip_space();
    const char quote = at_ < text_.size() ? text_[at_] : ' ';
    if (quote != '\'' && quote != '"') damaged("its header is no Python dictionary");
    const std::size_t end = text_.find(quote, at_ + 1);
    if (end == std::string_view::npos) damaged("its header is no Python dictionary");
    const std::string_view result = text_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    return result;
  }

  bool boolean() {
    skip_space();
    for (const auto& [word, value] : {std::pair{std::string_view("True"), true}, {"False", false}}) {
      if (text_.substr(at_).starts_with(word)) {
        at_ += word.size();
        return value;
      }
    }
    damaged("fortran_order is neither True nor False");
  }

  void descr() {
    if (next_is('['))
      fail(ArrayFault::kType, where_, "is a structured array; numbers of one type are needed");
    const std::string_view text = quoted();
    struct Known {
      std::string_view code;
      DType dtype;
    };
    static constexpr std::array<Known, 9> kKnown{{{"f2", DType::kF16},
                                                  {"f4", DType::kF32},
                                                  {"f8", DType::kF64},
                                                  {"i1", DType::kI8},
                                                  {"i2", DType::kI16},
                                                  {"i4", DType::kI32},
                                                  {"i8", DType::kI64},
                                                  {"u1", DType::kU8},
                                                  {"b1", DType::kBool}}};
    const char order = text.empty() ? ' ' : text[0];
    if (order == '<' || order == '>' || order == '|' || order == '=') {
      for (const Known& known : kKnown) {
        if (text.substr(1) != known.code) continue;
        header_.dtype = known.dtype;
        header_.big_endian = order == '>' && engine::size_of(known.dtype) > 1;
        return;
      }
    }
    fail(ArrayFault::kType, where_,
         fmt::format("its elements are of type '{}'; float16, float32 or float64 is needed",
                     text.substr(0, 20)));
  }

  void shape() {
    expect('(');
    while (!accept(')')) {
      skip_space();
      std::int64_t extent = 0;
      const char* const end = text_.data() + text_.size();
      const auto [stop, error] = std::from_chars(text_.data() + at_, end, extent);
      if (error != std::errc() || extent < 0)
        fail(ArrayFault::kShape, where_, "its header has a shape that is no tuple of sizes");
      at_ = static_cast<std::size_t>(stop - text_.data());
      accept('L');  // Python 2 wrote long integers so
      header_.shape.push_back(extent);
      if (!accept(',') && !next_is(')')) damaged("its header has a shape that is no tuple");
    }
    if (header_.shape.size() > 32) fail(ArrayFault::kShape, where_, "it has more than 32 dimensions");
  }

  void check_size() const {
    auto bytes = static_cast<std::int64_t>(engine::size_of(header_.dtype));
    for (const std::int64_t extent : header_.shape) {
      if (__builtin_mul_overflow(bytes, extent, &bytes) || bytes > kMaxBytes)
        fail(ArrayFault::kShape, where_, "its shape is impossibly large");
    }
  }

  std::string_view text_;
  const std::string& where_;
  std::size_t at_ = 0;
  NpyHeader header_;
  bool has_descr_ = false;
  bool has_order_ = false;
  bool has_shape_ = false;
};

/// Reverses the bytes of each of `bytes.size() / size` elements.
void swap_bytes(std::span<std::byte> bytes, std::size_t size) {
  for (std::size_t i = 0; i < bytes.size(); i += size) std::reverse(&bytes[i], &bytes[i] + size);
}

/// Copies Fortran order (first index fastest) to C order (last index fastest).
Buffer to_c_order(const NpyHeader& header, const Buffer& from) {
  const std::size_t size = engine::size_of(header.dtype);
  Buffer to(from.size);
  std::vector<std::int64_t> index(header.shape.size(), 0);
  const std::int64_t elements = header.elements();
  for (std::int64_t i = 0; i < elements; ++i) {
    std::int64_t source = 0;
    for (std::size_t d = index.size(); d-- > 0;) source = source * header.shape[d] + index[d];
    std::memcpy(to.data() + static_cast<std::size_t>(i) * size,
                from.data() + static_cast<std::size_t>(source) * size, size);
    for (std::size_t d = index.size(); d-- > 0;) {
      if (++index[d] < header.shape[d]) break;
      index[d] = 0;
    }
  }
  return to;
}

std::int64_t product(std::span<const std::int64_t> shape) {
  std::int64_t result = 1;
  for (const std::int64_t extent : shape) result *= extent;
  return result;
}

}  // namespace

std::int64_t NpyHeader::elements() const {
  return product(shape);
}

std::size_t NpyHeader::data_bytes() const {
  return static_cast<std::size_t>(elements()) * engine::size_of(dtype);
}

std::int64_t Array::elements() const {
  return product(shape);
}

std::size_t npy_header_bytes(std::span<const std::byte> start, const std::string& where) {
  const auto byte = [&](std::size_t i) { return std::to_integer<std::size_t>(start[i]); };
  if (start.size() < kFixedBytes + 4) fail(ArrayFault::kDamaged, where, "is too short for a NumPy array");
  if (std::memcmp(start.data(), kMagic.data(), kMagic.size()) != 0)
    fail(ArrayFault::kDamaged, where, "is no NumPy array (its first bytes are not \\x93NUMPY)");
  const std::size_t major = byte(kMagic.size());
  if (major < 1 || major > 3 || byte(kMagic.size() + 1) != 0) {
    fail(ArrayFault::kDamaged, where,
         fmt::format("is of NumPy format {}.{}; 1.0, 2.0 and 3.0 are read", major, byte(kMagic.size() + 1)));
  }
  const std::size_t length_bytes = major == 1 ? 2 : 4;
  std::size_t length = 0;
  for (std::size_t i = length_bytes; i-- > 0;) length = length * 256 + byte(kFixedBytes + i);
  if (length > kMaxHeader) {
    fail(ArrayFault::kDamaged, where,
         fmt::format("declares a header of {} bytes, beyond all reason", length));
  }
  return kFixedBytes + length_bytes + length;
}

NpyHeader parse_npy_header(std::span<const std::byte> header, const std::string& where) {
  VOCA_CHECK(npy_header_bytes(header, where) == header.size());
  const std::size_t start = kFixedBytes + (header[kMagic.size()] == std::byte{1} ? 2 : 4);
  const std::string_view text(reinterpret_cast<const char*>(header.data()) + start, header.size() - start);
  NpyHeader result = HeaderParser(text, where).parse();
  result.data_offset = header.size();
  return result;
}

Array make_array(const NpyHeader& header, Buffer data) {
  VOCA_CHECK(data.size == header.data_bytes());
  if (header.big_endian) swap_bytes(data.span(), engine::size_of(header.dtype));
  const auto thick = std::count_if(header.shape.begin(), header.shape.end(), [](auto n) { return n != 1; });
  if (header.fortran_order && thick > 1) data = to_c_order(header, data);
  return {header.dtype, header.shape, std::move(data)};
}

std::string npy_header_text(engine::DType dtype, std::span<const std::int64_t> shape) {
  const char* code = nullptr;
  switch (dtype) {
    case DType::kF64:
      code = "<f8";
      break;
    case DType::kF32:
      code = "<f4";
      break;
    case DType::kF16:
      code = "<f2";
      break;
    case DType::kI64:
      code = "<i8";
      break;
    case DType::kI32:
      code = "<i4";
      break;
    case DType::kI16:
      code = "<i2";
      break;
    case DType::kI8:
      code = "|i1";
      break;
    case DType::kU8:
      code = "|u1";
      break;
    case DType::kBool:
      code = "|b1";
      break;
    case DType::kBF16:
      throw engine::InternalError("NumPy has no type for bfloat16");
  }
  std::string extents;
  for (const std::int64_t extent : shape) extents += fmt::format("{}{}", extents.empty() ? "" : ", ", extent);
  if (shape.size() == 1) extents += ",";
  std::string text = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", code, extents);
  const std::size_t unpadded = kFixedBytes + 2 + text.size() + 1;
  text.append((64 - unpadded % 64) % 64, ' ');
  text += '\n';
  std::string result(kMagic);
  result += {'\x01', '\x00', static_cast<char>(text.size() % 256), static_cast<char>(text.size() / 256)};
  return result + text;
}

}  // namespace voca::data
