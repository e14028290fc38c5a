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

#include "data/packed/frame_check.h"
#include "data/packed/hdf5_reader.h"
#include "data/packed/packed_format.h"
#include "data/packed/trial_run.h"
#include "data/tree/convert.h"
#include "data/tree/parallel.h"
#include "engine/base/error.h"
#include "engine/base/path_status.h"
#include "engine/base/unique_fd.h"

namespace voca::data {
namespace {

using engine::DataError;
using engine::DType;
using engine::IoError;
using hdf5::Handle;

constexpr std::size_t kVerifyScratch = std::size_t{1} << 20;

/// Location of one stream's frames: their offset in the file, or the open dataset to read them through.
struct Frames {
  std::uint64_t offset = 0;
  Handle dataset;
};

}  // namespace

std::string hdf5_version() {
  const hdf5::Session session;
  unsigned major = 0;
  unsigned minor = 0;
  unsigned release = 0;
  H5get_libversion(&major, &minor, &release);
  return fmt::format("{}.{}.{}", major, minor, release);
}

struct Dataset::State {
  std::filesystem::path path;
  std::string name;  ///< the path, for messages
  std::uint64_t file_bytes = 0;
  PackedIndex index;
  DatasetSummary summary;
  engine::UniqueFd descriptor;
  // Declared before the frames so that it is closed after them; kept open only if rows are read through it.
  std::optional<hdf5::Reader> reader;
  std::array<Frames, 2> frames;

  ~State() {
    const hdf5::Session session;
    for (Frames& stream : frames) stream.dataset.reset();
    reader.reset();
  }

  template <typename... Args>
  [[noreturn]] void bad(fmt::format_string<Args...> format, Args&&... args) const {
    throw DataError("{}: {}", name, fmt::format(format, std::forward<Args>(args)...));
  }

  [[nodiscard]] std::int64_t size() const { return static_cast<std::int64_t>(index.ids.size()); }
  [[nodiscard]] std::size_t row_bytes(std::size_t stream) const {
    return static_cast<std::size_t>(index.dims[stream]) * engine::size_of(index.dtype);
  }

  void open_file();
  void load();
  void read_all_but_frames(const Announce& announce);
  void load_header();
  void load_index();
  void open_frames(Stream stream);
  /// Sample that a visual frame belongs to, according to the offsets.
  [[nodiscard]] std::size_t sample_at(std::size_t frame) const;
  void check_index() const;
  void check_offsets(Stream stream) const;
  void summarise();

  void read_direct(std::uint64_t at, std::span<std::byte> out) const;
  void read_through_library(std::size_t stream, std::int64_t row, std::int64_t count, std::byte* out) const;
};

void Dataset::State::open_file() {
  descriptor.reset(
      engine::uninterrupted([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); }));
  struct stat status {};
  if (descriptor.get() < 0 || ::fstat(descriptor.get(), &status) != 0)
    throw IoError("{}: cannot open: {}", name, std::strerror(errno));
  if (!S_ISREG(status.st_mode)) bad("is not a regular file");
  file_bytes = static_cast<std::uint64_t>(status.st_size);
}

void Dataset::State::read_all_but_frames(const Announce& announce) {
  const hdf5::Session session;
  hdf5::require_memory();
  reader.emplace(name, descriptor.get(), file_bytes, announce);
  load_header();
  load_index();
  for (const Stream stream : kStreams) open_frames(stream);
  if (!frames[0].dataset && !frames[1].dataset) reader.reset();
}

void Dataset::State::load() {
  open_file();
  run_trial(name, file_bytes, [&](const Announce& announce) { read_all_but_frames(announce); });
  read_all_but_frames({});
  check_index();
  const std::string computed = data::content_hash(index);
  if (summary.content_hash.empty()) summary.content_hash = computed;
  if (summary.content_hash != computed) {
    bad("its content hash is {}, {} was written: labels, ids, offsets or splits are damaged", computed,
        summary.content_hash);
  }
  summary.direct = !reader;
  summarise();
}

