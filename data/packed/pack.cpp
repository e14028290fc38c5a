#include "data/packed/pack.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "data/packed/dataset.h"
#include "data/packed/pack_video.h"
#include "data/packed/packed_format.h"
#include "data/tree/parallel.h"
#include "engine/base/atomic_file.h"
#include "engine/base/error.h"
#include "engine/base/unique_fd.h"

namespace voca::data {
namespace {

using engine::DataError;
using engine::DType;
using engine::IoError;
using engine::UsageError;

/// Temporary file of an output; supports writes at any offset from any thread.
class RandomWriter {
 public:
  RandomWriter(const std::filesystem::path& path, std::string name)
      : name_(std::move(name)), descriptor_(::open(path.c_str(), O_RDWR | O_CLOEXEC)) {
    if (!descriptor_) fail("open");
  }

  /// Allocates disk space in advance if the file system supports it, so that a full disk is detected before
  /// the work.
  void reserve(std::uint64_t bytes) {
    if (bytes == 0 || ::fallocate(descriptor_.get(), 0, 0, static_cast<off_t>(bytes)) == 0) return;
    if (errno == ENOSPC || errno == EFBIG || errno == EDQUOT) fail("get room for the packed frames");
  }
  void write(std::span<const std::byte> bytes, std::uint64_t at) {
    const auto first = static_cast<off_t>(at);
    const auto size = static_cast<off_t>(bytes.size());
    while (!bytes.empty()) {
      const ssize_t count = ::pwrite(descriptor_.get(), bytes.data(), bytes.size(), static_cast<off_t>(at));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) fail("write");
      bytes = bytes.subspan(static_cast<std::size_t>(count));
      at += static_cast<std::uint64_t>(count);
    }
    // Starts writeback now, in parallel with the remaining videos, instead of at the final sync. Only a hint:
    // the sync reports write errors.
    static_cast<void>(::sync_file_range(descriptor_.get(), first, size, SYNC_FILE_RANGE_WRITE));
  }
  void read(std::span<std::byte> bytes, std::uint64_t at) {
    while (!bytes.empty()) {
      const ssize_t count = ::pread(descriptor_.get(), bytes.data(), bytes.size(), static_cast<off_t>(at));
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) fail("read back");
      bytes = bytes.subspan(static_cast<std::size_t>(count));
      at += static_cast<std::uint64_t>(count);
    }
  }

 private:
  [[noreturn]] void fail(const char* action) const {
    throw IoError("{}: cannot {}: {}", name_, action, std::strerror(errno));
  }

  std::string name_;
  engine::UniqueFd descriptor_;
};

/// An output in progress: temporary file, HDF5 structure, and offsets of the frames.
struct Output {
  Output(const std::filesystem::path& path, DType dtype, const std::array<std::int64_t, 2>& rows,
         const std::array<std::int64_t, 2>& dims)
      : file(std::make_unique<engine::AtomicFile>(path)),
        packed(std::make_unique<PackedFileWriter>(file->temporary_path(), path.string(), dtype, rows, dims)),
        raw(std::make_unique<RandomWriter>(file->temporary_path(), path.string())) {
    std::uint64_t end = 0;
    for (const Stream stream : kStreams) {
      const auto s = static_cast<std::size_t>(stream);
      row_bytes[s] = static_cast<std::uint64_t>(dims[s]) * engine::size_of(dtype);
      end = std::max(end, packed->frames_at(stream) + static_cast<std::uint64_t>(rows[s]) * row_bytes[s]);
    }
    raw->reserve(end);
  }

  [[nodiscard]] std::uint64_t at(Stream stream, std::int64_t row) const {
    return packed->frames_at(stream) +
           static_cast<std::uint64_t>(row) * row_bytes[static_cast<std::size_t>(stream)];
  }

  std::unique_ptr<engine::AtomicFile> file;
  std::unique_ptr<PackedFileWriter> packed;
  std::unique_ptr<RandomWriter> raw;
  std::array<std::uint64_t, 2> row_bytes{};
};

/// A video to be packed.
struct Candidate {
  const VideoFolder* video = nullptr;
  VideoProbe probe;
  std::array<std::int64_t, 2> first_row{};
  bool bad = false;
  // Results of loading; the rows themselves have been written to the file by then.
  std::array<double, 2> energy{};
  std::uint32_t checksum = 0;
  std::uint8_t label = kUnknownLabel;
  std::optional<std::vector<std::uint8_t>> frame_labels;
};

class Packer {
 public:
  explicit Packer(const PackOptions& options) : options_(options) {}

