#include <fmt/format.h>

#include <cmath>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "data/packed/dataset.h"
#include "data/tree/npz.h"
#include "engine/base/atomic_file.h"
#include "engine/base/error.h"
#include "engine/base/file_kind.h"
#include "engine/base/json.h"
#include "engine/base/path_status.h"
#include "engine/base/text.h"
#include "engine/checkpoint/resume/resume_state.h"
#include "engine/checkpoint/safetensors/safetensors.h"
#include "engine/checkpoint/torch/pt_file.h"
#include "engine/checkpoint/torch/training_checkpoint.h"
#include "engine/telemetry/run_folder.h"
#include "model/registry.h"
#include "tools/checkpoint_path.h"
#include "tools/commands.h"
#include "tools/network_weights.h"
#include "tools/options/common_rows.h"
#include "tools/output_file.h"
#include "tools/recorded_run.h"
#include "tools/result.h"

namespace voca::tools {
namespace {

using engine::DataError;
using engine::IoError;
using nlohmann::ordered_json;

struct Inspection {
  ordered_json json;
  std::string text;
};

/// Says that a file was verified; `covered`: by digests of every byte.
void add_verified(bool covered, Inspection& result) {
  result.json["verified"] = covered;
  result.text += covered ? "verified: every byte of the file is what was written\n"
                         : "verified: the file carries no digests of ours; what checksums it has hold\n";
}

/// Adds a tensor or array to json[where] and to the text.
void add_tensor(const char* where, const std::string& name, engine::DType dtype,
                const std::vector<std::int64_t>& shape, Inspection& result) {
  engine::add_member(result.json[where], name, {{"dtype", engine::name_of(dtype)}, {"shape", shape}});
  result.text +=
      fmt::format("  {}: {} ({})\n", engine::printable(name), engine::name_of(dtype), fmt::join(shape, ", "));
}

/// The first `most` of `count` names: "a, b, c and 4 more".
std::string listed(const std::vector<std::string>& names, std::size_t count, std::size_t most) {
  const std::size_t shown = std::min(names.size(), most);
  std::string text =
      fmt::format("{}", fmt::join(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(shown), ", "));
  if (count > shown) text += fmt::format(" and {} more", count - shown);
  return text;
}

Inspection inspect_dataset(const std::filesystem::path& path, bool verify, int num_workers) {
  const data::Dataset dataset(path);
  const data::DatasetSummary& s = dataset.summary();
  Inspection result;
  ordered_json& json = result.json;
  json = {{"kind", "packed dataset"},
          {"path", path.string()},
          {"samples", s.samples},
          {"dtype", engine::name_of(s.dtype)},
          {"visual_dim", s.dims[0]},
          {"audio_dim", s.dims[1]},
          {"visual_frames", s.frames[0]},
          {"audio_frames", s.frames[1]},
          {"frames_min", s.frames_min},
          {"frames_max", s.frames_max},
          {"groups", s.groups},
          {"frame_labels", s.frame_labels},
          {"checksums", s.checksums},
          {"direct", s.direct},
          {"file_bytes", s.file_bytes},
          {"split_seed", s.split_seed},
          {"split_ratios", s.split_ratios},
          {"group_by", s.group_by},
          {"source", s.source},
          {"created_by", s.created_by},
          {"content_hash", s.content_hash},
          {"split_hash", s.split_hash}};
  result.text = fmt::format(
      "{}: packed dataset, {} videos, {}, visual {} ({} frames), audio {} ({} frames), {} bytes\n"
      "frames a video: {} to {}\n",
      path.string(), s.samples, engine::name_of(s.dtype), s.dims[0], s.frames[0], s.dims[1], s.frames[1],
      s.file_bytes, s.frames_min, s.frames_max);
  for (const data::Split split : data::kAllSplits) {
    const std::vector<std::int64_t>& counts = s.counts[static_cast<std::size_t>(split)];
    json["splits"][std::string(data::name_of(split))] = {
        {"of_label", std::vector<std::int64_t>(counts.begin(), counts.end() - 1)},
        {"unknown", counts.back()}};
    result.text += fmt::format("{:<5}", data::name_of(split));
    for (std::size_t label = 0; label + 1 < counts.size(); ++label) {
      result.text += s.classes == 2
                         ? fmt::format("  {} {}", counts[label], label == data::kReal ? "real" : "fake")
                         : fmt::format("  {} of class {}", counts[label], label);
    }
    if (counts.back() > 0) result.text += fmt::format("  {} of unknown label", counts.back());
    result.text += '\n';
  }
  result.text += fmt::format("splits: seed {}, group_by {}, {} groups\n", s.split_seed,
                             engine::printable(s.group_by), s.groups);
  result.text += fmt::format("frame labels: {}; frames are read {}\n", s.frame_labels ? "yes" : "no",
                             s.direct ? "directly" : "through the HDF5 library (chunked or filtered)");
  result.text +=
      fmt::format("made of {} by {}\n", engine::printable(s.source), engine::printable(s.created_by));
  result.text += fmt::format("content {}\nsplit   {}\n", s.content_hash, s.split_hash);
  if (!verify) return result;
  const std::vector<std::int64_t> damaged = dataset.verify_all(num_workers);
  if (!damaged.empty()) {
    std::vector<std::string> ids;
    for (const std::int64_t sample : damaged) ids.push_back(engine::printable(dataset.id(sample)));
    throw DataError("{}: the frames of {} videos are damaged ({}): {}", path.string(), damaged.size(),
                    dataset.has_checksums() ? "their checksums do not hold" : "not all numbers are finite",
                    listed(ids, ids.size(), 10));
  }
  json["verified"] = dataset.has_checksums() && s.content_known;
  if (!s.content_known) {
    result.text += fmt::format(
        "not verified: the file carries no content_hash, so labels, ids and splits may have been edited; {}\n",
        dataset.has_checksums() ? "the frames of every video are what was packed"
                                : "all numbers of its frames are finite");
    return result;
  }
  result.text +=
      dataset.has_checksums()
          ? "verified: the index and the frames of every video are what was packed\n"
          : "verified: the index; the file carries no checksums of frames; all their numbers are finite\n";
  return result;
}

/// Whether eval and predict find weights in a file, and where, or why not.
std::pair<bool, std::string> weights_line(const std::string& path, const engine::Value& root,
                                          const std::string& key) {
  try {
    const NetworkWeights weights = find_weights(path, engine::interpret_checkpoint(path, root), key);
    return {true, fmt::format("{} parameters of {} under {}", weights.tensors.size(), model::network_titles(),
                              weights.key)};
  } catch (const DataError& error) {
    const std::string why = error.what();
    return {false, "cannot be loaded: " + (why.starts_with(path + ": ") ? why.substr(path.size() + 2) : why)};
  }
}

Inspection inspect_pt(const std::filesystem::path& path, bool verify, const std::string& key) {
  const engine::PtFile file =
      engine::read_pt(path, verify ? engine::Verify::kEverything : engine::Verify::kStructure);
  std::uint64_t bytes = 0;
  for (const engine::PtFile::Record& record : file.records) bytes += record.size;
  Inspection result;
  const std::vector<std::string> inert = engine::list_inert(file.value);
  const std::size_t inert_places = engine::count_inert(file.value);
  result.json = {{"kind", "PyTorch checkpoint"},
                 {"path", path.string()},
                 {"records", file.records.size()},
                 {"record_bytes", bytes},
                 {"digests", file.has_digests}};
  result.json["not_loaded"] = inert;
  result.json["not_loaded_places"] = inert_places;
  for (const char* entry : {"epoch", "val_acc", "val_auc", "config", "engine"}) {
    if (const engine::Value* value = file.value.find(entry))
      result.json[entry] = engine::json_from_value(*value);
  }
  result.text = fmt::format("{}: PyTorch checkpoint, {} records, {} bytes\n{}", path.string(),
                            file.records.size(), bytes, engine::describe(file.value));
  if (!result.text.ends_with('\n')) result.text += '\n';
  const auto [usable, weights] = weights_line(path.string(), file.value, key);
  result.json["weights"] = usable ? ordered_json(weights) : ordered_json();
  result.text += fmt::format("weights: {}\n", weights);
  if (!inert.empty())
    result.text += fmt::format("not loaded, and nothing of it was run: {}\n", listed(inert, inert_places, 8));
  if (verify) add_verified(file.has_digests, result);
  return result;
}

Inspection inspect_safetensors(const std::filesystem::path& path, bool verify) {
  const engine::SafetensorsFile file =
      engine::read_safetensors(path, verify ? engine::Verify::kEverything : engine::Verify::kStructure);
  Inspection result;
  result.json = {{"kind", "safetensors"},
                 {"path", path.string()},
                 {"digest", file.has_digest},
                 {"tensors", ordered_json::object()}};
  result.text = fmt::format("{}: safetensors, {} tensors\n", path.string(), file.tensors.size());
  for (const engine::NamedTensor& named : file.tensors)
    add_tensor("tensors", named.name, named.tensor.dtype, named.tensor.shape, result);
  for (const auto& [key, value] : file.metadata) {
    engine::add_member(result.json["metadata"], key, value);
    result.text += fmt::format("metadata {}: {}\n", engine::printable(key), engine::printable(value));
  }
  if (verify) add_verified(file.has_digest, result);
  return result;
}

/// Lists the arrays of a NumPy archive, such as the stream of a video; --verify reads them all.
Inspection inspect_npz(const std::filesystem::path& path, bool verify) {
  const data::NpzReader npz(path);
  Inspection result;
  result.json = {{"kind", "NumPy archive"}, {"path", path.string()}, {"arrays", ordered_json::object()}};
  const std::vector<std::string> keys = npz.keys();
  result.text = fmt::format("{}: NumPy archive (.npz), {} arrays\n", path.string(), keys.size());
  for (const std::string& key : keys) {
    try {
      const data::NpyHeader header = npz.header(key);
      if (verify) static_cast<void>(npz.read(key));
      add_tensor("arrays", key, header.dtype, header.shape, result);
    } catch (const data::ArrayError& error) {
      // Many extractors store strings and objects beside the numbers; these are not read.
      if (error.fault() != data::ArrayFault::kType) throw;
      engine::add_member(result.json["arrays"], key, {{"not_read", error.what()}});
      result.text += fmt::format("  {}: not numbers, not read\n", engine::printable(key));
    }
  }
  if (verify) {
    result.json["verified"] = true;
    result.text += "verified: the arrays above are what was written\n";
  }
  return result;
}

/// Reading a resume state verifies it: a digest covers every byte.
Inspection inspect_resume_state(const std::filesystem::path& path) {
  const engine::ResumeState state = engine::read_resume_state(path);
  std::uint64_t bytes = 0;
  for (const engine::NamedTensor& named : state.tensors) bytes += named.tensor.storage->size();
  Inspection result;
  result.json = {{"kind", "resume state"}, {"path", path.string()},  {"sections", state.tensors.size()},
                 {"bytes", bytes},         {"header", state.header}, {"verified", true}};
  result.text = fmt::format("{}: resume state, {} sections, {} bytes, verified\n{}\n", path.string(),
                            state.tensors.size(), bytes, engine::json_text(state.header, 2));
  return result;
}

/// Formats a value of a record for people: metrics with four digits.
std::string readable(const ordered_json& value) {
  if (!value.is_number_float()) return engine::printable(engine::json_text(value));
  const auto number = value.get<double>();
  const double size = std::abs(number);
  if (size >= 1000) return fmt::format("{:.0f}", number);
  return size == 0 || size >= 0.001 ? fmt::format("{:.4f}", number) : fmt::format("{:.4g}", number);
}

/// Adds the number of records of a run, and the last record of each kind.
void add_metrics(const std::filesystem::path& metrics, Inspection& result) {
  constexpr std::size_t kMaxKinds = 32;  // there are three
  ordered_json last = ordered_json::object();
  std::int64_t count = 0;
  engine::visit_metrics(metrics, [&](const ordered_json& record, std::string_view /*line*/) {
    ++count;
    const auto& kind = record["kind"].get_ref<const std::string&>();
    if (last.contains(kind) || last.size() < kMaxKinds) last[kind] = record;
  });
  result.json["metrics_lines"] = count;
  result.text += fmt::format("metrics.jsonl: {} lines; the last of each kind:\n", count);
  for (const auto& [kind, record] : last.items()) {
    result.text += fmt::format("  {}:", engine::printable(kind));
    for (const auto& [key, value] : record.items()) {
      if (!value.is_structured() && key != "kind")
        result.text += fmt::format(" {} {}", engine::printable(key), readable(value));
    }
    result.text += '\n';
  }
  result.json["last"] = std::move(last);
}

Inspection inspect_run(const std::filesystem::path& path) {
  const std::filesystem::path config_path = path / "config.json";
  if (!engine::is_there(config_path)) {
    throw DataError(
        "{}: is a folder without config.json, so no run folder; a feature tree is looked at by pack",
        path.string());
  }
  Inspection result;
  result.json = {{"kind", "run folder"}, {"path", path.string()}};
  result.json["config"] =
      engine::parse_json(engine::read_text_file(config_path, kMaxConfigBytes), config_path.string());
  result.text =
      fmt::format("{}: run folder\n{}\n", path.string(), engine::json_text(result.json["config"], 2));
  if (const std::filesystem::path metrics = engine::RunFolder::metrics_path(path); engine::is_there(metrics))
    add_metrics(metrics, result);
  const engine::FoundResumeState found = engine::find_resume_state(path / "checkpoints");
  for (const std::string& message : found.messages) result.text += fmt::format("{}\n", message);
  result.json["damaged_states"] = found.messages;
  result.json["resume_state"] = nullptr;
  if (found.state) {
    result.json["resume_state"] = {{"path", found.state->path.string()}, {"header", found.state->header}};
    result.text += fmt::format("newest resume state: {}, verified\n", found.state->path.string());
  }
  return result;
}

Inspection inspect_path(const std::filesystem::path& path, bool verify, int num_workers,
                        const std::string& weights) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status))
    throw IoError("{}: {}", path.string(), error ? error.message() : "no such file or folder");
  if (std::filesystem::is_directory(status)) return inspect_run(path);
  const engine::FileKind kind = engine::file_kind(path);
  switch (kind) {
    case engine::FileKind::kHdf5:
      return inspect_dataset(path, verify, num_workers);
    case engine::FileKind::kTorch:
    case engine::FileKind::kLegacyTorch:
      return inspect_pt(path, verify, weights);
    case engine::FileKind::kResumeState:
      return inspect_resume_state(path);
    case engine::FileKind::kSafetensors:
      return inspect_safetensors(path, verify);
    case engine::FileKind::kNpz:
      return inspect_npz(path, verify);
    case engine::FileKind::kUnknown:
      break;
    default:
      throw DataError("{}: is {}, where a .h5, .pt, .safetensors, .npz or run folder was expected{}{}",
                      path.string(), engine::describe(kind),
                      engine::what_to_do_with(kind).empty() ? "" : "; ", engine::what_to_do_with(kind));
  }
  // For a truncated or damaged checkpoint, inspect_pt() says what is wrong.
  if (path.extension() == ".h5") return inspect_dataset(path, verify, num_workers);
  return inspect_pt(path, verify, weights);
}