void Dataset::State::load_header() {
  const std::optional<std::string> format = reader->text_attribute("format");
  if (format != kFormatName) {
    bad("is not a packed dataset: attribute format is {}, {} is expected; voca-engine pack writes one",
        format ? "'" + *format + "'" : "missing", kFormatName);
  }
  const std::optional<std::int64_t> version = reader->integer_attribute<std::int64_t>("version");
  if (version != kFormatVersion) {
    bad("is of format version {}; this program reads version {}", version ? std::to_string(*version) : "none",
        kFormatVersion);
  }
  const std::optional<std::string> dtype = reader->text_attribute("dtype");
  if (dtype == engine::name_of(DType::kF16)) {
    index.dtype = DType::kF16;
  } else if (dtype != engine::name_of(DType::kF32)) {
    bad("attribute dtype is {}; float16 or float32 is expected", dtype ? "'" + *dtype + "'" : "missing");
  }
  summary.split_seed = reader->integer_attribute<std::uint64_t>("split_seed").value_or(0);
  summary.split_ratios = reader->real_attribute("split_ratios");
  summary.group_by = reader->text_attribute("group_by").value_or("");
  summary.source = reader->text_attribute("source").value_or("");
  summary.created_by = reader->text_attribute("created_by").value_or("");
  summary.content_hash = reader->text_attribute("content_hash").value_or("");
  for (const Stream stream : kStreams) {
    const std::string attribute = std::string(name_of(stream)) + "_dim";
    const std::optional<std::int64_t> dim = reader->integer_attribute<std::int64_t>(attribute.c_str());
    if (!dim || *dim < 1 || *dim > std::numeric_limits<std::int32_t>::max())
      bad("attribute {} is {}; a width is expected", attribute, dim ? std::to_string(*dim) : "missing");
    index.dims[static_cast<std::size_t>(stream)] = *dim;
  }
}

void Dataset::State::load_index() {
  index.ids = reader->strings("/ids");
  const std::int64_t n = size();
  if (n < 1) bad("holds no sample");
  const auto id_of = [&](std::size_t i) { return i < index.ids.size() ? index.ids[i] : "the end"; };
  index.offsets[0] = reader->integers<std::int64_t>("/visual/offsets", n + 1, id_of);
  index.offsets[1] = reader->integers<std::int64_t>("/audio/offsets", n + 1, id_of);
  index.labels = reader->integers<std::uint8_t>("/labels", n, id_of);
  index.splits = reader->integers<std::uint8_t>("/split", n, id_of);
  // Files written by other programs may lack these datasets.
  if (reader->has("/groups")) {
    index.groups = reader->integers<std::int32_t>("/groups", n, id_of);
  } else {
    index.groups.assign(static_cast<std::size_t>(n), -1);
  }
  if (reader->has("/checksums")) index.checksums = reader->integers<std::uint32_t>("/checksums", n, id_of);
  if (reader->has("/frame_labels")) {
    index.frame_labels = reader->integers<std::uint8_t>("/frame_labels", -1,
                                                        [&](std::size_t i) { return id_of(sample_at(i)); });
  }
}

std::size_t Dataset::State::sample_at(std::size_t frame) const {
  const auto& offsets = index.offsets[0];
  const auto next = std::find_if(offsets.begin(), offsets.end(), [&](std::int64_t offset) {
    return offset > static_cast<std::int64_t>(frame);
  });
  return static_cast<std::size_t>(std::max<std::ptrdiff_t>(next - offsets.begin() - 1, 0));
}

void Dataset::State::open_frames(Stream stream) {
  const auto s = static_cast<std::size_t>(stream);
  const std::string object = fmt::format("/{}/frames", name_of(stream));
  Handle dataset = reader->dataset(object);
  const std::vector<hsize_t> extents = reader->extents(dataset);
  const Handle type(H5Dget_type(dataset.get()), H5Tclose);
  if (H5Tequal(type.get(), hdf5::frame_type(index.dtype).get()) <= 0)
    bad("{} is not of little-endian {}, as attribute dtype says", object, engine::name_of(index.dtype));
  if (extents.size() != 2 || extents[1] != static_cast<hsize_t>(index.dims[s]))
    bad("{} is not of rows {} wide, as attribute {}_dim says", object, index.dims[s], name_of(stream));
  if (extents[0] > static_cast<hsize_t>(std::numeric_limits<std::int64_t>::max()) / row_bytes(s))
    bad("{} is impossibly large", object);
  summary.frames[s] = static_cast<std::int64_t>(extents[0]);
  const Handle plist(H5Dget_create_plist(dataset.get()), H5Pclose);
  const haddr_t at = H5Dget_offset(dataset.get());
  if (H5Pget_layout(plist.get()) != H5D_CONTIGUOUS || at == HADDR_UNDEF) {
    frames[s].dataset = std::move(dataset);
    return;
  }
  const std::uint64_t bytes = extents[0] * row_bytes(s);
  if (at > file_bytes || bytes > file_bytes - at)
    bad("is truncated: {} needs bytes {} to {}, the file has {}", object, at, at + bytes, file_bytes);
  frames[s].offset = at;
}

