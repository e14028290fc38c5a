#include "data/packed/hdf5_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <new>
#include <type_traits>
#include <utility>

#include "engine/base/error.h"
#include "engine/base/file_kind.h"
#include "engine/base/text.h"

namespace voca::data::hdf5 {
namespace {

using engine::DataError;

constexpr std::size_t kMaxAttribute = std::size_t{64} << 10;
constexpr std::size_t kMaxString = 4096;
/// Maximum expansion by deflate; higher claimed ratios are rejected.
constexpr std::uint64_t kMaxExpansion = 1032;
/// A chunk may be up to twice the size of the data, or this size if that is larger.
constexpr std::uint64_t kSmallChunk = std::uint64_t{4} << 20;
/// Maximum growth of incompressible data by deflate and a checksum: this fraction (1 / kLengthening), plus a
/// constant number of bytes.
constexpr std::uint64_t kLengthening = 64;
constexpr std::uint64_t kLengtheningBytes = 1024;
constexpr std::size_t kMaxFilterName = 256;
/// Integers of a different width than requested are read in pieces of this many.
constexpr hsize_t kPiece = hsize_t{1} << 16;
/// If less memory than this is available, a failure is attributed to lack of memory.
constexpr std::size_t kLittleMemory = std::size_t{1} << 20;

constexpr std::array<H5Z_filter_t, 3> kFilters{H5Z_FILTER_DEFLATE, H5Z_FILTER_SHUFFLE, H5Z_FILTER_FLETCHER32};

/// Filters that the library, h5py, hdf5plugin and PyTables write, as registered with the HDF Group.
struct NamedFilter {
  H5Z_filter_t id;
  const char* name;
};
constexpr std::array<NamedFilter, 16> kNamedFilters{{{1, "gzip"},
                                                     {2, "shuffle"},
                                                     {3, "Fletcher32"},
                                                     {4, "szip"},
                                                     {5, "N-bit"},
                                                     {6, "scale-offset"},
                                                     {305, "LZO"},
                                                     {307, "bzip2"},
                                                     {32000, "LZF"},
                                                     {32001, "Blosc"},
                                                     {32004, "LZ4"},
                                                     {32008, "bitshuffle"},
                                                     {32013, "ZFP"},
                                                     {32015, "Zstandard"},
                                                     {32017, "SZ"},
                                                     {32026, "Blosc2"}}};

/// Registered name of a filter, or else the name stored in the file.
std::string filter_name(H5Z_filter_t id, const char* stored) {
  for (const NamedFilter& named : kNamedFilters)
    if (named.id == id) return named.name;
  return *stored != '\0' ? engine::printable(stored) : "without a name";
}

template <typename T>
hid_t native_type() {
  if constexpr (std::is_same_v<T, std::int64_t>) return H5T_NATIVE_INT64;
  if constexpr (std::is_same_v<T, std::uint64_t>) return H5T_NATIVE_UINT64;
  if constexpr (std::is_same_v<T, std::int32_t>) return H5T_NATIVE_INT32;
  if constexpr (std::is_same_v<T, std::uint32_t>) return H5T_NATIVE_UINT32;
  if constexpr (std::is_same_v<T, std::uint8_t>) return H5T_NATIVE_UINT8;
}

/// Whether the type is an integer of at most 64 bits, which the library reads without clipping.
bool is_integer(const Handle& type) {
  const std::size_t size = H5Tget_size(type.get());
  return H5Tget_class(type.get()) == H5T_INTEGER && size >= 1 && size <= sizeof(std::int64_t);
}

template <typename T>
std::string bounds() {
  return fmt::format("{} to {}", std::numeric_limits<T>::min(), std::numeric_limits<T>::max());
}

/// Reads 64-bit integers in pieces and calls take(index, value) for each. Returns false when reading fails.
template <typename Wide, typename Take>
bool read_pieces(const Handle& data, hsize_t count, Take take) {
  std::vector<Wide> piece(std::min(count, kPiece));
  const Handle space(H5Dget_space(data.get()), H5Sclose);
  for (hsize_t first = 0; first < count; first += piece.size()) {
    const hsize_t size = std::min<hsize_t>(piece.size(), count - first);
    const Handle memory(H5Screate_simple(1, &size, nullptr), H5Sclose);
    if (H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, &first, nullptr, &size, nullptr) < 0 ||
        H5Dread(data.get(), native_type<Wide>(), memory.get(), space.get(), H5P_DEFAULT, piece.data()) < 0)
      return false;
    for (hsize_t i = 0; i < size; ++i) take(first + i, piece[i]);
  }
  return true;
}

bool can_allocate(std::uint64_t bytes) {
  void* const memory = ::operator new(bytes, std::nothrow);
  ::operator delete(memory);
  return memory != nullptr;
}

}  // namespace

