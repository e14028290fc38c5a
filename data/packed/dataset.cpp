#include "data/packed/dataset.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <set>
#include <unordered_set>
#include <utility>

#include "data/packed/hdf5_reader.h"
#include "data/packed/packed_format.h"
#include "data/tree/convert.h"
#include "data/tree/parallel.h"
#include "engine/base/digest.h"
#include "engine/base/path_status.h"
#include "engine/base/unique_fd.h"

namespace voca::data {

using engine::DataError;
using engine::DType;
using engine::IoError;
using hdf5::Handle;

std::string hdf5_version() {
  const hdf5::Session session;
  unsigned major = 0;
  unsigned minor = 0;
  unsigned release = 0;
  H5get_libversion(&major, &minor, &release);
  return fmt::format("{}.{}.{}", major, minor, release);
}

struct Dataset::File {
  ~File() {
    const hdf5::Session session;
    for (Handle& dataset : frames) dataset.reset();
    reader.reset();
  }

  engine::UniqueFd descriptor;
  std::uint64_t bytes = 0;
  PerStream<std::uint64_t> offsets{};  ///< of the first frames in the file
  TextsOfObjects texts;                ///< for the reader
  // Declared before the frames so that it is closed after them; kept open only if rows are read through it.
  std::optional<hdf5::Reader> reader;
  PerStream<Handle> frames;  ///< datasets to read rows through; none: read from the file directly
};

void Dataset::open_file() {
  file_->descriptor.reset(
      engine::uninterrupted([&] { return ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); }));
  struct stat status {};
  if (!file_->descriptor || ::fstat(file_->descriptor.get(), &status) != 0)
    throw IoError("{}: cannot open: {}", path_.string(), std::strerror(errno));
  if (!S_ISREG(status.st_mode)) bad("is not a regular file");
  file_->bytes = static_cast<std::uint64_t>(status.st_size);
}

template <typename Texts>
void Dataset::read_all_but_frames(const Texts& texts) {
  const hdf5::Session session;
  hdf5::require_memory();
  file_->reader.emplace(path_.string(), file_->descriptor.get(), file_->bytes, texts);
  load_header();
  load_index();
  for (const Stream stream : kStreams) open_frames(stream);
  if (!file_->frames[0] && !file_->frames[1]) file_->reader.reset();
}

Dataset::Dataset(std::filesystem::path path) : path_(std::move(path)), file_(std::make_unique<File>()) {
  open_file();
  file_->texts = run_trial(path_.string(), file_->bytes,
                           [&](const TrialReport& report) { read_all_but_frames(report); });
  read_all_but_frames(file_->texts);
  check_index();
  const std::string computed = data::content_hash(index_);
  summary_.content_known = !summary_.content_hash.empty();
  if (!summary_.content_known) summary_.content_hash = computed;
  if (summary_.content_hash != computed) {
    bad("its content hash is {}, {} was written: labels, ids, offsets or splits are damaged", computed,
        summary_.content_hash);
  }
  summary_.direct = !file_->reader;
  summarise();
}

Dataset::~Dataset() = default;

void Dataset::load_header() {
  const hdf5::Reader& reader = *file_->reader;
  const std::optional<std::string> format = reader.text_attribute("format");
  if (format != kFormatName) {
    bad("is not a packed dataset: attribute format is {}, {} is expected; voca-engine pack writes one",
        format ? "'" + *format + "'" : "missing", kFormatName);
  }
  const std::optional<std::int64_t> version = reader.integer_attribute<std::int64_t>("version");
  if (version != kFormatVersion) {
    bad("is of format version {}; this program reads version {}", version ? std::to_string(*version) : "none",
        kFormatVersion);
  }
  const std::optional<std::string> dtype = reader.text_attribute("dtype");
  if (dtype == engine::name_of(DType::kF16)) {
    index_.dtype = DType::kF16;
  } else if (dtype != engine::name_of(DType::kF32)) {
    bad("attribute dtype is {}; float16 or float32 is expected", dtype ? "'" + *dtype + "'" : "missing");
  }
  summary_.split_seed = reader.integer_attribute<std::uint64_t>("split_seed").value_or(0);
  summary_.split_ratios = reader.real_attribute("split_ratios");
  summary_.group_by = reader.text_attribute("group_by").value_or("");
  summary_.source = reader.text_attribute("source").value_or("");
  summary_.created_by = reader.text_attribute("created_by").value_or("");
  summary_.content_hash = reader.text_attribute("content_hash").value_or("");
  for (const Stream stream : kStreams) {
    const std::string attribute = std::string(name_of(stream)) + "_dim";
    const std::optional<std::int64_t> dim = reader.integer_attribute<std::int64_t>(attribute.c_str());
    if (!dim || *dim < 1 || *dim > std::numeric_limits<std::int32_t>::max())
      bad("attribute {} is {}; a width is expected", attribute, dim ? std::to_string(*dim) : "missing");
    index_.dims[stream] = *dim;
  }
}