void Dataset::State::check_offsets(Stream stream) const {
  const auto s = static_cast<std::size_t>(stream);
  const std::vector<std::int64_t>& offsets = index.offsets[s];
  if (offsets.front() != 0 || offsets.back() != summary.frames[s]) {
    bad("/{}/offsets run from {} to {}; 0 to {} is expected", name_of(stream), offsets.front(),
        offsets.back(), summary.frames[s]);
  }
  for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
    if (offsets[i + 1] <= offsets[i])
      bad("/{}/offsets: sample {} ({}) has no frames", name_of(stream), i, index.ids[i]);
  }
}

void Dataset::State::check_index() const {
  for (const Stream stream : kStreams) check_offsets(stream);
  std::unordered_set<std::string_view> seen;
  for (std::size_t i = 0; i < index.ids.size(); ++i) {
    if (index.ids[i].empty() || !seen.insert(index.ids[i]).second)
      bad("/ids: entry {} is {}", i, index.ids[i].empty() ? "empty" : "there twice: " + index.ids[i]);
    if (index.splits[i] >= kSplits)
      bad("/split: entry {} ({}) is {}; 0 train, 1 val, 2 test", i, index.ids[i], index.splits[i]);
    if (index.groups[i] < -1)
      bad("/groups: entry {} ({}) is {}; −1 or more is expected", i, index.ids[i], index.groups[i]);
  }
  if (index.frame_labels.empty()) return;
  if (static_cast<std::int64_t>(index.frame_labels.size()) != summary.frames[0]) {
    bad("/frame_labels has {} entries, there are {} visual frames", index.frame_labels.size(),
        summary.frames[0]);
  }
  if (std::any_of(index.frame_labels.begin(), index.frame_labels.end(), [](auto value) { return value > 1; }))
    bad("/frame_labels holds values other than 0 and 1");
}

void Dataset::State::summarise() {
  summary.samples = size();
  summary.dtype = index.dtype;
  summary.dims = index.dims;
  summary.frame_labels = !index.frame_labels.empty();
  summary.checksums = !index.checksums.empty();
  summary.file_bytes = static_cast<std::int64_t>(file_bytes);
  summary.split_hash = data::split_hash(index.ids, index.splits);
  summary.classes = 2;
  for (const std::uint8_t label : index.labels) {
    if (label != kUnknownLabel) summary.classes = std::max<std::int64_t>(summary.classes, label + 1);
  }
  for (auto& counts : summary.counts) counts.assign(static_cast<std::size_t>(summary.classes) + 1, 0);
  std::set<std::int32_t> groups;
  summary.frames_min = std::numeric_limits<std::int64_t>::max();
  for (std::size_t i = 0; i < index.ids.size(); ++i) {
    const std::size_t column =
        index.labels[i] == kUnknownLabel ? static_cast<std::size_t>(summary.classes) : index.labels[i];
    ++summary.counts[index.splits[i]][column];
    if (index.groups[i] >= 0) groups.insert(index.groups[i]);
    const std::int64_t frames_of_both = std::min(index.offsets[0][i + 1] - index.offsets[0][i],
                                                 index.offsets[1][i + 1] - index.offsets[1][i]);
    summary.frames_min = std::min(summary.frames_min, frames_of_both);
    summary.frames_max = std::max(summary.frames_max, frames_of_both);
  }
  summary.groups = static_cast<std::int64_t>(groups.size());
}

void Dataset::State::read_direct(std::uint64_t at, std::span<std::byte> out) const {
  while (!out.empty()) {
    const ssize_t count = ::pread(descriptor.get(), out.data(), out.size(), static_cast<off_t>(at));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw IoError("{}: cannot read at byte {}: {}", name, at, std::strerror(errno));
    if (count == 0) bad("ends at byte {}; it was longer when it was opened", at);
    at += static_cast<std::uint64_t>(count);
    out = out.subspan(static_cast<std::size_t>(count));
  }
}

void Dataset::State::read_through_library(std::size_t stream, std::int64_t row, std::int64_t count,
                                          std::byte* out) const {
  const hdf5::Session session;
  const Handle space(H5Dget_space(frames[stream].dataset.get()), H5Sclose);
  const std::array<hsize_t, 2> start{static_cast<hsize_t>(row), 0};
  const std::array<hsize_t, 2> extent{static_cast<hsize_t>(count), static_cast<hsize_t>(index.dims[stream])};
  const Handle memory(H5Screate_simple(2, extent.data(), nullptr), H5Sclose);
  H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, start.data(), nullptr, extent.data(), nullptr);
  if (H5Dread(frames[stream].dataset.get(), hdf5::frame_type(index.dtype).get(), memory.get(), space.get(),
              H5P_DEFAULT, out) < 0) {
    reader->refuse(fmt::format("rows {} to {} of /{}/frames cannot be read: {}", row, row + count,
                               name_of(static_cast<Stream>(stream)), hdf5::last_error()));
  }
}