Reader::Reader(std::string path, int descriptor, std::uint64_t file_bytes, TrialReport report)
    : Reader(std::move(path), descriptor, file_bytes, std::move(report), nullptr) {}

Reader::Reader(std::string path, int descriptor, std::uint64_t file_bytes, const TextsOfObjects& texts)
    : Reader(std::move(path), descriptor, file_bytes,
             {.begin = [](std::string_view) {},
              .found = [](const std::string&, const std::vector<std::string>&) {}},
             &texts) {}

Reader::Reader(std::string path, int descriptor, std::uint64_t file_bytes, TrialReport report,
               const TextsOfObjects* texts)
    : path_(std::move(path)),
      file_bytes_(file_bytes),
      report_(std::move(report)),
      texts_(texts),
      access_(descriptor) {
  const Handle access = access_.properties();
  file_ = Handle(H5Fopen(path_.c_str(), H5F_ACC_RDONLY, access.get()), H5Fclose);
  if (file_) return;
  const std::string reason = last_error();
  if (const std::string other = engine::mistaken_kind(path_, engine::FileKind::kHdf5); !other.empty())
    refuse("{}", other);
  if (engine::file_kind(path_) == engine::FileKind::kHdf5)
    refuse("is a truncated or damaged HDF5 file: {}; copy it again", reason);
  refuse("is not an HDF5 file: {}", reason);
}

void Reader::refuse_as(const std::string& what) const {
  if (access_.error() != 0)
    throw engine::IoError("{}: cannot be read: {}", path_, std::strerror(access_.error()));
  // Damaged files request impossible amounts; a lack of memory is real only if twice the file's size fails
  // too.
  if (!can_allocate(kLittleMemory) || (lacked_memory() && !can_allocate(2 * file_bytes_)))
    throw std::bad_alloc();
  throw DataError("{}: {}", path_, what);
}

bool Reader::has(const std::string& name) const {
  report_.begin(name);
  for (std::size_t slash = name.find('/', 1);; slash = name.find('/', slash + 1)) {
    const htri_t there = H5Lexists(file_.get(), name.substr(0, slash).c_str(), H5P_DEFAULT);
    if (there < 0) refuse("{} cannot be looked for: {}", name, last_error());
    if (there == 0) return false;
    if (slash == std::string::npos) return true;
  }
}

void Reader::check_links(const std::string& name) const {
  for (std::size_t slash = name.find('/', 1);; slash = name.find('/', slash + 1)) {
    const std::string part = name.substr(0, slash);
    H5L_info_t info;
    if (H5Lget_info(file_.get(), part.c_str(), &info, H5P_DEFAULT) < 0)
      refuse("has no {}; a packed dataset has", part);
    if (info.type != H5L_TYPE_HARD)
      refuse("{} is a link to somewhere else; packed datasets hold their data themselves", part);
    if (slash == std::string::npos) return;
  }
}

