#include "data/packed/packed_format.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <new>

#include "engine/base/digest.h"
#include "engine/base/error.h"
#include "engine/base/path_status.h"

namespace voca::data {
namespace {

using hdf5::Handle;

static_assert(std::endian::native == std::endian::little, "packed files are hashed as little-endian");

/// Creation property list without timestamps, so that equal content gives equal bytes.
Handle timeless(hid_t kind) {
  Handle plist(H5Pcreate(kind), H5Pclose);
  H5Pset_obj_track_times(plist.get(), false);
  return plist;
}

Handle one_row(std::size_t count) {
  const hsize_t extent = count;
  return {H5Screate_simple(1, &extent, nullptr), H5Sclose};
}

/// Fixed-length UTF-8 type, padded with NULs; unlike variable-length strings, the data are stored in the
/// dataset itself.
Handle string_type(std::size_t length) {
  Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type.get(), std::max<std::size_t>(length, 1));
  H5Tset_strpad(type.get(), H5T_STR_NULLPAD);
  H5Tset_cset(type.get(), H5T_CSET_UTF8);
  return type;
}

}  // namespace

std::string content_hash(const PackedIndex& index) {
  engine::Sha256 digest;
  const auto add = [&](const auto& values) { digest.update(std::as_bytes(std::span(values))); };
  digest.update(fmt::format("{} {}\n{} {} {} {} {}\n", kFormatName, kFormatVersion,
                            engine::name_of(index.dtype), index.dims[0], index.dims[1], index.ids.size(),
                            index.frame_labels.size()));
  add(index.offsets[0]);
  add(index.offsets[1]);
  add(index.labels);
  for (const std::string& id : index.ids) digest.update(id + '\n');
  add(index.splits);
  add(index.groups);
  add(index.checksums);
  add(index.frame_labels);
  return digest.finish();
}

PackedFileWriter::PackedFileWriter(const std::filesystem::path& out, engine::DType dtype,
                                   const PerStream<std::int64_t>& rows, const PerStream<std::int64_t>& dims)
    : file_(out),
      name_(out.string()),
      descriptor_(
          engine::uninterrupted([&] { return ::open(file_.temporary_path().c_str(), O_RDWR | O_CLOEXEC); })),
      access_(descriptor_.get()) {
  if (!descriptor_) fail_with(errno, "create");
  const hdf5::Session session;
  try {
    lay_out(dtype, rows, dims);
  } catch (...) {
    hdf5_.reset();  // while the session is active
    throw;
  }
}

void PackedFileWriter::lay_out(engine::DType dtype, const PerStream<std::int64_t>& rows,
                               const PerStream<std::int64_t>& dims) {
  hdf5::require_memory();
  const Handle access = access_.properties();
  H5Pset_libver_bounds(access.get(), H5F_LIBVER_LATEST, H5F_LIBVER_LATEST);
  H5Pset_alignment(access.get(), 1, kAlignment);
  hdf5_ = Handle(
      H5Fcreate(file_.temporary_path().c_str(), H5F_ACC_TRUNC, timeless(H5P_FILE_CREATE).get(), access.get()),
      H5Fclose);
  if (!hdf5_) fail("create");
  const Handle type = hdf5::frame_type(dtype);
  const Handle plist = timeless(H5P_DATASET_CREATE);
  H5Pset_layout(plist.get(), H5D_CONTIGUOUS);
  H5Pset_alloc_time(plist.get(), H5D_ALLOC_TIME_EARLY);
  H5Pset_fill_time(plist.get(), H5D_FILL_TIME_NEVER);
  for (const Stream stream : kStreams) {
    row_bytes_[stream] = static_cast<std::size_t>(dims[stream]) * engine::size_of(dtype);
    const Handle group(H5Gcreate2(hdf5_.get(), fmt::format("/{}", name_of(stream)).c_str(), H5P_DEFAULT,
                                  timeless(H5P_GROUP_CREATE).get(), H5P_DEFAULT),
                       H5Gclose);
    const std::array<hsize_t, 2> extents{static_cast<hsize_t>(rows[stream]),
                                         static_cast<hsize_t>(dims[stream])};
    const Handle space(H5Screate_simple(2, extents.data(), nullptr), H5Sclose);
    const Handle frames(
        H5Dcreate2(group.get(), "frames", type.get(), space.get(), H5P_DEFAULT, plist.get(), H5P_DEFAULT),
        H5Dclose);
    const haddr_t at = frames ? H5Dget_offset(frames.get()) : HADDR_UNDEF;
    if (at == HADDR_UNDEF) fail("lay out the frames in");
    frames_at_[stream] = at;
  }
  if (H5Fflush(hdf5_.get(), H5F_SCOPE_GLOBAL) < 0) fail("write");
  check_written();
  // Allocates disk space if the file system supports it, so that a full disk is detected before the work.
  const off_t end = std::max(at(Stream::kVisual, rows[0]), at(Stream::kAudio, rows[1]));
  if (end > 0 && ::fallocate(descriptor_.get(), 0, 0, end) != 0 &&
      (errno == ENOSPC || errno == EFBIG || errno == EDQUOT))
    fail_with(errno, "get room for the packed frames");
}

PackedFileWriter::~PackedFileWriter() {
  const hdf5::Session session;
  hdf5_.reset();
}

off_t PackedFileWriter::at(Stream stream, std::int64_t row) const {
  return static_cast<off_t>(frames_at_[stream] + static_cast<std::uint64_t>(row) * row_bytes_[stream]);
}