void Dataset::load_index() {
  hdf5::Reader& reader = *file_->reader;
  index_.ids = reader.strings("/ids");
  const std::int64_t n = size();
  if (n < 1) bad("holds no sample");
  const auto id_of = [&](std::size_t i) { return i < index_.ids.size() ? index_.ids[i] : "the end"; };
  index_.offsets[0] = reader.integers<std::int64_t>("/visual/offsets", n + 1, id_of);
  index_.offsets[1] = reader.integers<std::int64_t>("/audio/offsets", n + 1, id_of);
  index_.labels = reader.integers<std::uint8_t>("/labels", n, id_of);
  index_.splits = reader.integers<std::uint8_t>("/split", n, id_of);
  // Files written by other programs may lack these datasets.
  if (reader.has("/groups")) {
    index_.groups = reader.integers<std::int32_t>("/groups", n, id_of);
  } else {
    index_.groups.assign(static_cast<std::size_t>(n), -1);
  }
  if (reader.has("/checksums")) index_.checksums = reader.integers<std::uint32_t>("/checksums", n, id_of);
  if (reader.has("/frame_labels")) {
    index_.frame_labels = reader.integers<std::uint8_t>("/frame_labels", -1,
                                                        [&](std::size_t i) { return id_of(sample_at(i)); });
  }
}

std::size_t Dataset::sample_at(std::size_t frame) const {
  const auto& offsets = index_.offsets[0];
  const auto next = std::ranges::find_if(
      offsets, [&](std::int64_t offset) { return offset > static_cast<std::int64_t>(frame); });
  return static_cast<std::size_t>(std::max<std::ptrdiff_t>(next - offsets.begin() - 1, 0));
}

void Dataset::open_frames(Stream stream) {
  hdf5::Reader& reader = *file_->reader;
  const std::string object = fmt::format("/{}/frames", name_of(stream));
  Handle dataset = reader.dataset(object);
  const std::vector<hsize_t> extents = reader.extents(dataset);
  const Handle type(H5Dget_type(dataset.get()), H5Tclose);
  if (H5Tequal(type.get(), hdf5::frame_type(index_.dtype).get()) <= 0)
    bad("{} is not of little-endian {}, as attribute dtype says", object, engine::name_of(index_.dtype));
  if (extents.size() != 2 || extents[1] != static_cast<hsize_t>(dim(stream)))
    bad("{} is not of rows {} wide, as attribute {}_dim says", object, dim(stream), name_of(stream));
  if (extents[0] > static_cast<hsize_t>(std::numeric_limits<std::int64_t>::max()) / row_bytes(stream))
    bad("{} is impossibly large", object);
  summary_.frames[stream] = static_cast<std::int64_t>(extents[0]);
  const Handle plist(H5Dget_create_plist(dataset.get()), H5Pclose);
  const haddr_t at = H5Dget_offset(dataset.get());
  if (H5Pget_layout(plist.get()) != H5D_CONTIGUOUS || at == HADDR_UNDEF) {
    file_->frames[stream] = std::move(dataset);
    return;
  }
  const std::uint64_t bytes = extents[0] * row_bytes(stream);
  if (at > file_->bytes || bytes > file_->bytes - at)
    bad("is truncated: {} needs bytes {} to {}, the file has {}", object, at, at + bytes, file_->bytes);
  file_->offsets[stream] = at;
}

void Dataset::check_offsets(Stream stream) const {
  const std::vector<std::int64_t>& offsets = index_.offsets[stream];
  if (offsets.front() != 0 || offsets.back() != summary_.frames[stream]) {
    bad("/{}/offsets run from {} to {}; 0 to {} is expected", name_of(stream), offsets.front(),
        offsets.back(), summary_.frames[stream]);
  }
  for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
    if (offsets[i + 1] <= offsets[i])
      bad("/{}/offsets: sample {} ({}) has no frames", name_of(stream), i, index_.ids[i]);
  }
}