void Reader::check_filters(const Handle& plist, const std::string& name) const {
  const int count = H5Pget_nfilters(plist.get());
  std::vector<H5Z_filter_t> seen;
  for (int i = 0; i < count; ++i) {
    std::size_t values = 0;
    unsigned flags = 0;
    unsigned config = 0;
    std::array<char, kMaxFilterName> stored{};
    const H5Z_filter_t id = H5Pget_filter2(plist.get(), static_cast<unsigned>(i), &flags, &values, nullptr,
                                           stored.size() - 1, stored.data(), &config);
    if (id < 0) refuse("{} has a filter that cannot be read: {}", name, last_error());
    if (std::ranges::find(kFilters, id) == kFilters.end()) {
      refuse(
          "{} is compressed with the filter {} ({}), which is not read; write the dataset again "
          "without compression or with gzip (h5repack -f NONE where the filter is installed)",
          name, filter_name(id, stored.data()), id);
    }
    if (std::ranges::find(seen, id) != seen.end())
      refuse("damaged: {} has the filter {} twice", name, filter_name(id, stored.data()));
    seen.push_back(id);
  }
}

/// Rejects chunks of impossible size or never written, which would read as zeros.
void Reader::check_chunks(const Handle& dataset, const Handle& plist, const std::string& name,
                          std::uint64_t data_bytes) const {
  const std::vector<hsize_t> shape = extents(dataset);
  std::vector<hsize_t> chunk(shape.size());
  if (H5Pget_chunk(plist.get(), static_cast<int>(chunk.size()), chunk.data()) !=
      static_cast<int>(chunk.size()))
    refuse("{} has chunks that cannot be read: {}", name, last_error());
  const Handle type(H5Dget_type(dataset.get()), H5Tclose);
  std::uint64_t chunk_bytes = H5Tget_size(type.get());
  bool overflow = false;
  for (const hsize_t extent : chunk)
    overflow |= extent == 0 || __builtin_mul_overflow(chunk_bytes, extent, &chunk_bytes);
  if (overflow || chunk_bytes > std::max(kSmallChunk, 2 * data_bytes)) {
    refuse("{} has chunks of ({}) for data of ({}); write it again with smaller ones", name,
           fmt::join(chunk, ", "), fmt::join(shape, ", "));
  }
  if (data_bytes == 0) return;
  const std::uint64_t most = chunk_bytes + chunk_bytes / kLengthening + kLengtheningBytes;
  for (std::vector<hsize_t> at(shape.size(), 0);;) {
    hsize_t stored = 0;
    const bool there = H5Dget_chunk_storage_size(dataset.get(), at.data(), &stored) >= 0 && stored > 0;
    if (!there || stored > most) {
      refuse("damaged: the chunk of {} at ({}) {}", name, fmt::join(at, ", "),
             there ? fmt::format("is {} bytes long, for {}", stored, chunk_bytes)
                   : fmt::format("was never written: {}", last_error()));
    }
    std::size_t axis = at.size();
    while (axis > 0 && (at[axis - 1] += chunk[axis - 1]) >= shape[axis - 1]) at[--axis] = 0;
    if (axis == 0) return;
  }
}

void Reader::check_storage(const Handle& dataset, const std::string& name) {
  const Handle plist(H5Dget_create_plist(dataset.get()), H5Pclose);
  const H5D_layout_t layout = H5Pget_layout(plist.get());
  if (layout == H5D_VIRTUAL || H5Pget_external_count(plist.get()) != 0)
    refuse("{} lies in other files; packed datasets hold their data themselves", name);
  check_filters(plist, name);
  const Handle type(H5Dget_type(dataset.get()), H5Tclose);
  std::uint64_t bytes = H5Tget_size(type.get());
  for (const hsize_t extent : extents(dataset)) {
    if (__builtin_mul_overflow(bytes, extent, &bytes)) refuse("{} is impossibly large", name);
  }
  const std::uint64_t stored = H5Dget_storage_size(dataset.get());
  const std::uint64_t most = H5Pget_nfilters(plist.get()) > 0 ? stored * kMaxExpansion : stored;
  if (stored > file_bytes_ - stored_bytes_ || bytes > most) {
    refuse("{} declares {} bytes, which its {} bytes in a file of {} cannot hold", name, bytes, stored,
           file_bytes_);
  }
  stored_bytes_ += stored;
  if (layout == H5D_CHUNKED) check_chunks(dataset, plist, name, bytes);
}

