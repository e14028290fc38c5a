#include "data/packed/pack.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <utility>

#include "data/packed/dataset.h"
#include "data/packed/pack_video.h"
#include "data/packed/packed_format.h"
#include "data/tree/parallel.h"
#include "engine/base/atomic_file.h"
#include "engine/base/error.h"

namespace voca::data {
namespace {

using engine::DataError;
using engine::DType;
using engine::IoError;
using engine::UsageError;

/// A video to be packed.
struct Candidate {
  const VideoFolder* video = nullptr;
  VideoProbe probe;
  PerStream<std::int64_t> first_row{};
  LoadedVideo loaded;  ///< without the rows, which are in the file by then
  std::optional<BadVideo> bad;
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
    for (const VideoFolder& video : tree_.videos) candidates_.emplace_back().video = &video;
    for_each_candidate([](Candidate& candidate) { candidate.probe = probe_video(*candidate.video); });
    drop_bad();
    settle_widths();
    settle_type();
    open_output();
    for_each_candidate([&](Candidate& candidate) { load(candidate); });
    if (drop_bad()) close_gaps();
    finish();
    return std::move(report_);
  }

 private:
  void check_expression() const;
  void check_options();
  void settle_widths();
  void settle_type();
  void open_output();
  void load(Candidate& candidate);
  void close_gaps();
  void finish();
  [[nodiscard]] std::vector<Split> draw(PackedIndex& index, PackedAttributes& attributes);
  void count_and_audit(const PackedIndex& index, std::span<const Split> splits);

  template <typename F>
  void for_each_candidate(F f);
  bool drop_bad();
  [[nodiscard]] bool grouped() const { return options_.group_by.kind != GroupBy::Kind::kNone; }