void Dataset::check_index() const {
  for (const Stream stream : kStreams) check_offsets(stream);
  std::unordered_set<std::string_view> seen;
  for (std::size_t i = 0; i < index_.ids.size(); ++i) {
    if (index_.ids[i].empty() || !seen.insert(index_.ids[i]).second)
      bad("/ids: entry {} is {}", i, index_.ids[i].empty() ? "empty" : "there twice: " + index_.ids[i]);
    if (index_.splits[i] >= kSplits)
      bad("/split: entry {} ({}) is {}; 0 train, 1 val, 2 test", i, index_.ids[i], index_.splits[i]);
    if (index_.groups[i] < -1)
      bad("/groups: entry {} ({}) is {}; −1 or more is expected", i, index_.ids[i], index_.groups[i]);
  }
  if (index_.frame_labels.empty()) return;
  if (static_cast<std::int64_t>(index_.frame_labels.size()) != summary_.frames[0]) {
    bad("/frame_labels has {} entries, there are {} visual frames", index_.frame_labels.size(),
        summary_.frames[0]);
  }
  if (std::ranges::any_of(index_.frame_labels, [](auto value) { return value > 1; }))
    bad("/frame_labels holds values other than 0 and 1");
}

void Dataset::summarise() {
  summary_.samples = size();
  summary_.dtype = index_.dtype;
  summary_.dims = index_.dims;
  summary_.frame_labels = !index_.frame_labels.empty();
  summary_.checksums = !index_.checksums.empty();
  summary_.file_bytes = static_cast<std::int64_t>(file_->bytes);
  summary_.split_hash = data::split_hash(index_.ids, index_.splits);
  summary_.classes = 2;
  for (const std::uint8_t label : index_.labels) {
    if (label != kUnknownLabel) summary_.classes = std::max<std::int64_t>(summary_.classes, label + 1);
  }
  for (auto& counts : summary_.counts) counts.assign(static_cast<std::size_t>(summary_.classes) + 1, 0);
  std::set<std::int32_t> groups;
  summary_.frames_min = std::numeric_limits<std::int64_t>::max();
  for (std::size_t i = 0; i < index_.ids.size(); ++i) {
    const std::size_t column =
        index_.labels[i] == kUnknownLabel ? static_cast<std::size_t>(summary_.classes) : index_.labels[i];
    ++summary_.counts[index_.splits[i]][column];
    if (index_.groups[i] >= 0) groups.insert(index_.groups[i]);
    const std::int64_t frames_of_both = std::min(index_.offsets[0][i + 1] - index_.offsets[0][i],
                                                 index_.offsets[1][i + 1] - index_.offsets[1][i]);
    summary_.frames_min = std::min(summary_.frames_min, frames_of_both);
    summary_.frames_max = std::max(summary_.frames_max, frames_of_both);
  }
  summary_.groups = static_cast<std::int64_t>(groups.size());
}

void Dataset::read_through_library(Stream stream, std::int64_t row, std::int64_t count,
                                   std::byte* out) const {
  const hdf5::Session session;
  const Handle& dataset = file_->frames[stream];
  const Handle space(H5Dget_space(dataset.get()), H5Sclose);
  const std::array<hsize_t, 2> start{static_cast<hsize_t>(row), 0};
  const std::array<hsize_t, 2> extent{static_cast<hsize_t>(count), static_cast<hsize_t>(dim(stream))};
  const Handle memory(H5Screate_simple(2, extent.data(), nullptr), H5Sclose);
  H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, start.data(), nullptr, extent.data(), nullptr);
  if (H5Dread(dataset.get(), hdf5::frame_type(dtype()).get(), memory.get(), space.get(), H5P_DEFAULT, out) <
      0) {
    file_->reader->refuse("rows {} to {} of /{}/frames cannot be read: {}", row, row + count, name_of(stream),
                          hdf5::last_error());
  }
}

int Dataset::label(std::int64_t sample) const {
  const int label = index_.labels.at(entry(sample));
  return label == kUnknownLabel ? -1 : label;
}

std::int64_t Dataset::frames(Stream stream, std::int64_t sample) const {
  const std::vector<std::int64_t>& offsets = index_.offsets[stream];
  return offsets.at(entry(sample) + 1) - offsets[entry(sample)];
}

std::int64_t Dataset::frames(std::int64_t sample) const {
  return std::min(frames(Stream::kVisual, sample), frames(Stream::kAudio, sample));
}

