#include "data/packed/pack_video.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "data/tree/convert.h"
#include "data/tree/npz.h"
#include "data/tree/retry.h"
#include "engine/base/digest.h"
#include "engine/base/path_status.h"
#include "engine/base/text.h"

namespace voca::data {
namespace {

using engine::DType;

constexpr const char* kEmbeddings = "embeddings";
constexpr const char* kFrameLabels = "frame_labels";

/// By ArrayFault.
constexpr std::array kKindOfFault{
    BadVideoKind::kUnreadable, BadVideoKind::kDamaged, BadVideoKind::kChecksum, BadVideoKind::kNoEmbeddings,
    BadVideoKind::kEmpty,      BadVideoKind::kShape,   BadVideoKind::kType};

/// Runs `f` with retries and converts array errors to errors of the video. A persistent system error is not
/// the video's fault and propagates.
template <typename F>
auto reading(F f) {
  try {
    return with_retries(f);
  } catch (const ArrayError& error) {
    throw BadVideoError(kKindOfFault[static_cast<std::size_t>(error.fault())], "{}", error.what());
  }
}

/// First few names in a video's folder, for messages.
std::string found_in(const std::filesystem::path& folder) {
  constexpr std::size_t kNamed = 4;
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error))
    names.push_back(entry->path().filename().string() + (entry->is_directory(error) ? "/" : ""));
  std::ranges::sort(names);
  const bool more = names.size() > kNamed;
  names.resize(std::min(names.size(), kNamed));
  return names.empty() ? "nothing" : fmt::format("{}{}", fmt::join(names, ", "), more ? ", …" : "");
}

/// Size of a stream's file.
std::int64_t file_size(const VideoFolder& video, Stream stream) {
  const std::string path = stream_file(video, stream).string();
  struct stat status {};
  if (engine::uninterrupted([&] { return ::stat(path.c_str(), &status); }) == 0) return status.st_size;
  const int error_number = errno;
  if (error_number == ENOENT) {
    throw BadVideoError(BadVideoKind::kMissingStream, "{}: there is no such file (found {})", path,
                        found_in(video.folder));
  }
  const std::string message = fmt::format("{}: cannot open: {}", path, std::strerror(error_number));
  if (!engine::says_absent(error_number) && error_number != ELOOP) throw ReadError(error_number, message);
  throw BadVideoError(BadVideoKind::kUnreadable, "{}", message);
}

void check_header(const NpyHeader& header, const std::string& path) {
  if (header.shape.size() != 2) {
    throw BadVideoError(BadVideoKind::kShape, "{}: embeddings are of shape ({}); (frames, width) is needed",
                        path, fmt::join(header.shape, ", "));
  }
  if (header.elements() == 0) {
    throw BadVideoError(BadVideoKind::kEmpty, "{}: embeddings of shape ({}) hold nothing", path,
                        fmt::join(header.shape, ", "));
  }
  if (header.dtype != DType::kF16 && header.dtype != DType::kF32 && header.dtype != DType::kF64) {
    throw BadVideoError(BadVideoKind::kType, "{}: embeddings are {}; float16, float32 or float64 is needed",
                        path, engine::name_of(header.dtype));
  }
}

void check_lengths(const VideoFolder& video, const VideoProbe& probe) {
  const auto longer = static_cast<double>(std::max(probe.frames[0], probe.frames[1]));
  const auto shorter = static_cast<double>(std::min(probe.frames[0], probe.frames[1]));
  if (longer <= kMaxLengthRatio * shorter) return;
  throw BadVideoError(BadVideoKind::kLengthMismatch,
                      "{}: {} visual and {} audio frames; more than {} times apart they are not of one clip",
                      video.folder.string(), probe.frames[0], probe.frames[1], kMaxLengthRatio);
}

/// Converts the array to rows of type `to`; reuses the array's memory if it already has that type.
Buffer convert(Array array, DType to, const std::string& path) {
  const auto position = [&](std::int64_t index) {
    return fmt::format("frame {}, column {}", index / array.shape[1], index % array.shape[1]);
  };
  NarrowResult result;
  Buffer rows;
  if (array.dtype == to) {
    result.not_finite = first_not_finite(to, array.data.data(), array.elements());
    rows = std::move(array.data);
  } else {
    rows = Buffer(static_cast<std::size_t>(array.elements()) * engine::size_of(to));
    result = narrow(array.dtype, array.data.data(), array.elements(), to, rows.data());
  }
  if (result.not_finite >= 0) {
    throw BadVideoError(BadVideoKind::kNotFinite, "{}: NaN or infinity at {}", path,
                        position(result.not_finite));
  }
  if (result.overflow >= 0) {
    throw BadVideoError(BadVideoKind::kOverflow, "{}: the number at {} is too large for {}", path,
                        position(result.overflow), engine::name_of(to));
  }
  return rows;
}

double leading_energy(const Buffer& rows, DType dtype, std::int64_t frames, std::int64_t dim) {
  const std::int64_t count = std::min(frames, kLeadingFrames) * dim;
  std::vector<double> values(static_cast<std::size_t>(count));
  widen(dtype, rows.data(), count, DType::kF64, values.data());
  double sum = 0.0;
  for (const double value : values) sum += value * value;
  return sum / static_cast<double>(count);
}

