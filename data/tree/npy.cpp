#include "data/tree/npy.h"
#include "engine/base/text.h"

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
constexpr std::size_t kMaxHeader = 10'000;              // as in NumPy
constexpr std::size_t kMaxRank = 64;                    // as in NumPy 2
constexpr std::size_t kMaxShown = 20;                   // bytes of a string shown in a message
constexpr std::int64_t kMaxBytes = std::int64_t{1} << 62;

template <typename... Args>
[[noreturn]] void fail(ArrayFault fault, const std::string& where, fmt::format_string<Args...> what,
                       Args&&... args) {
  throw ArrayError(fault, "{}: {}", where, fmt::format(what, std::forward<Args>(args)...));
}

struct KnownType {
  DType dtype;
  std::array<std::string_view, 4> names;  // code, name, character, C's name
};
constexpr std::array<KnownType, 9> kKnownTypes{{{DType::kF16, {"f2", "float16", "e", "half"}},
                                                {DType::kF32, {"f4", "float32", "f", "single"}},
                                                {DType::kF64, {"f8", "float64", "d", "double"}},
                                                {DType::kI8, {"i1", "int8", "b", "byte"}},
                                                {DType::kI16, {"i2", "int16", "h", "short"}},
                                                {DType::kI32, {"i4", "int32", "i", "intc"}},
                                                {DType::kI64, {"i8", "int64", "q", "longlong"}},
                                                {DType::kU8, {"u1", "uint8", "B", "ubyte"}},
                                                {DType::kBool, {"b1", "bool", "?", "bool_"}}}};

/// Type that NumPy means by a name, or by a code without its byte order. "l", "long" and similar names of
/// platform-dependent size are not accepted: NumPy writes codes with a size.
std::optional<DType> known_type(std::string_view name) {
  for (const KnownType& known : kKnownTypes)
    if (std::ranges::find(known.names, name) != known.names.end()) return known.dtype;
  return std::nullopt;
}

/// Parser of a header's Python literal: {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }
class HeaderParser {
 public:
  HeaderParser(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  NpyHeader parse() {
    std::vector<std::string_view> keys;
    expect('{');
    while (!accept('}')) {
      const std::string_view key = quoted();
      expect(':');
      if (std::ranges::find(keys, key) != keys.end()) damaged("its header says something twice");
      keys.push_back(key);
      if (key == "descr") {
        descr();
      } else if (key == "fortran_order") {
        header_.fortran_order = boolean();
      } else if (key == "shape") {
        shape();
      } else {
        damaged("its header has a key other than descr, fortran_order and shape");
      }
      if (!accept(',') && !next_is('}')) damaged("its header is not a Python dictionary");
    }
    skip_space();
    if (at_ != text_.size()) damaged("its header goes on after the dictionary");
    if (keys.size() < 3) damaged("its header lacks descr, fortran_order or shape");
    check_size();
    return std::move(header_);
  }

 private:
  [[noreturn]] void damaged(std::string_view what) const { fail(ArrayFault::kDamaged, where_, "{}", what); }

  void skip_space() {
    while (at_ < text_.size() && std::string_view(" \n\r\t\f").find(text_[at_]) != std::string_view::npos)
      ++at_;
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
    if (!accept(c)) damaged("its header is not a Python dictionary");
  }

  std::string_view quoted() {
    skip_space();
    const char quote = at_ < text_.size() ? text_[at_] : ' ';
    if (quote != '\'' && quote != '"') damaged("its header is not a Python dictionary");
    const std::size_t end = text_.find(quote, at_ + 1);
    if (end == std::string_view::npos) damaged("its header is not a Python dictionary");
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
    const bool ordered = !text.empty() && std::string_view("<>|=").find(text[0]) != std::string_view::npos;
    // NumPy accepts a byte order before a code or a character, not before a name.
    if (const auto dtype = known_type(text.substr(ordered ? 1 : 0));
        dtype && (!ordered || text.size() <= 3)) {
      header_.dtype = *dtype;
      header_.big_endian = text[0] == '>' && engine::size_of(*dtype) > 1;
      return;
    }
    fail(ArrayFault::kType, where_, "its elements are of type '{}'; float16, float32 or float64 is needed",
         engine::printable(text, kMaxShown));
  }

  void shape() {
    expect('(');
    bool comma = true;  // "(6)" lacks the comma that makes it a tuple
    while (!accept(')')) {
      header_.shape.push_back(extent());
      comma = accept(',');
      if (!comma && !next_is(')')) damaged("its header has a shape that is not a tuple");
    }
    if (!comma && header_.shape.size() == 1)
      fail(ArrayFault::kShape, where_, "its header has a shape that is a number in parentheses, no tuple");
    if (header_.shape.size() > kMaxRank)
      fail(ArrayFault::kShape, where_, "it has more than {} dimensions", kMaxRank);
  }

  /// A non-negative integer in Python syntax, which excludes "02".
  std::int64_t extent() {
    skip_space();
    std::int64_t value = 0;
    const std::string_view rest = text_.substr(at_);
    const auto [stop, error] = std::from_chars(rest.data(), rest.data() + rest.size(), value);
    const auto digits = static_cast<std::size_t>(stop - rest.data());
    if (error != std::errc() || value < 0 || (rest[0] == '0' && value != 0))
      fail(ArrayFault::kShape, where_, "its header has a shape that is not a tuple of sizes");
    at_ += digits;
    accept('L');  // suffix of long integers in Python 2
    return value;
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
};

/// Reverses the bytes of each element of `size` bytes.
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
    fail(ArrayFault::kDamaged, where, "is of NumPy format {}.{}; 1.0, 2.0 and 3.0 are read", major,
         byte(kMagic.size() + 1));
  }
  const std::size_t length_bytes = major == 1 ? 2 : 4;
  std::size_t length = 0;
  for (std::size_t i = length_bytes; i-- > 0;) length = length * 256 + byte(kFixedBytes + i);
  if (length > kMaxHeader) {
    fail(ArrayFault::kDamaged, where, "declares a header of {} bytes; NumPy reads {} at most", length,
         kMaxHeader);
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
  const auto thick = std::ranges::count_if(header.shape, [](auto n) { return n != 1; });
  if (header.fortran_order && thick > 1) data = to_c_order(header, data);
  return {header.dtype, header.shape, std::move(data)};
}

std::string npy_header_text(engine::DType dtype, std::span<const std::int64_t> shape) {
  const auto known = std::ranges::find(kKnownTypes, dtype, &KnownType::dtype);
  VOCA_CHECK(known != kKnownTypes.end());  // NumPy has no bfloat16
  const char order = engine::size_of(dtype) > 1 ? '<' : '|';
  std::string text = fmt::format("{{'descr': '{}{}', 'fortran_order': False, 'shape': ({}{}), }}", order,
                                 known->names[0], fmt::join(shape, ", "), shape.size() == 1 ? "," : "");
  const std::size_t unpadded = kFixedBytes + 2 + text.size() + 1;
  text.append((64 - unpadded % 64) % 64, ' ');
  text += '\n';
  std::string result(kMagic);
  result += {'\x01', '\x00', static_cast<char>(text.size() % 256), static_cast<char>(text.size() / 256)};
  return result + text;
}

}  // namespace voca::data