  PackReport run() {
    tree_ = scan_feature_tree(options_.features_root);
    check_options();
    report_.found = static_cast<std::int64_t>(tree_.videos.size());
    report_.form = tree_.form;
    report_.repeated = tree_.repeated;
    report_.ignored = tree_.ignored;
    probe();
    settle_widths();
    settle_type();
    load();
    if (std::any_of(candidates_.begin(), candidates_.end(), [](const Candidate& c) { return c.bad; }))
      close_gaps();
    finish();
    return std::move(report_);
  }

 private:
  void check_expression() const;
  void check_options();
  void probe();
  void settle_widths();
  void settle_type();
  void load();
  void load_one(Candidate& candidate);
  void close_gaps();
  void finish();
  void draw(PackedIndex& index, PackedAttributes& attributes);
  void count_and_audit(const PackedIndex& index);

  [[nodiscard]] std::array<std::int64_t, 2> lay_out();
  void drop_bad(std::vector<BadVideo> found);
  void report_progress();

  const PackOptions& options_;
  [[nodiscard]] bool grouped() const { return options_.group_by.kind != GroupBy::Kind::kNone; }

  FeatureTree tree_;
  PackReport report_;
  std::vector<Candidate> candidates_;
  std::unique_ptr<Output> output_;
  std::unique_ptr<IdentityFinder> finder_;
  std::mutex mutex_;
  std::int64_t done_ = 0;
};

/// Throws UsageError for an expression of --group_by that would keep nothing together.
void Packer::check_expression() const {
  const bool matches_none =
      std::none_of(tree_.videos.begin(), tree_.videos.end(),
                   [&](const VideoFolder& video) { return !finder_->find(video.id).empty(); });
  if (options_.group_by.kind != GroupBy::Kind::kExpression || tree_.videos.empty() || !matches_none) return;
  throw UsageError(
      "--group_by '{}': matches none of the {} names in {} (as {}); its first group, or the whole match, is the "
      "person",
      options_.group_by.expression, tree_.videos.size(), options_.features_root.string(),
      tree_.videos.front().id);
}

void Packer::check_options() {
  VOCA_CHECK(options_.num_workers >= 0);
  finder_ = options_.group_by.kind == GroupBy::Kind::kExpression
                ? std::make_unique<IdentityFinder>(options_.group_by.expression)
                : std::make_unique<IdentityFinder>();
  check_expression();
  engine::remove_stale_temporaries(options_.out);
  const engine::AtomicFile can_be_written(options_.out);  // fails now rather than after an hour
  if (tree_.form == TreeForm::kClassFolders) return;
  const auto refuse = [&](const std::string& option) {
    throw UsageError("{}: {} {}; leave the option out", option, options_.features_root.string(),
                     tree_.form == TreeForm::kSplitFolders
                         ? "has its splits as folders"
                         : "is a folder of videos without labels or splits");
  };
  if (options_.split_ratios) refuse("--split_ratios");
  if (options_.split_seed != 0) refuse(fmt::format("--split_seed {}", options_.split_seed));
  if (grouped()) refuse("--group_by " + options_.group_by.text());
}

void Packer::report_progress() {
  if (!options_.progress) return;
  const std::scoped_lock lock(mutex_);
  options_.progress(++done_, report_.found);
}

/// Quarantines videos, sorted by id.
void Packer::drop_bad(std::vector<BadVideo> found) {
  std::sort(found.begin(), found.end(), [](const BadVideo& a, const BadVideo& b) { return a.id < b.id; });
  if (options_.strict && !found.empty()) throw DataError("{}", found.front().message);
  done_ += static_cast<std::int64_t>(found.size());
  report_.bad.insert(report_.bad.end(), std::make_move_iterator(found.begin()),
                     std::make_move_iterator(found.end()));
}

void Packer::probe() {
  std::vector<std::optional<VideoProbe>> probes(tree_.videos.size());
  std::vector<BadVideo> bad;
  for_each_index(report_.found, options_.num_workers, [&](std::int64_t i) {
    const VideoFolder& video = tree_.videos[static_cast<std::size_t>(i)];
    if (options_.check_stop) options_.check_stop();
    try {
      probes[static_cast<std::size_t>(i)] = probe_video(video);
    } catch (const BadVideoError& error) {
      if (options_.strict) throw DataError("{}", error.what());
      const std::scoped_lock lock(mutex_);
      bad.push_back({video.id, error.kind(), error.what()});
    }
  });
  drop_bad(std::move(bad));
  for (std::size_t i = 0; i < probes.size(); ++i) {
    if (!probes[i]) continue;
    candidates_.emplace_back();
    candidates_.back().video = &tree_.videos[i];
    candidates_.back().probe = *probes[i];
  }
}