Dataset::Dataset(std::filesystem::path path) : state_(std::make_unique<State>()) {
  state_->path = std::move(path);
  state_->name = state_->path.string();
  state_->load();
}

Dataset::~Dataset() = default;

const std::filesystem::path& Dataset::path() const {
  return state_->path;
}
std::int64_t Dataset::size() const {
  return state_->size();
}
std::int64_t Dataset::dim(Stream stream) const {
  return state_->index.dims[static_cast<std::size_t>(stream)];
}
engine::DType Dataset::dtype() const {
  return state_->index.dtype;
}
std::size_t Dataset::row_bytes(Stream stream) const {
  return state_->row_bytes(static_cast<std::size_t>(stream));
}
int Dataset::label(std::int64_t sample) const {
  const int label = state_->index.labels.at(static_cast<std::size_t>(sample));
  return label == kUnknownLabel ? -1 : label;
}
const std::string& Dataset::id(std::int64_t sample) const {
  return state_->index.ids.at(static_cast<std::size_t>(sample));
}
Split Dataset::split(std::int64_t sample) const {
  return static_cast<Split>(state_->index.splits.at(static_cast<std::size_t>(sample)));
}
std::int32_t Dataset::group(std::int64_t sample) const {
  return state_->index.groups.at(static_cast<std::size_t>(sample));
}
std::int64_t Dataset::frames(Stream stream, std::int64_t sample) const {
  const auto& offsets = state_->index.offsets[static_cast<std::size_t>(stream)];
  const auto i = static_cast<std::size_t>(sample);
  return offsets.at(i + 1) - offsets[i];
}
std::int64_t Dataset::frames(std::int64_t sample) const {
  return std::min(frames(Stream::kVisual, sample), frames(Stream::kAudio, sample));
}
std::span<const std::uint8_t> Dataset::frame_labels(std::int64_t sample) const {
  const auto& labels = state_->index.frame_labels;
  if (labels.empty()) return {};
  return std::span(labels).subspan(
      static_cast<std::size_t>(state_->index.offsets[0][static_cast<std::size_t>(sample)]),
      static_cast<std::size_t>(frames(Stream::kVisual, sample)));
}
const std::vector<std::string>& Dataset::ids() const {
  return state_->index.ids;
}
std::vector<std::int64_t> Dataset::samples_of(Split split) const {
  std::vector<std::int64_t> samples;
  for (std::int64_t i = 0; i < size(); ++i) {
    if (this->split(i) == split) samples.push_back(i);
  }
  return samples;
}
const DatasetSummary& Dataset::summary() const {
  return state_->summary;
}
const std::string& Dataset::content_hash() const {
  return state_->summary.content_hash;
}
const std::string& Dataset::split_hash() const {
  return state_->summary.split_hash;
}

void Dataset::read_raw(Stream stream, std::int64_t sample, std::int64_t first, std::int64_t count,
                       std::byte* out) const {
  VOCA_CHECK(sample >= 0 && sample < size() && first >= 0 && count >= 0 &&
             first + count <= frames(stream, sample));
  if (count == 0) return;
  const auto s = static_cast<std::size_t>(stream);
  const std::int64_t row = state_->index.offsets[s][static_cast<std::size_t>(sample)] + first;
  if (state_->frames[s].dataset) {
    state_->read_through_library(s, row, count, out);
    return;
  }
  const std::size_t bytes = row_bytes(stream);
  state_->read_direct(state_->frames[s].offset + static_cast<std::uint64_t>(row) * bytes,
                      {out, static_cast<std::size_t>(count) * bytes});
}

template <typename T>
void Dataset::read_rows(Stream stream, std::int64_t sample, std::int64_t first, std::int64_t count,
                        T* out) const {
  // Reads into the tail of the output and widens from there towards its front, which needs no second buffer.
  const std::int64_t elements = count * dim(stream);
  const std::size_t raw = static_cast<std::size_t>(count) * row_bytes(stream);
  auto* const tail = reinterpret_cast<std::byte*>(out + elements) - raw;
  read_raw(stream, sample, first, count, tail);
  widen(dtype(), tail, elements, out);
}
template void Dataset::read_rows(Stream, std::int64_t, std::int64_t, std::int64_t, float*) const;
template void Dataset::read_rows(Stream, std::int64_t, std::int64_t, std::int64_t, double*) const;

bool Dataset::has_checksums() const {
  return !state_->index.checksums.empty();
}

std::uint32_t Dataset::checksum(std::int64_t sample) const {
  return state_->index.checksums.at(static_cast<std::size_t>(sample));
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
  const std::size_t scratch_bytes =
      std::max({kVerifyScratch, row_bytes(Stream::kVisual), row_bytes(Stream::kAudio)});
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

}  // namespace voca::data