void export_weights(const std::filesystem::path& from, const std::filesystem::path& to,
                    const std::string& key, bool overwrite) {
  if (to.extension() != ".safetensors")
    throw engine::UsageError("--export {}: the name of a .safetensors is expected", to.string());
  const InputFile input{"FILE", from};
  check_output({"--export", to, OutputKind::kWeights}, {&input, 1},
               overwrite ? Existing::kReplace : Existing::kAskFor);
  const engine::LoadedCheckpoint checkpoint = engine::read_training_checkpoint(from);
  const NetworkWeights weights = find_weights(from.string(), checkpoint, key);
  engine::check_finite(from.string(), weights.tensors);
  engine::write_weights(to, weights.tensors, checkpoint.config, checkpoint.engine);
}

}  // namespace

void inspect(CommandLine command_line) {
  std::string path;
  bool verify = false;
  int num_workers = 2;
  std::string export_to;
  bool overwrite = false;
  std::string weights;
  bool json = false;
  OptionSet set("inspect",
                "Says what is in a packed dataset (.h5), a checkpoint (.pt, .safetensors), a resume state, a "
                "NumPy archive (.npz) or a run folder.");
  set.add(path, {.name = "FILE", .help = "a file or a run folder", .positional = true});
  set.add(verify, {"verify", "", "check every checksum; exit 65 where one does not hold"});
  set.add(num_workers, {"num_workers", "N", "threads that check a dataset", kThreadCount});
  set.add(export_to, {"export", "F.safetensors",
                      "write the weights of a checkpoint, or of a run's best, in that form as well"});
  set.add(weights, {"weights", "KEY", "which to export, where the file holds several"});
  set.add(overwrite, {"overwrite", "", "replace weights that --export names"});
  set.add(json, kJsonRow);
  if (!set.parse(command_line)) return;
  set.require(path);
  if (set.given(export_to)) set.require(export_to);
  if (!weights.empty() && export_to.empty())
    throw engine::UsageError("--weights {}: chooses what --export writes, which is not given", weights);
  if (overwrite && export_to.empty())
    throw engine::UsageError("--overwrite: replaces what --export names, which is not given");
  if (!export_to.empty()) export_weights(checkpoint_path(path), export_to, weights, overwrite);
  const Inspection result = inspect_path(path, verify, std::max(num_workers, 1), weights);
  if (json) return print_json(result.json);
  print_text(result.text);
}

}  // namespace voca::tools
