#include "tests/model/support/golden.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace voca::model::golden {
namespace {

using nlohmann::json;

constexpr std::int64_t kSampleStep = 10007;

const std::filesystem::path& folder() {
  static const std::filesystem::path path = std::filesystem::path(VOCA_GOLDEN_DIR) / "model";
  return path;
}

std::string read_file(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in)
    throw std::runtime_error(file.string() + ": cannot be read; run tests/golden/model/make_goldens.py");
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

template <typename T>
void append(std::vector<double>& values, std::string_view bytes) {
  static_assert(std::endian::native == std::endian::little);
  for (std::size_t at = 0; at < bytes.size(); at += sizeof(T)) {
    T element{};
    std::memcpy(&element, bytes.data() + at, sizeof(T));
    values.push_back(static_cast<double>(element));
  }
}

std::size_t element_size(const std::string& dtype) {
  if (dtype == "F64" || dtype == "I64") return 8;
  if (dtype == "F32" || dtype == "I32") return 4;
  throw std::runtime_error("dtype " + dtype + " is not one the golden files use");
}

Array read_array(const json& entry, std::string_view data) {
  Array array;
  array.shape = entry.at("shape").get<std::vector<std::int64_t>>();
  const auto dtype = entry.at("dtype").get<std::string>();
  const auto [begin, end] = entry.at("data_offsets").get<std::pair<std::size_t, std::size_t>>();
  std::size_t bytes = element_size(dtype);
  for (const std::int64_t extent : array.shape) bytes *= static_cast<std::size_t>(extent);
  if (begin > end || end > data.size() || end - begin != bytes)
    throw std::runtime_error("a tensor's offsets do not fit its shape or the file");
  const std::string_view stored = data.substr(begin, end - begin);
  if (dtype == "F64") append<double>(array.values, stored);
  if (dtype == "F32") append<float>(array.values, stored);
  if (dtype == "I64") append<std::int64_t>(array.values, stored);
  if (dtype == "I32") append<std::int32_t>(array.values, stored);
  return array;
}

Config read_config(const json& from) {
  Config config;
  from.at("visual_dim").get_to(config.visual_dim);
  from.at("audio_dim").get_to(config.audio_dim);
  from.at("hidden").get_to(config.hidden);
  from.at("num_layers").get_to(config.num_layers);
  from.at("num_heads").get_to(config.num_heads);
  from.at("seq_len").get_to(config.seq_len);
  from.at("cross_attention").get_to(config.cross_attention);
  from.at("positional_encoding").get_to(config.positional_encoding);
  from.at("num_classes").get_to(config.num_classes);
  from.at("use_contrastive").get_to(config.use_contrastive);
  from.at("contrastive_weight").get_to(config.contrastive_weight);
  from.at("label_smoothing").get_to(config.label_smoothing);
  from.at("pos_weight").get_to(config.pos_weight);
  if (from.at("dropout").get<double>() != 0.0) throw std::runtime_error("dropout is not 0");
  return config;
}

Recipe read_recipe(const json& from) {
  Recipe recipe;
  from.at("schedule").get_to(recipe.schedule);
  from.at("epochs").get_to(recipe.epochs);
  from.at("steps_per_epoch").get_to(recipe.steps_per_epoch);
  from.at("warmup_epochs").get_to(recipe.warmup_epochs);
  from.at("lr").get_to(recipe.lr);
  from.at("weight_decay").get_to(recipe.weight_decay);
  from.at("max_grad_norm").get_to(recipe.max_grad_norm);
  return recipe;
}

std::vector<std::filesystem::path> files_in(const char* name) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder() / name)) {
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  }
  if (files.empty()) throw std::runtime_error((folder() / name).string() + ": holds no golden files");
  std::sort(files.begin(), files.end());
  return files;
}

// The finaliser "lowbias32" of Chris Wellons' hash-prospector.
std::uint32_t mix(std::uint32_t x) {
  x ^= x >> 16;
  x *= 0x7FEB352DU;
  x ^= x >> 15;
  x *= 0x846CA68BU;
  return x ^ (x >> 16);
}

std::uint32_t fnv1a(std::string_view text, std::uint32_t seed) {
  std::uint32_t hash = 0x811C9DC5U ^ seed;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x01000193U;
  return hash;
}

}  // namespace

std::int64_t Parameter::elements() const {
  std::int64_t product = 1;
  for (const std::int64_t extent : shape) product *= extent;
  return product;
}