/// Sets each stream's width to the most frequent one (ties: the smaller); videos of other widths are
/// quarantined.
void Packer::settle_widths() {
  std::array<std::int64_t, 2> dims{};
  for (std::size_t s = 0; s < dims.size(); ++s) {
    std::map<std::int64_t, std::int64_t> votes;
    for (const Candidate& candidate : candidates_) ++votes[candidate.probe.dims[s]];
    std::int64_t most = 0;
    for (const auto& [dim, count] : votes) {
      if (count <= most) continue;
      most = count;
      dims[s] = dim;
    }
  }
  std::vector<BadVideo> bad;
  std::erase_if(candidates_, [&](const Candidate& candidate) {
    for (const Stream stream : kStreams) {
      const auto s = static_cast<std::size_t>(stream);
      if (candidate.probe.dims[s] == dims[s]) continue;
      bad.push_back(
          {candidate.video->id, BadVideoKind::kWidth,
           fmt::format("{}: embeddings are {} wide; in most videos of this tree they are {}",
                       stream_file(*candidate.video, stream).string(), candidate.probe.dims[s], dims[s])});
      return true;
    }
    return false;
  });
  drop_bad(std::move(bad));
  report_.visual_dim = dims[0];
  report_.audio_dim = dims[1];
}

void Packer::settle_type() {
  if (options_.dtype != PackType::kSource) {
    report_.dtype = options_.dtype == PackType::kFp16 ? DType::kF16 : DType::kF32;
    return;
  }
  const bool all_half = std::all_of(candidates_.begin(), candidates_.end(), [](const Candidate& candidate) {
    return candidate.probe.dtypes == std::array{DType::kF16, DType::kF16};
  });
  report_.dtype = all_half ? DType::kF16 : DType::kF32;
}

/// Assigns rows to the candidates, in order; returns the total number of rows.
std::array<std::int64_t, 2> Packer::lay_out() {
  std::array<std::int64_t, 2> rows{};
  for (Candidate& candidate : candidates_) {
    candidate.first_row = rows;
    for (std::size_t s = 0; s < rows.size(); ++s) rows[s] += candidate.probe.frames[s];
  }
  if (candidates_.empty()) {
    throw DataError("{}: none of its {} videos can be packed; the first: {}", options_.features_root.string(),
                    report_.found, report_.bad.front().message);
  }
  return rows;
}

void Packer::load_one(Candidate& candidate) {
  LoadedVideo loaded = load_video(*candidate.video, candidate.probe, tree_.form, report_.dtype);
  for (const Stream stream : kStreams) {
    const auto s = static_cast<std::size_t>(stream);
    output_->raw->write(loaded.rows[s].span(), output_->at(stream, candidate.first_row[s]));
  }
  candidate.energy = loaded.energy;
  candidate.checksum = loaded.checksum;
  candidate.label = loaded.label;
  candidate.frame_labels = std::move(loaded.frame_labels);
}

void Packer::load() {
  const std::array<std::int64_t, 2> rows = lay_out();
  output_ = std::make_unique<Output>(options_.out, report_.dtype, rows,
                                     std::array{report_.visual_dim, report_.audio_dim});
  std::vector<BadVideo> bad;
  for_each_index(static_cast<std::int64_t>(candidates_.size()), options_.num_workers, [&](std::int64_t i) {
    Candidate& candidate = candidates_[static_cast<std::size_t>(i)];
    if (options_.check_stop) options_.check_stop();
    try {
      load_one(candidate);
      report_progress();
    } catch (const BadVideoError& error) {
      if (options_.strict) throw DataError("{}", error.what());
      candidate.bad = true;
      const std::scoped_lock lock(mutex_);
      bad.push_back({candidate.video->id, error.kind(), error.what()});
    }
  });
  drop_bad(std::move(bad));
}

/// Videos with good headers but bad content leave gaps: copies the other videos to a second file without gaps
/// and drops the first.
void Packer::close_gaps() {
  std::erase_if(candidates_, [](const Candidate& candidate) { return candidate.bad; });
  std::vector<std::array<std::int64_t, 2>> from;
  for (const Candidate& candidate : candidates_) from.push_back(candidate.first_row);
  const std::array<std::int64_t, 2> rows = lay_out();
  const std::unique_ptr<Output> gappy = std::move(output_);
  output_ = std::make_unique<Output>(options_.out, report_.dtype, rows,
                                     std::array{report_.visual_dim, report_.audio_dim});
  std::vector<std::byte> buffer;
  for (std::size_t i = 0; i < candidates_.size(); ++i) {
    if (options_.check_stop) options_.check_stop();
    for (const Stream stream : kStreams) {
      const auto s = static_cast<std::size_t>(stream);
      buffer.resize(static_cast<std::size_t>(candidates_[i].probe.frames[s]) * output_->row_bytes[s]);
      gappy->raw->read(buffer, gappy->at(stream, from[i][s]));
      output_->raw->write(buffer, output_->at(stream, candidates_[i].first_row[s]));
    }
  }
}