  const PackOptions& options_;
  FeatureTree tree_;
  PackReport report_;
  std::vector<Candidate> candidates_;
  std::unique_ptr<PackedFileWriter> output_;
  IdentityFinder finder_;
  std::mutex mutex_;
  std::int64_t done_ = 0;
};

/// Throws UsageError for an expression of --group_by that would keep nothing together.
void Packer::check_expression() const {
  const bool matches_none =
      std::none_of(tree_.videos.begin(), tree_.videos.end(),
                   [&](const VideoFolder& video) { return !finder_.find(video.id).empty(); });
  if (options_.group_by.kind != GroupBy::Kind::kExpression || tree_.videos.empty() || !matches_none) return;
  throw UsageError(
      "--group_by '{}': matches none of the {} names in {} (as {}); its first group, or the whole match, is the "
      "person",
      options_.group_by.expression, tree_.videos.size(), options_.features_root.string(),
      tree_.videos.front().id);
}

void Packer::check_options() {
  VOCA_CHECK(options_.num_workers >= 0);
  if (options_.group_by.kind == GroupBy::Kind::kExpression)
    finder_ = IdentityFinder(options_.group_by.expression);
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

/// Calls f(candidate) for each, on the workers. A video for which it throws BadVideoError becomes bad.
template <typename F>
void Packer::for_each_candidate(F f) {
  for_each_index(std::ssize(candidates_), options_.num_workers, [&](std::int64_t i) {
    Candidate& candidate = candidates_[static_cast<std::size_t>(i)];
    if (options_.check_stop) options_.check_stop();
    try {
      f(candidate);
    } catch (const BadVideoError& error) {
      if (options_.strict) throw DataError("{}", error.what());
      candidate.bad = {candidate.video->id, error.kind(), error.what()};
    }
  });
}

/// Moves bad videos to the report. Returns whether there are any.
bool Packer::drop_bad() {
  for (Candidate& candidate : candidates_)
    if (candidate.bad) report_.bad.push_back(*std::move(candidate.bad));
  const auto dropped =
      std::erase_if(candidates_, [](const Candidate& candidate) { return candidate.bad.has_value(); });
  done_ += static_cast<std::int64_t>(dropped);
  return dropped > 0;
}

/// Sets each stream's width to the most frequent one (ties: the smaller); videos of other widths are bad.
void Packer::settle_widths() {
  for (const Stream stream : kStreams) {
    std::map<std::int64_t, std::int64_t> votes;
    for (const Candidate& candidate : candidates_) ++votes[candidate.probe.dims[stream]];
    const auto most = std::ranges::max_element(votes, {}, [](const auto& vote) { return vote.second; });
    if (most != votes.end()) report_.dims[stream] = most->first;
  }
  for_each_candidate([&](const Candidate& candidate) {
    for (const Stream stream : kStreams) {
      if (candidate.probe.dims[stream] == report_.dims[stream]) continue;
      throw BadVideoError(
          BadVideoKind::kWidth, "{}: embeddings are {} wide; in most videos of this tree they are {}",
          stream_file(*candidate.video, stream).string(), candidate.probe.dims[stream], report_.dims[stream]);
    }
  });
  drop_bad();
}

void Packer::settle_type() {
  if (options_.dtype != PackType::kSource) {
    report_.dtype = options_.dtype == PackType::kFp16 ? DType::kF16 : DType::kF32;
    return;
  }
  const bool all_half = std::ranges::all_of(candidates_, [](const Candidate& candidate) {
    return candidate.probe.dtypes == std::array{DType::kF16, DType::kF16};
  });
  report_.dtype = all_half ? DType::kF16 : DType::kF32;
}

/// Assigns rows to the candidates, in order, and opens an output for them.
void Packer::open_output() {
  if (candidates_.empty()) {
    throw DataError("{}: none of its {} videos can be packed; the first: {}", options_.features_root.string(),
                    report_.found, report_.bad.front().message);
  }
  PerStream<std::int64_t> rows{};
  for (Candidate& candidate : candidates_) {
    candidate.first_row = rows;
    for (const Stream stream : kStreams) rows[stream] += candidate.probe.frames[stream];
  }
  output_ = std::make_unique<PackedFileWriter>(options_.out, report_.dtype, rows, report_.dims);
}

void Packer::load(Candidate& candidate) {
  candidate.loaded = load_video(*candidate.video, candidate.probe, tree_.form, report_.dtype);
  for (const Stream stream : kStreams) {
    output_->write(stream, candidate.first_row[stream], candidate.loaded.rows[stream].span());
    candidate.loaded.rows[stream] = {};
  }
  if (!options_.progress) return;
  const std::scoped_lock lock(mutex_);
  options_.progress(++done_, report_.found);
}

/// Videos with good headers but bad content leave gaps: copies the other videos to a second file without gaps
/// and drops the first.
void Packer::close_gaps() {
  std::vector<PerStream<std::int64_t>> from;
  for (const Candidate& candidate : candidates_) from.push_back(candidate.first_row);
  const std::unique_ptr<PackedFileWriter> gappy = std::move(output_);
  open_output();
  std::vector<std::byte> buffer;
  for (std::size_t i = 0; i < candidates_.size(); ++i) {
    if (options_.check_stop) options_.check_stop();
    for (const Stream stream : kStreams) {
      buffer.resize(static_cast<std::size_t>(candidates_[i].probe.frames[stream]) *
                    output_->row_bytes(stream));
      gappy->read(stream, from[i][stream], buffer);
      output_->write(stream, candidates_[i].first_row[stream], buffer);
    }
  }
}

/// Draws groups and splits, or takes the splits from the folders.
std::vector<Split> Packer::draw(PackedIndex& index, PackedAttributes& attributes) {
  index.groups.assign(index.ids.size(), -1);
  if (grouped()) index.groups = identity_groups(index.ids, finder_);
  std::map<std::int32_t, std::int64_t> sizes;
  for (const std::int32_t group : index.groups)
    if (group >= 0) report_.largest_group = std::max(report_.largest_group, ++sizes[group]);
  std::vector<Split> splits;
  if (tree_.form != TreeForm::kClassFolders) {
    for (const Candidate& candidate : candidates_) splits.push_back(candidate.video->split);
    for (const Split split : splits) attributes.split_ratios[static_cast<std::size_t>(split)] += 1.0;
    for (double& share : attributes.split_ratios) share /= static_cast<double>(splits.size());
  } else {
    attributes.split_ratios = options_.split_ratios.value_or(kUsualRatios);
    attributes.split_seed = options_.split_seed;
    const std::span<const std::int32_t> groups = index.groups;
    splits = draw_splits(index.labels, grouped() ? groups : groups.first(0), attributes.split_ratios,
                         options_.split_seed);
  }
  report_.split_ratios = attributes.split_ratios;
  for (const Split split : splits) index.splits.push_back(static_cast<std::uint8_t>(split));
  return splits;
}

void Packer::count_and_audit(const PackedIndex& index, std::span<const Split> splits) {
  PerStream<std::vector<std::int64_t>> frames;
  PerStream<std::vector<double>> energy;
  for (std::size_t i = 0; i < candidates_.size(); ++i) {
    const std::uint8_t label = index.labels[i];
    ++report_.counts[index.splits[i]][label == kReal ? 0 : label == kFake ? 1 : 2];
    report_.bytes_read += candidates_[i].probe.file_bytes;
    for (const Stream stream : kStreams) {
      frames[stream].push_back(candidates_[i].probe.frames[stream]);
      energy[stream].push_back(candidates_[i].loaded.energy[stream]);
    }
  }
  report_.audit = audit({.ids = index.ids,
                         .labels = index.labels,
                         .splits = splits,
                         .frames = {{frames[0], frames[1]}},
                         .energy = {{energy[0], energy[1]}},
                         .checksums = index.checksums},
                        finder_);
}

void Packer::finish() {
  PackedIndex index;
  index.dtype = report_.dtype;
  index.dims = report_.dims;
  for (auto& offsets : index.offsets) offsets.push_back(0);
  for (const Candidate& candidate : candidates_) {
    index.ids.push_back(candidate.video->id);
    index.labels.push_back(candidate.loaded.label);
    index.checksums.push_back(candidate.loaded.checksum);
    for (const Stream stream : kStreams)
      index.offsets[stream].push_back(index.offsets[stream].back() + candidate.probe.frames[stream]);
    if (!candidate.loaded.frame_labels) ++report_.without_frame_labels;
  }
  report_.frame_labels = report_.without_frame_labels == 0;
  for (const Candidate& candidate : candidates_) {
    if (!report_.frame_labels) break;
    const std::vector<std::uint8_t>& labels = *candidate.loaded.frame_labels;
    index.frame_labels.insert(index.frame_labels.end(), labels.begin(), labels.end());
  }
  PackedAttributes attributes;
  attributes.group_by = options_.group_by.text();
  attributes.source = options_.features_root.string();
  attributes.created_by = options_.created_by;
  const std::vector<Split> splits = draw(index, attributes);
  count_and_audit(index, splits);
  attributes.content_hash = data::content_hash(index);
  report_.packed = std::ssize(candidates_);
  report_.content_hash = attributes.content_hash;
  report_.split_hash = data::split_hash(index.ids, index.splits);
  std::ranges::sort(report_.bad, {}, &BadVideo::id);
  output_->finish(index, attributes);
  output_->commit([&](const std::filesystem::path& temporary) {
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