Golden::Golden(const std::filesystem::path& file) : file_(file.string()) {
  const std::string bytes = read_file(file);
  try {
    std::uint64_t header_size = 0;
    if (bytes.size() < sizeof(header_size)) throw std::runtime_error("is too short");
    std::memcpy(&header_size, bytes.data(), sizeof(header_size));
    if (header_size > bytes.size() - sizeof(header_size)) throw std::runtime_error("is cut short");
    const std::string_view rest = std::string_view(bytes).substr(sizeof(header_size));
    const json header = json::parse(rest.substr(0, header_size));
    for (const auto& [key, entry] : header.items())
      if (key != "__metadata__") arrays_.emplace(key, read_array(entry, rest.substr(header_size)));

    const json about = json::parse(header.at("__metadata__").at("golden").get<std::string>());
    about.at("name").get_to(name);
    about.at("seed").get_to(seed);
    about.at("batch").get_to(batch);
    about.at("input_scale").get_to(input_scale_);
    config = read_config(about.at("config"));
    if (about.at("kind") == "run") recipe = read_recipe(about.at("recipe"));
    for (const json& from : about.at("parameters")) {
      parameters.push_back({.name = from.at("name"),
                            .shape = from.at("shape"),
                            .center = from.at("center"),
                            .scale = from.at("scale")});
    }
  } catch (const std::exception& error) {
    throw std::runtime_error(file_ + ": " + error.what());
  }
}

const Array& Golden::at(const std::string& tensor) const {
  const auto found = arrays_.find(tensor);
  if (found == arrays_.end()) throw std::runtime_error(file_ + ": holds no tensor " + tensor);
  return found->second;
}

std::vector<float> Golden::weights(const Parameter& parameter) const {
  return generate(parameter.name, seed, parameter.elements(), parameter.center, parameter.scale);
}

std::vector<float> Golden::visual() const {
  return generate("visual", seed, batch * config.seq_len * config.visual_dim, 0.0, input_scale_);
}

std::vector<float> Golden::audio() const {
  return generate("audio", seed, batch * config.seq_len * config.audio_dim, 0.0, input_scale_);
}

std::vector<std::int32_t> Golden::labels() const {
  std::vector<std::int32_t> result;
  for (const double label : at("labels").values) result.push_back(static_cast<std::int32_t>(label));
  return result;
}

std::vector<std::filesystem::path> case_files() {
  return files_in("cases");
}

std::vector<std::filesystem::path> run_files() {
  return files_in("runs");
}

std::vector<float> generate(std::string_view name, std::uint32_t seed, std::int64_t count, double center,
                            double scale) {
  const std::uint32_t key = fnv1a(name, seed);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint32_t hash = mix(mix(static_cast<std::uint32_t>(i)) ^ key);
    const auto k = static_cast<std::int32_t>(hash >> 8) - (1 << 23);
    // `scale` has 24 significant bits: the product is exact, fused or not.
    values[i] = static_cast<float>(center + static_cast<double>(k) * (scale / 8388608.0));
  }
  return values;
}

std::vector<std::int64_t> sample_indices(std::int64_t count, std::int64_t samples) {
  if (samples > count) throw std::runtime_error("a sample holds more elements than its tensor");
  std::vector<std::int64_t> indices(static_cast<std::size_t>(samples));
  for (std::size_t i = 0; i < indices.size(); ++i) {
    const auto position = static_cast<std::int64_t>(i);
    indices[i] = samples == count ? position : position * kSampleStep % count;
  }
  return indices;
}

std::vector<Initialisation> initialisation() {
  const std::filesystem::path file = folder() / "initialisation.json";
  const json all = json::parse(read_file(file));
  std::vector<Initialisation> result;
  for (const json& network : all.at("networks")) {
    for (const json& from : network.at("parameters")) {
      Initialisation row;
      network.at("config").at("cross_attention").get_to(row.cross_attention);
      from.at("name").get_to(row.name);
      from.at("shape").get_to(row.shape);
      row.uniform = from.at("family") == "uniform";
      if (row.uniform) {
        from.at("bound").get_to(row.bound);
        from.at("min").get_to(row.min);
        from.at("max").get_to(row.max);
        from.at("mean").get_to(row.mean);
        from.at("std").get_to(row.std);
      } else {
        from.at("value").get_to(row.value);
      }
      result.push_back(row);
    }
  }
  return result;
}

}  // namespace voca::model::golden