std::span<const std::uint8_t> Dataset::frame_labels(std::int64_t sample) const {
  if (index_.frame_labels.empty()) return {};
  return std::span(index_.frame_labels)
      .subspan(static_cast<std::size_t>(index_.offsets[0][entry(sample)]),
               static_cast<std::size_t>(frames(Stream::kVisual, sample)));
}

std::vector<std::int64_t> Dataset::samples_of(Split split) const {
  std::vector<std::int64_t> samples;
  for (std::int64_t i = 0; i < size(); ++i) {
    if (this->split(i) == split) samples.push_back(i);
  }
  return samples;
}

void Dataset::read_raw(Stream stream, std::int64_t sample, std::int64_t first, std::int64_t count,
                       std::byte* out) const {
  VOCA_CHECK(sample >= 0 && sample < size() && first >= 0 && count >= 0 &&
             first + count <= frames(stream, sample));
  if (count == 0) return;
  const std::int64_t row = index_.offsets[stream][entry(sample)] + first;
  if (file_->frames[stream]) return read_through_library(stream, row, count, out);
  std::uint64_t at = file_->offsets[stream] + static_cast<std::uint64_t>(row) * row_bytes(stream);
  for (std::size_t left = static_cast<std::size_t>(count) * row_bytes(stream); left > 0;) {
    const ssize_t got = engine::uninterrupted(
        [&] { return ::pread(file_->descriptor.get(), out, left, static_cast<off_t>(at)); });
    if (got < 0) throw IoError("{}: cannot read at byte {}: {}", path_.string(), at, std::strerror(errno));
    if (got == 0) bad("ends at byte {}; it was longer when it was opened", at);
    at += static_cast<std::uint64_t>(got);
    out += got;
    left -= static_cast<std::size_t>(got);
  }
}

void Dataset::read_rows(Stream stream, std::int64_t sample, std::int64_t first, std::int64_t count,
                        DType dtype, void* out) const {
  // Reads into the tail of the output and widens from there towards its front, which needs no second buffer.
  const auto elements = static_cast<std::size_t>(count * dim(stream));
  auto* const tail =
      static_cast<std::byte*>(out) + elements * (engine::size_of(dtype) - engine::size_of(index_.dtype));
  read_raw(stream, sample, first, count, tail);
  widen(index_.dtype, tail, count * dim(stream), dtype, out);
}

bool Dataset::verify(std::int64_t sample, std::span<std::byte> scratch) const {
  FrameCheck check(*this, sample);
  try {
    for (const Stream stream : kStreams) {
      const std::int64_t rows = frames(stream, sample);
      const auto at_once = static_cast<std::int64_t>(scratch.size() / row_bytes(stream));
      VOCA_CHECK(at_once > 0);
      for (std::int64_t first = 0; first < rows; first += at_once) {
        const std::int64_t count = std::min(at_once, rows - first);
        read_raw(stream, sample, first, count, scratch.data());
        check.add(scratch.first(static_cast<std::size_t>(count) * row_bytes(stream)));
      }
    }
  } catch (const DataError&) {
    return false;  // a filter of a chunked file detected the damage first
  }
  return check.good();
}

std::vector<std::int64_t> Dataset::verify_all(int num_workers) const {
  std::vector<std::uint8_t> good(static_cast<std::size_t>(size()), 0);
  constexpr std::size_t kMinScratch = std::size_t{1} << 20;
  const std::size_t scratch_bytes =
      std::max({kMinScratch, row_bytes(Stream::kVisual), row_bytes(Stream::kAudio)});
  for_each_index(size(), num_workers, [&](std::int64_t i) {
    thread_local std::vector<std::byte> scratch;
    if (scratch.size() < scratch_bytes) scratch.resize(scratch_bytes);
    good[static_cast<std::size_t>(i)] = verify(i, scratch) ? 1 : 0;
  });
  std::vector<std::int64_t> bad;
  for (std::int64_t i = 0; i < size(); ++i) {
    if (good[static_cast<std::size_t>(i)] == 0) bad.push_back(i);
  }
  return bad;
}

void FrameCheck::add(std::span<const std::byte> rows) {
  if (dataset_.has_checksums()) {
    crc_ = engine::crc32c(rows, crc_);
    return;
  }
  const auto count = static_cast<std::int64_t>(rows.size() / engine::size_of(dataset_.dtype()));
  finite_ = finite_ && first_not_finite(dataset_.dtype(), rows.data(), count) < 0;
}

bool FrameCheck::good() const {
  return dataset_.has_checksums() ? crc_ == dataset_.checksum(sample_) : finite_;
}

}  // namespace voca::data
