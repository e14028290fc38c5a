#pragma once

// The golden files of the model (tests/golden/model/README.md): what PyTorch computed from weights and inputs
// that both sides generate. Loading throws std::runtime_error naming the file and what is wrong with it.

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace voca::model::golden {

/// One tensor of a .safetensors file; integers are exact in double.
struct Array {
  std::vector<std::int64_t> shape;
  std::vector<double> values;  ///< row-major
};

/// How a parameter is filled: generate(name, seed, elements, center, scale).
struct Parameter {
  std::string name;                 ///< as in the state dict
  std::vector<std::int64_t> shape;  ///< PyTorch's, (out, in) for a weight
  double center = 0.0;
  double scale = 0.0;

  [[nodiscard]] std::int64_t elements() const;
};

/// The options the network and its loss were built with, by their command-line names. Dropout is 0.
struct Config {
  std::int64_t visual_dim = 0;
  std::int64_t audio_dim = 0;
  std::int64_t hidden = 0;
  std::int64_t num_layers = 0;
  std::int64_t num_heads = 0;
  std::int64_t seq_len = 0;         ///< every sample has this many frames
  std::string cross_attention;      ///< "a2v" or "bidirectional"
  std::string positional_encoding;  ///< "none", "sinusoidal" or "learned"
  std::int64_t num_classes = 1;
  bool use_contrastive = false;
  double contrastive_weight = 0.0;
  double label_smoothing = 0.0;
  double pos_weight = 1.0;
};

/// The optimiser's options of a run.
struct Recipe {
  std::string schedule;  ///< "epoch" or "step"
  std::int64_t epochs = 0;
  std::int64_t steps_per_epoch = 0;
  std::int64_t warmup_epochs = 0;
  double lr = 0.0;
  double weight_decay = 0.0;
  double max_grad_norm = 0.0;
};

/// A golden file: a case (one forward and backward pass) or a run (20 steps of training).
class Golden {
 public:
  explicit Golden(const std::filesystem::path& file);

  std::string name;
  std::uint32_t seed = 0;
  std::int64_t batch = 0;
  Config config;
  Recipe recipe;                      ///< of a run; empty in a case
  std::vector<Parameter> parameters;  ///< in registration order

  [[nodiscard]] bool has(const std::string& tensor) const { return arrays_.contains(tensor); }
  /// A stored tensor; the names are in the README.
  [[nodiscard]] const Array& at(const std::string& tensor) const;

  /// The generated weights of one parameter, row-major.
  [[nodiscard]] std::vector<float> weights(const Parameter& parameter) const;
  /// The generated inputs: (batch, seq_len, visual_dim) and (batch, seq_len, audio_dim).
  [[nodiscard]] std::vector<float> visual() const;
  [[nodiscard]] std::vector<float> audio() const;
  /// (batch): 1 real, 0 fake, or the class index.
  [[nodiscard]] std::vector<std::int32_t> labels() const;

 private:
  std::string file_;
  double input_scale_ = 0.0;
  std::map<std::string, Array> arrays_;
};

/// The paths of all cases and of all runs, sorted by name. Never empty: throws when the folder is.
[[nodiscard]] std::vector<std::filesystem::path> case_files();
[[nodiscard]] std::vector<std::filesystem::path> run_files();

/// `count` floats in [center − scale, center + scale), a function of (name, seed, index) alone; the same bits
/// as make_goldens.py's generate().
[[nodiscard]] std::vector<float> generate(std::string_view name, std::uint32_t seed, std::int64_t count,
                                          double center, double scale);

/// Which elements of a tensor of `count` elements a stored sample of `samples` holds: all of them in order
/// where count == samples, else (i · 10007) mod count.
[[nodiscard]] std::vector<std::int64_t> sample_indices(std::int64_t count, std::int64_t samples);

/// The elements of `values` that a stored sample of `samples` holds.
template <typename T>
[[nodiscard]] std::vector<double> sampled(std::span<const T> values, std::size_t samples) {
  std::vector<double> result;
  result.reserve(samples);
  for (const std::int64_t index :
       sample_indices(static_cast<std::int64_t>(values.size()), static_cast<std::int64_t>(samples)))
    result.push_back(static_cast<double>(values[static_cast<std::size_t>(index)]));
  return result;
}

/// One line of initialisation.json: what PyTorch draws for a parameter of the default network.
struct Initialisation {
  std::string cross_attention;  ///< of the network it belongs to
  std::string name;
  std::vector<std::int64_t> shape;
  bool uniform = false;  ///< uniform in [−bound, bound), or the constant `value`
  double bound = 0.0;
  double value = 0.0;
  double min = 0.0;  ///< of one draw, as are mean and std
  double max = 0.0;
  double mean = 0.0;
  double std = 0.0;
};

/// Both attention forms at H 768, L 4, N 8; of the encoder, layer 0 stands for all (they start equal).
[[nodiscard]] std::vector<Initialisation> initialisation();

}  // namespace voca::model::golden