Handle Reader::dataset(const std::string& name) {
  report_.begin(name);
  check_links(name);
  Handle dataset(H5Dopen2(file_.get(), name.c_str(), H5P_DEFAULT), H5Dclose);
  if (!dataset) refuse("{} cannot be opened: {}", name, last_error());
  check_storage(dataset, name);
  return dataset;
}

std::vector<hsize_t> Reader::extents(const Handle& dataset) const {
  const Handle space(H5Dget_space(dataset.get()), H5Sclose);
  const int rank = H5Sget_simple_extent_ndims(space.get());
  std::vector<hsize_t> result(static_cast<std::size_t>(std::max(rank, 0)));
  if (rank > 0) H5Sget_simple_extent_dims(space.get(), result.data(), nullptr);
  return result;
}

template <typename T>
std::vector<T> Reader::integers(const std::string& name, std::int64_t length, const NameOfEntry& name_of) {
  const Handle data = dataset(name);
  const Handle type(H5Dget_type(data.get()), H5Tclose);
  const std::vector<hsize_t> shape = extents(data);
  if (!is_integer(type) || shape.size() != 1) refuse("{} is not one row of whole numbers", name);
  if (length >= 0 && shape[0] != static_cast<hsize_t>(length))
    refuse("{} has {} entries; {} are expected", name, shape[0], length);
  std::vector<T> result(shape[0]);
  const auto take = [&](hsize_t i, auto value) {
    if (!std::in_range<T>(value)) {
      throw DataError("{}: {}: entry {}{} is {}; {} is expected", path_, name, i,
                      name_of ? fmt::format(" ({})", name_of(i)) : "", value, bounds<T>());
    }
    result[i] = static_cast<T>(value);
  };
  bool read = false;
  if (H5Tequal(type.get(), native_type<T>()) > 0) {
    read = H5Dread(data.get(), native_type<T>(), H5S_ALL, H5S_ALL, H5P_DEFAULT, result.data()) >= 0;
  } else if (H5Tget_sign(type.get()) == H5T_SGN_NONE) {
    read = read_pieces<std::uint64_t>(data, shape[0], take);
  } else {
    read = read_pieces<std::int64_t>(data, shape[0], take);
  }
  if (!read) refuse("{} cannot be read: {}", name, last_error());
  return result;
}

template std::vector<std::int64_t> Reader::integers(const std::string&, std::int64_t, const NameOfEntry&);
template std::vector<std::int32_t> Reader::integers(const std::string&, std::int64_t, const NameOfEntry&);
template std::vector<std::uint32_t> Reader::integers(const std::string&, std::int64_t, const NameOfEntry&);
template std::vector<std::uint8_t> Reader::integers(const std::string&, std::int64_t, const NameOfEntry&);

template <typename Read>
std::vector<std::string> Reader::read_strings(const std::string& object, const Handle& type,
                                              const Handle& space, std::size_t count, Read read) const {
  std::vector<std::string> result(count);
  if (count == 0) return result;
  if (H5Tis_variable_str(type.get()) > 0) {
    if (texts_ != nullptr) {
      const auto known = texts_->find(object);
      if (known == texts_->end() || known->second.size() != count)
        refuse("{} changed as it was read", object);
      return known->second;
    }
    Handle memory(H5Tcopy(H5T_C_S1), H5Tclose);
    H5Tset_size(memory.get(), H5T_VARIABLE);
    H5Tset_cset(memory.get(), H5Tget_cset(type.get()));
    std::vector<char*> pointers(count, nullptr);
    if (!read(memory.get(), pointers.data())) refuse("{} cannot be read: {}", object, last_error());
    for (std::size_t i = 0; i < count; ++i) {
      if (pointers[i] != nullptr) result[i] = pointers[i];
    }
    H5Dvlen_reclaim(memory.get(), space.get(), H5P_DEFAULT, pointers.data());
    report_.found(object, result);
    return result;
  }
  const std::size_t size = H5Tget_size(type.get());
  std::vector<char> bytes(size * count);
  if (!read(type.get(), bytes.data())) refuse("{} cannot be read: {}", object, last_error());
  for (std::size_t i = 0; i < count; ++i) {
    const auto first = bytes.begin() + static_cast<std::ptrdiff_t>(i * size);
    result[i].assign(first, std::find(first, first + static_cast<std::ptrdiff_t>(size), '\0'));
  }
  return result;
}