void Packer::draw(PackedIndex& index, PackedAttributes& attributes) {
  const std::size_t n = index.ids.size();
  index.groups.assign(n, -1);
  if (grouped()) index.groups = identity_groups(index.ids, *finder_);
  std::map<std::int32_t, std::int64_t> sizes;
  for (const std::int32_t group : index.groups)
    if (group >= 0) report_.largest_group = std::max(report_.largest_group, ++sizes[group]);
  std::vector<Split> splits;
  if (tree_.form != TreeForm::kClassFolders) {
    for (const Candidate& candidate : candidates_) splits.push_back(candidate.video->split);
    for (const Split split : splits) attributes.split_ratios[static_cast<std::size_t>(split)] += 1.0;
    for (double& share : attributes.split_ratios) share /= static_cast<double>(n);
  } else {
    attributes.split_ratios = options_.split_ratios.value_or(kUsualRatios);
    attributes.split_seed = options_.split_seed;
    const std::span<const std::int32_t> groups = index.groups;
    splits = draw_splits(index.labels, grouped() ? groups : groups.first(0), attributes.split_ratios,
                         options_.split_seed);
  }
  report_.split_ratios = attributes.split_ratios;
  for (const Split split : splits) index.splits.push_back(static_cast<std::uint8_t>(split));
}

void Packer::count_and_audit(const PackedIndex& index) {
  std::vector<Split> splits;
  std::array<std::vector<std::int64_t>, 2> frames;
  std::array<std::vector<double>, 2> energy;
  for (std::size_t i = 0; i < candidates_.size(); ++i) {
    const std::uint8_t label = index.labels[i];
    ++report_.counts[index.splits[i]][label == kReal ? 0 : label == kFake ? 1 : 2];
    splits.push_back(static_cast<Split>(index.splits[i]));
    report_.bytes_read += candidates_[i].probe.file_bytes;
    for (std::size_t s = 0; s < 2; ++s) {
      frames[s].push_back(candidates_[i].probe.frames[s]);
      energy[s].push_back(candidates_[i].energy[s]);
    }
  }
  report_.audit =
      audit({index.ids, index.labels, splits, frames[0], frames[1], energy[0], energy[1], index.checksums},
            *finder_);
}

void Packer::finish() {
  PackedIndex index;
  index.dtype = report_.dtype;
  index.dims = {report_.visual_dim, report_.audio_dim};
  index.offsets = {std::vector<std::int64_t>{0}, std::vector<std::int64_t>{0}};
  for (const Candidate& candidate : candidates_) {
    index.ids.push_back(candidate.video->id);
    index.labels.push_back(candidate.label);
    index.checksums.push_back(candidate.checksum);
    for (std::size_t s = 0; s < 2; ++s)
      index.offsets[s].push_back(index.offsets[s].back() + candidate.probe.frames[s]);
    if (!candidate.frame_labels) ++report_.without_frame_labels;
  }
  report_.frame_labels = report_.without_frame_labels == 0;
  for (const Candidate& candidate : candidates_) {
    if (!report_.frame_labels) break;
    index.frame_labels.insert(index.frame_labels.end(), candidate.frame_labels->begin(),
                              candidate.frame_labels->end());
  }
  PackedAttributes attributes;
  attributes.group_by = options_.group_by.text();
  attributes.source = options_.features_root.string();
  attributes.created_by = options_.created_by;
  draw(index, attributes);
  count_and_audit(index);
  attributes.content_hash = data::content_hash(index);
  report_.packed = static_cast<std::int64_t>(candidates_.size());
  report_.content_hash = attributes.content_hash;
  report_.split_hash = data::split_hash(index.ids, index.splits);
  std::sort(report_.bad.begin(), report_.bad.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  output_->raw.reset();
  output_->packed->finish(index, attributes);
  output_->file->commit([&](const std::filesystem::path& temporary) {
    const Dataset written(temporary);
    const std::vector<std::int64_t> damaged = written.verify_all(options_.num_workers);
    if (written.content_hash() != attributes.content_hash || !damaged.empty()) {
      throw IoError("{}: what was written does not read back as it was ({} videos differ); check the disk",
                    options_.out.string(), damaged.size());
    }
    report_.bytes_written = written.summary().file_bytes;
    if (options_.before_commit) options_.before_commit(report_);
  });
}

}  // namespace

PackReport pack_features(const PackOptions& options) {
  return Packer(options).run();
}

}  // namespace voca::data
