#include "data/hdf5.h"

#include <algorithm>
#include <array>
#include <type_traits>

#include "engine/checkpoint/value.h"
#include "engine/error.h"
#include "engine/file_kind.h"
#include "engine/text.h"

namespace voca::data::hdf5 {
namespace {

using engine::DataError;

constexpr std::size_t kMaxAttribute = std::size_t{64} << 10;
constexpr std::size_t kMaxString = 4096;
/// What deflate can make of a byte at most; filters beyond that are not believed.
constexpr std::uint64_t kMaxExpansion = 1032;
constexpr std::size_t kMaxFilterName = 256;

/// Filters that h5py, hdf5plugin and PyTables write, of the HDF Group's register.
struct KnownFilter {
  H5Z_filter_t id;
  const char* name;
};
constexpr std::array<KnownFilter, 11> kKnownFilters{{{305, "LZO"},
                                                     {307, "bzip2"},
                                                     {4, "szip"},
                                                     {32000, "LZF"},
                                                     {32001, "Blosc"},
                                                     {32004, "LZ4"},
                                                     {32008, "bitshuffle"},
                                                     {32013, "ZFP"},
                                                     {32015, "Zstandard"},
                                                     {32017, "SZ"},
                                                     {32026, "Blosc2"}}};

/// The registered name, or what the file calls it.
std::string filter_name(H5Z_filter_t id, const char* stored) {
  for (const KnownFilter& known : kKnownFilters)
    if (known.id == id) return known.name;
  return *stored != '\0' ? engine::printable(stored) : "without a name";
}

template <typename T>
hid_t native_type() {
  if constexpr (std::is_same_v<T, std::int64_t>) return H5T_NATIVE_INT64;
  if constexpr (std::is_same_v<T, std::int32_t>) return H5T_NATIVE_INT32;
  if constexpr (std::is_same_v<T, std::uint32_t>) return H5T_NATIVE_UINT32;
  if constexpr (std::is_same_v<T, std::uint8_t>) return H5T_NATIVE_UINT8;
}

/// Reads the strings of a dataset or attribute through `read(memory type, buffer)`.
template <typename Read>
std::vector<std::string> read_strings(const Handle& type, const Handle& space, std::size_t count, Read read) {
  std::vector<std::string> result(count);
  if (H5Tis_variable_str(type.get()) > 0) {
    Handle memory(H5Tcopy(H5T_C_S1), H5Tclose);
    H5Tset_size(memory.get(), H5T_VARIABLE);
    H5Tset_cset(memory.get(), H5Tget_cset(type.get()));
    std::vector<char*> pointers(count, nullptr);
    if (!read(memory.get(), pointers.data())) return {};
    for (std::size_t i = 0; i < count; ++i) {
      if (pointers[i] != nullptr) result[i] = pointers[i];
    }
    H5Dvlen_reclaim(memory.get(), space.get(), H5P_DEFAULT, pointers.data());
    return result;
  }
  const std::size_t size = H5Tget_size(type.get());
  std::vector<char> bytes(size * count);
  if (!read(type.get(), bytes.data())) return {};
  for (std::size_t i = 0; i < count; ++i) {
    const auto first = bytes.begin() + static_cast<std::ptrdiff_t>(i * size);
    result[i].assign(first, std::find(first, first + static_cast<std::ptrdiff_t>(size), '\0'));
  }
  return result;
}

herr_t keep_innermost(unsigned, const H5E_error2_t* error, void* text) {
  if (error->desc != nullptr) *static_cast<std::string*>(text) = error->desc;
  return 0;
}

}  // namespace

std::mutex& hdf5_mutex() {
  static std::mutex mutex;
  return mutex;
}

Quiet::Quiet() {
  H5Eget_auto2(H5E_DEFAULT, &function_, &data_);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

Quiet::~Quiet() {
  H5Eset_auto2(H5E_DEFAULT, function_, data_);
}

std::string last_error() {
  std::string text = "no reason given";
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, keep_innermost, &text);
  return text;
}

Handle frame_type(engine::DType dtype) {
  Handle type(H5Tcopy(H5T_IEEE_F32LE), H5Tclose);
  if (dtype == engine::DType::kF16) {
    // Sign at bit 15, five exponent bits from 10, ten of mantissa: IEEE 754 binary16, as h5py writes it.
    H5Tset_fields(type.get(), 15, 10, 5, 0, 10);
    H5Tset_size(type.get(), 2);
    H5Tset_ebias(type.get(), 15);
  }
  return type;
}

Reader::Reader(std::string path, std::uint64_t file_bytes) : path_(std::move(path)), file_bytes_(file_bytes) {
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_file_locking(access.get(), false, true);
  file_ = Handle(H5Fopen(path_.c_str(), H5F_ACC_RDONLY, access.get()), H5Fclose);
  if (file_) return;
  const std::string reason = last_error();
  if (const std::string other = engine::mistaken_kind(path_, engine::FileKind::kHdf5); !other.empty())
    throw DataError("{}: {}", path_, other);
  if (engine::file_kind(path_) == engine::FileKind::kHdf5)
    throw DataError("{}: is a truncated or damaged HDF5 file: {}; copy it again", path_, reason);
  throw DataError("{}: is not an HDF5 file: {}", path_, reason);
}

bool Reader::has(const std::string& name) const {
  for (std::size_t slash = name.find('/', 1);; slash = name.find('/', slash + 1)) {
    if (H5Lexists(file_.get(), name.substr(0, slash).c_str(), H5P_DEFAULT) <= 0) return false;
    if (slash == std::string::npos) return true;
  }
}

void Reader::check_links(const std::string& name) const {
  for (std::size_t slash = name.find('/', 1);; slash = name.find('/', slash + 1)) {
    const std::string part = name.substr(0, slash);
    H5L_info_t info;
    if (H5Lget_info(file_.get(), part.c_str(), &info, H5P_DEFAULT) < 0)
      throw DataError("{}: has no {}; a packed dataset has", path_, part);
    if (info.type != H5L_TYPE_HARD) {
      throw DataError("{}: {} is a link to somewhere else; packed datasets hold their data themselves", path_,
                      part);
    }
    if (slash == std::string::npos) return;
  }
}

void Reader::check_filters(const Handle& plist, const std::string& name) const {
  const int count = H5Pget_nfilters(plist.get());
  for (int i = 0; i < count; ++i) {
    std::size_t values = 0;
    unsigned flags = 0;
    unsigned config = 0;
    std::array<char, kMaxFilterName> stored{};
    const H5Z_filter_t id = H5Pget_filter2(plist.get(), static_cast<unsigned>(i), &flags, &values, nullptr,
                                           stored.size() - 1, stored.data(), &config);
    if (id < 0 || H5Zfilter_avail(id) > 0) continue;
    throw DataError(
        "{}: {} is compressed with the filter {} ({}), which this HDF5 library lacks; write the dataset "
        "again "
        "without compression or with gzip (h5repack -f NONE where the filter is installed)",
        path_, name, filter_name(id, stored.data()), id);
  }
}

void Reader::check_storage(const Handle& dataset, const std::string& name) const {
  const Handle plist(H5Dget_create_plist(dataset.get()), H5Pclose);
  const H5D_layout_t layout = H5Pget_layout(plist.get());
  if (layout == H5D_VIRTUAL || H5Pget_external_count(plist.get()) != 0)
    throw DataError("{}: {} lies in other files; packed datasets hold their data themselves", path_, name);
  check_filters(plist, name);
  const Handle type(H5Dget_type(dataset.get()), H5Tclose);
  std::uint64_t bytes = H5Tget_size(type.get());
  for (const hsize_t extent : extents(dataset)) {
    if (__builtin_mul_overflow(bytes, extent, &bytes))
      throw DataError("{}: {} is impossibly large", path_, name);
  }
  const std::uint64_t stored = H5Dget_storage_size(dataset.get());
  const std::uint64_t most = H5Pget_nfilters(plist.get()) > 0 ? stored * kMaxExpansion : stored;
  if (stored > file_bytes_ || bytes > most) {
    throw DataError("{}: {} declares {} bytes, which its {} bytes in a file of {} cannot hold", path_, name,
                    bytes, stored, file_bytes_);
  }
}

Handle Reader::dataset(const std::string& name) const {
  check_links(name);
  Handle dataset(H5Dopen2(file_.get(), name.c_str(), H5P_DEFAULT), H5Dclose);
  if (!dataset) throw DataError("{}: {} cannot be opened: {}", path_, name, last_error());
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
std::vector<T> Reader::integers(const std::string& name, std::int64_t length) const {
  const Handle data = dataset(name);
  const Handle type(H5Dget_type(data.get()), H5Tclose);
  const std::vector<hsize_t> shape = extents(data);
  if (H5Tget_class(type.get()) != H5T_INTEGER || shape.size() != 1)
    throw DataError("{}: {} is not one row of whole numbers", path_, name);
  if (length >= 0 && shape[0] != static_cast<hsize_t>(length))
    throw DataError("{}: {} has {} entries; {} are expected", path_, name, shape[0], length);
  std::vector<T> result(shape[0]);
  if (H5Dread(data.get(), native_type<T>(), H5S_ALL, H5S_ALL, H5P_DEFAULT, result.data()) < 0)
    throw DataError("{}: {} cannot be read: {}", path_, name, last_error());
  return result;
}

template std::vector<std::int64_t> Reader::integers(const std::string&, std::int64_t) const;
template std::vector<std::int32_t> Reader::integers(const std::string&, std::int64_t) const;
template std::vector<std::uint32_t> Reader::integers(const std::string&, std::int64_t) const;
template std::vector<std::uint8_t> Reader::integers(const std::string&, std::int64_t) const;

std::vector<std::string> Reader::strings(const std::string& name) const {
  const Handle data = dataset(name);
  const Handle type(H5Dget_type(data.get()), H5Tclose);
  const Handle space(H5Dget_space(data.get()), H5Sclose);
  const std::vector<hsize_t> shape = extents(data);
  if (H5Tget_class(type.get()) != H5T_STRING || shape.size() != 1)
    throw DataError("{}: {} is not one row of strings", path_, name);
  hsize_t bytes = 0;
  const bool variable = H5Tis_variable_str(type.get()) > 0;
  if (variable
          ? (H5Dvlen_get_buf_size(data.get(), type.get(), space.get(), &bytes) < 0 || bytes > 2 * file_bytes_)
          : H5Tget_size(type.get()) > kMaxString)
    throw DataError("{}: {} has impossibly long strings", path_, name);
  std::vector<std::string> result = read_strings(type, space, shape[0], [&](hid_t memory, void* out) {
    return H5Dread(data.get(), memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, out) >= 0;
  });
  if (result.size() != shape[0]) throw DataError("{}: {} cannot be read: {}", path_, name, last_error());
  return result;
}

Handle Reader::attribute(const char* name) const {
  if (H5Aexists(file_.get(), name) <= 0) return {};
  Handle attribute(H5Aopen(file_.get(), name, H5P_DEFAULT), H5Aclose);
  if (!attribute || H5Aget_storage_size(attribute.get()) > kMaxAttribute)
    throw DataError("{}: attribute {} cannot be read", path_, name);
  return attribute;
}

std::optional<std::string> Reader::text_attribute(const char* name) const {
  const Handle data = attribute(name);
  if (!data) return std::nullopt;
  const Handle type(H5Aget_type(data.get()), H5Tclose);
  const Handle space(H5Aget_space(data.get()), H5Sclose);
  if (H5Tget_class(type.get()) != H5T_STRING || H5Sget_simple_extent_npoints(space.get()) != 1)
    throw DataError("{}: attribute {} is no text", path_, name);
  const std::vector<std::string> texts = read_strings(
      type, space, 1, [&](hid_t memory, void* out) { return H5Aread(data.get(), memory, out) >= 0; });
  if (texts.empty()) throw DataError("{}: attribute {} cannot be read: {}", path_, name, last_error());
  return texts[0];
}

std::optional<std::int64_t> Reader::integer_attribute(const char* name) const {
  const Handle data = attribute(name);
  if (!data) return std::nullopt;
  const Handle type(H5Aget_type(data.get()), H5Tclose);
  const Handle space(H5Aget_space(data.get()), H5Sclose);
  std::int64_t value = 0;
  if (H5Tget_class(type.get()) != H5T_INTEGER || H5Sget_simple_extent_npoints(space.get()) != 1 ||
      H5Aread(data.get(), H5T_NATIVE_INT64, &value) < 0)
    throw DataError("{}: attribute {} is no whole number", path_, name);
  return value;
}

std::vector<double> Reader::real_attribute(const char* name) const {
  const Handle data = attribute(name);
  if (!data) return {};
  const Handle type(H5Aget_type(data.get()), H5Tclose);
  const Handle space(H5Aget_space(data.get()), H5Sclose);
  const hssize_t count = H5Sget_simple_extent_npoints(space.get());
  std::vector<double> values(static_cast<std::size_t>(std::max<hssize_t>(count, 0)));
  if (H5Tget_class(type.get()) != H5T_FLOAT || H5Aread(data.get(), H5T_NATIVE_DOUBLE, values.data()) < 0)
    throw DataError("{}: attribute {} is no list of numbers", path_, name);
  return values;
}

}  // namespace voca::data::hdf5