std::vector<std::string> Reader::strings(const std::string& name) {
  const Handle data = dataset(name);
  const Handle type(H5Dget_type(data.get()), H5Tclose);
  const Handle space(H5Dget_space(data.get()), H5Sclose);
  const std::vector<hsize_t> shape = extents(data);
  if (H5Tget_class(type.get()) != H5T_STRING || shape.size() != 1)
    refuse("{} is not one row of strings", name);
  hsize_t bytes = 0;
  const bool variable = H5Tis_variable_str(type.get()) > 0;
  const bool too_long =
      variable
          ? texts_ == nullptr && (H5Dvlen_get_buf_size(data.get(), type.get(), space.get(), &bytes) < 0 ||
                                  bytes > 2 * file_bytes_)
          : H5Tget_size(type.get()) > kMaxString;
  if (too_long) refuse("{} has impossibly long strings", name);
  return read_strings(name, type, space, shape[0], [&](hid_t memory, void* out) {
    return H5Dread(data.get(), memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, out) >= 0;
  });
}

Handle Reader::attribute(const char* name) const {
  report_.begin(fmt::format("attribute {}", name));
  const htri_t there = H5Aexists(file_.get(), name);
  if (there == 0) return {};
  Handle attribute(there < 0 ? -1 : H5Aopen(file_.get(), name, H5P_DEFAULT), H5Aclose);
  if (!attribute || H5Aget_storage_size(attribute.get()) > kMaxAttribute)
    refuse("attribute {} cannot be read", name);
  return attribute;
}

std::optional<std::string> Reader::text_attribute(const char* name) const {
  const Handle data = attribute(name);
  if (!data) return std::nullopt;
  const Handle type(H5Aget_type(data.get()), H5Tclose);
  const Handle space(H5Aget_space(data.get()), H5Sclose);
  if (H5Tget_class(type.get()) != H5T_STRING || H5Sget_simple_extent_npoints(space.get()) != 1)
    refuse("attribute {} is not a string", name);
  return read_strings(fmt::format("attribute {}", name), type, space, 1,
                      [&](hid_t memory, void* out) { return H5Aread(data.get(), memory, out) >= 0; })[0];
}

template <typename T>
std::optional<T> Reader::integer_attribute(const char* name) const {
  const Handle data = attribute(name);
  if (!data) return std::nullopt;
  const Handle type(H5Aget_type(data.get()), H5Tclose);
  const Handle space(H5Aget_space(data.get()), H5Sclose);
  const auto read = [&](auto value) {
    if (H5Sget_simple_extent_npoints(space.get()) != 1 ||
        H5Aread(data.get(), native_type<decltype(value)>(), &value) < 0)
      refuse("attribute {} is not an integer", name);
    if (!std::in_range<T>(value)) refuse("attribute {} is {}; {} is expected", name, value, bounds<T>());
    return static_cast<T>(value);
  };
  if (!is_integer(type)) refuse("attribute {} is not an integer", name);
  return H5Tget_sign(type.get()) == H5T_SGN_NONE ? read(std::uint64_t{0}) : read(std::int64_t{0});
}

template std::optional<std::int64_t> Reader::integer_attribute(const char*) const;
template std::optional<std::uint64_t> Reader::integer_attribute(const char*) const;

std::vector<double> Reader::real_attribute(const char* name) const {
  const Handle data = attribute(name);
  if (!data) return {};
  const Handle type(H5Aget_type(data.get()), H5Tclose);
  const Handle space(H5Aget_space(data.get()), H5Sclose);
  const hssize_t count = H5Sget_simple_extent_npoints(space.get());
  std::vector<double> values(static_cast<std::size_t>(std::max<hssize_t>(count, 0)));
  if (H5Tget_class(type.get()) != H5T_FLOAT || H5Aread(data.get(), H5T_NATIVE_DOUBLE, values.data()) < 0)
    refuse("attribute {} is not a list of numbers", name);
  return values;
}

}  // namespace voca::data::hdf5