void PackedFileWriter::write(Stream stream, std::int64_t row, std::span<const std::byte> bytes) {
  const off_t first = at(stream, row);
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t count = engine::uninterrupted([&] {
      return ::pwrite(descriptor_.get(), &bytes[done], bytes.size() - done, first + static_cast<off_t>(done));
    });
    if (count < 0) fail_with(errno, "write");
    done += static_cast<std::size_t>(count);
  }
  // Starts writeback now, in parallel with the remaining videos, instead of at the final sync. Only a hint:
  // the sync reports write errors.
  static_cast<void>(
      ::sync_file_range(descriptor_.get(), first, static_cast<off_t>(bytes.size()), SYNC_FILE_RANGE_WRITE));
}

void PackedFileWriter::read(Stream stream, std::int64_t row, std::span<std::byte> bytes) const {
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t count = engine::uninterrupted([&] {
      return ::pread(descriptor_.get(), &bytes[done], bytes.size() - done,
                     at(stream, row) + static_cast<off_t>(done));
    });
    if (count <= 0) fail_with(errno, "read back");
    done += static_cast<std::size_t>(count);
  }
}

void PackedFileWriter::check_written() const {
  if (access_.error() != 0) fail_with(access_.error(), "write");
}

void PackedFileWriter::fail(const char* what) const {
  check_written();
  if (hdf5::lacked_memory()) throw std::bad_alloc();
  throw engine::IoError("{}: cannot {}: {}", name_, what, hdf5::last_error());
}

void PackedFileWriter::fail_with(int error_number, const char* what) const {
  throw engine::IoError("{}: cannot {}: {}", name_, what, std::strerror(error_number));
}

void PackedFileWriter::write_vector(const char* name, hid_t file_type, hid_t memory_type, std::size_t count,
                                    const void* data) {
  const Handle space = one_row(count);
  const Handle plist = timeless(H5P_DATASET_CREATE);
  H5Pset_layout(plist.get(), H5D_CONTIGUOUS);
  const Handle dataset(
      H5Dcreate2(hdf5_.get(), name, file_type, space.get(), H5P_DEFAULT, plist.get(), H5P_DEFAULT), H5Dclose);
  if (!dataset || H5Dwrite(dataset.get(), memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0)
    fail("write");
}

void PackedFileWriter::write_strings(const char* name, const std::vector<std::string>& strings) {
  std::size_t longest = 1;
  for (const std::string& text : strings) longest = std::max(longest, text.size());
  std::vector<char> bytes(longest * strings.size(), '\0');
  for (std::size_t i = 0; i < strings.size(); ++i)
    std::ranges::copy(strings[i], bytes.begin() + static_cast<std::ptrdiff_t>(i * longest));
  const Handle type = string_type(longest);
  write_vector(name, type.get(), type.get(), strings.size(), bytes.data());
}

void PackedFileWriter::write_attribute(const char* name, hid_t file_type, hid_t memory_type,
                                       std::size_t count, const void* data) {
  const Handle space = count == 1 ? Handle(H5Screate(H5S_SCALAR), H5Sclose) : one_row(count);
  const Handle attribute(H5Acreate2(hdf5_.get(), name, file_type, space.get(), H5P_DEFAULT, H5P_DEFAULT),
                         H5Aclose);
  if (!attribute || H5Awrite(attribute.get(), memory_type, data) < 0) fail("write");
}

void PackedFileWriter::write_attribute(const char* name, const std::string& text) {
  const Handle type = string_type(text.size());
  write_attribute(name, type.get(), type.get(), 1, text.c_str());
}

void PackedFileWriter::finish(const PackedIndex& index, const PackedAttributes& attributes) {
  const hdf5::Session session;
  hdf5::require_memory();
  const std::size_t n = index.ids.size();
  write_vector("/visual/offsets", H5T_STD_I64LE, H5T_NATIVE_INT64, n + 1, index.offsets[0].data());
  write_vector("/audio/offsets", H5T_STD_I64LE, H5T_NATIVE_INT64, n + 1, index.offsets[1].data());
  write_vector("/labels", H5T_STD_U8LE, H5T_NATIVE_UINT8, n, index.labels.data());
  write_strings("/ids", index.ids);
  write_vector("/split", H5T_STD_U8LE, H5T_NATIVE_UINT8, n, index.splits.data());
  write_vector("/groups", H5T_STD_I32LE, H5T_NATIVE_INT32, n, index.groups.data());
  write_vector("/checksums", H5T_STD_U32LE, H5T_NATIVE_UINT32, n, index.checksums.data());
  if (!index.frame_labels.empty()) {
    write_vector("/frame_labels", H5T_STD_U8LE, H5T_NATIVE_UINT8, index.frame_labels.size(),
                 index.frame_labels.data());
  }
  write_attribute("format", kFormatName);
  write_attribute("version", H5T_STD_I64LE, H5T_NATIVE_INT64, 1, &kFormatVersion);
  write_attribute("visual_dim", H5T_STD_I64LE, H5T_NATIVE_INT64, 1, &index.dims[0]);
  write_attribute("audio_dim", H5T_STD_I64LE, H5T_NATIVE_INT64, 1, &index.dims[1]);
  write_attribute("dtype", std::string(engine::name_of(index.dtype)));
  write_attribute("split_seed", H5T_STD_U64LE, H5T_NATIVE_UINT64, 1, &attributes.split_seed);
  write_attribute("split_ratios", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, kSplits, attributes.split_ratios.data());
  write_attribute("group_by", attributes.group_by);
  write_attribute("source", attributes.source);
  write_attribute("created_by", attributes.created_by);
  write_attribute("content_hash", attributes.content_hash);
  if (H5Fflush(hdf5_.get(), H5F_SCOPE_GLOBAL) < 0 || !hdf5_.close()) fail("write");
  check_written();
}

}  // namespace voca::data