template <typename T>
std::vector<std::uint8_t> zeros_and_ones(const Array& array, const std::string& path) {
  std::vector<std::uint8_t> result(static_cast<std::size_t>(array.elements()));
  for (std::size_t i = 0; i < result.size(); ++i) {
    T value;
    std::memcpy(&value, array.data.data() + i * sizeof(T), sizeof(T));
    if (value != T{0} && value != T{1}) {
      throw BadVideoError(BadVideoKind::kFrameLabels,
                          "{}: frame_labels holds {} at {}; 0 (real) or 1 (fake) is needed", path, value, i);
    }
    result[i] = static_cast<std::uint8_t>(value);
  }
  return result;
}

std::vector<std::uint8_t> read_frame_labels(const NpzReader& npz, std::int64_t frames,
                                            const std::string& path) {
  const NpyHeader header = npz.header(kFrameLabels);
  if (header.shape.size() != 1 || header.shape[0] != frames) {
    throw BadVideoError(BadVideoKind::kFrameLabels,
                        "{}: frame_labels are of shape ({}); ({},) is needed, one a visual frame", path,
                        fmt::join(header.shape, ", "), frames);
  }
  const Array array = npz.read(kFrameLabels);
  switch (array.dtype) {
    case DType::kI64:
      return zeros_and_ones<std::int64_t>(array, path);
    case DType::kI32:
      return zeros_and_ones<std::int32_t>(array, path);
    case DType::kI16:
      return zeros_and_ones<std::int16_t>(array, path);
    case DType::kI8:
      return zeros_and_ones<std::int8_t>(array, path);
    case DType::kU8:
    case DType::kBool:
      return zeros_and_ones<std::uint8_t>(array, path);
    default:
      throw BadVideoError(BadVideoKind::kFrameLabels, "{}: frame_labels are {}; whole numbers are needed",
                          path, engine::name_of(array.dtype));
  }
}

/// If folders are splits, the label comes from the frame labels, and only a test video may lack them.
/// Otherwise the label comes from the folder, if there is one, and frame labels are optional: unusable ones
/// count as absent.
void take_labels(const VideoFolder& video, TreeForm form, const NpzReader& npz, std::int64_t frames,
                 const std::string& path, LoadedVideo& loaded) {
  const bool present = npz.has(kFrameLabels);
  if (form != TreeForm::kSplitFolders) {
    loaded.label = static_cast<std::uint8_t>(video.label);
    if (!present) return;
    try {
      loaded.frame_labels = read_frame_labels(npz, frames, path);
    } catch (const engine::DataError&) {
      loaded.frame_labels.reset();
    }
    return;
  }
  if (!present) {
    if (video.split == Split::kTest) return;
    throw BadVideoError(BadVideoKind::kFrameLabels,
                        "{}: has no frame_labels, which say whether a video of {}/ is fake", path,
                        video.id.substr(0, video.id.find('/')));
  }
  loaded.frame_labels = reading([&] { return read_frame_labels(npz, frames, path); });
  const auto& labels = *loaded.frame_labels;
  const bool fake = std::ranges::find(labels, std::uint8_t{1}) != labels.end();
  loaded.label = static_cast<std::uint8_t>(fake ? kFake : kReal);
}

}  // namespace

VideoProbe probe_video(const VideoFolder& video) {
  if (!video.fault.empty()) throw BadVideoError(BadVideoKind::kUnreadable, "{}", video.fault);
  if (!video.other_label.empty()) {
    throw BadVideoError(BadVideoKind::kTwoLabels,
                        "{}: is {} as well (the same files, through a link), so its label is "
                        "unclear; remove one of the two",
                        video.folder.string(), video.other_label);
  }
  if (!engine::is_utf8(video.id)) {
    throw BadVideoError(BadVideoKind::kUnreadable, "{}: its name is not UTF-8; rename the folder",
                        video.folder.string());
  }
  VideoProbe probe;
  for (const Stream stream : kStreams) probe.file_bytes += reading([&] { return file_size(video, stream); });
  for (const Stream stream : kStreams) {
    const std::string path = stream_file(video, stream).string();
    const NpyHeader header = reading([&] { return NpzReader(path).header(kEmbeddings); });
    check_header(header, path);
    probe.frames[stream] = header.shape[0];
    probe.dims[stream] = header.shape[1];
    probe.dtypes[stream] = header.dtype;
  }
  check_lengths(video, probe);
  return probe;
}

LoadedVideo load_video(const VideoFolder& video, const VideoProbe& probe, TreeForm form, DType to) {
  LoadedVideo loaded;
  for (const Stream stream : kStreams) {
    const std::string path = stream_file(video, stream).string();
    reading([&] {
      const NpzReader npz(path);
      Array array = npz.read(kEmbeddings);
      if (array.shape != std::vector<std::int64_t>{probe.frames[stream], probe.dims[stream]})
        throw BadVideoError(BadVideoKind::kUnreadable, "{}: changed while it was packed", path);
      if (stream == Stream::kVisual) take_labels(video, form, npz, probe.frames[stream], path, loaded);
      loaded.rows[stream] = convert(std::move(array), to, path);
    });
    loaded.checksum = engine::crc32c(loaded.rows[stream].span(), loaded.checksum);
    loaded.energy[stream] = leading_energy(loaded.rows[stream], to, probe.frames[stream], probe.dims[stream]);
  }
  return loaded;
}

}  // namespace voca::data
