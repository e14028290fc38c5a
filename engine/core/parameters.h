#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/core/arena.h"
#include "engine/core/device.h"
#include "engine/core/host_tensor.h"
#include "engine/core/tensor.h"

namespace voca::engine {

/// How a parameter starts (torch.nn's rules come down to these).
struct Initializer {
  enum class Kind : std::uint8_t { kConstant, kUniform, kNormal };
  Kind kind = Kind::kConstant;
  double value = 0;  ///< the constant; the bound b of uniform(−b, b); the standard deviation of normal(0, σ)
};

/// One parameter of a model, in the order the module registers it: the order of the state dict and of
/// optimiser states.
struct ParameterSpec {
  std::string name;  ///< its state_dict name
  Shape shape;
  Initializer initializer;
  /// Parameters of one initialisation group start from the same numbers; −1: from numbers of its own.
  int same_start_as = -1;  ///< index of an earlier parameter
  /// Rank in the order in which backward finishes the gradients; flat buffers are laid out by it.
  int backward_rank = 0;
};

/// Index of a parameter in the order of registration.
using ParameterId = int;

/// Flat buffers in one order, the order in which backward finishes the gradients: weights in the compute
/// type, gradients, their fp32 sums where those are kept apart, fp32 masters (absent where the compute type
/// is that of the masters: the weights are the masters), and AdamW's two moments. Parameters begin on 64-byte
/// boundaries; the gaps are zero and stay zero. On kMeta nothing is held.
class ParameterStore {
 public:
  /// `training` false holds the weights alone. `device` null lays it out without memory. `wide_sums` keeps
  /// gradient_sums() apart where the compute type has 16 bits.
  ParameterStore(std::vector<ParameterSpec> specs, DType compute_type, bool training, Device* device,
                 bool wide_sums = false);

  [[nodiscard]] const std::vector<ParameterSpec>& specs() const { return specs_; }
  [[nodiscard]] int count() const { return static_cast<int>(specs_.size()); }
  /// Sum of the parameters' elements, without gaps.
  [[nodiscard]] std::int64_t parameters() const;

  [[nodiscard]] Tensor weight(ParameterId id) const { return slice(weights_, id); }
  [[nodiscard]] Tensor gradient(ParameterId id) const { return slice(gradients_, id); }
  [[nodiscard]] Tensor master(ParameterId id) const { return slice(masters(), id); }
  [[nodiscard]] Tensor exp_avg(ParameterId id) const { return slice(exp_avg_, id); }
  [[nodiscard]] Tensor exp_avg_sq(ParameterId id) const { return slice(exp_avg_sq_, id); }

  /// Where `id` ends in a flat buffer, in elements, the gap behind it included: what comes before it in the
  /// order of backward lies in front.
  [[nodiscard]] std::int64_t flat_end(ParameterId id) const;

  /// The whole buffers, (elements with gaps).
  [[nodiscard]] const Tensor& weights() const { return weights_; }
  [[nodiscard]] const Tensor& gradients() const { return gradients_; }
  /// What the gradients of a step's batches and ranks are added up in; gradients() where that is not apart.
  [[nodiscard]] const Tensor& gradient_sums() const { return gradient_sums_ ? gradient_sums_ : gradients_; }
  [[nodiscard]] bool sums_apart() const { return static_cast<bool>(gradient_sums_); }
  [[nodiscard]] const Tensor& masters() const { return masters_ ? masters_ : weights_; }
  [[nodiscard]] const Tensor& exp_avgs() const { return exp_avg_; }
  [[nodiscard]] const Tensor& exp_avg_sqs() const { return exp_avg_sq_; }

  [[nodiscard]] DType compute_type() const { return compute_type_; }
  [[nodiscard]] bool training() const { return training_; }
  /// What it holds, or would hold, by name.
  [[nodiscard]] const std::vector<MemoryLine>& lines() const { return lines_; }

  /// A parameter's part of a flat buffer that is laid out like this store's.
  [[nodiscard]] Tensor slice(const Tensor& flat, ParameterId id) const;

  /// Starts every parameter by its rule, each from random numbers of (seed, its index).
  void initialise(std::uint64_t seed);
  /// Gives every parameter a new value. `fill` writes them to host tensors in order of registration, of the
  /// parameters' shapes and the masters' type; masters, where they are apart, and weights follow, rounded to
  /// nearest even. What it throws leaves a GPU's parameters as they were.
  void assign(const std::function<void(const std::vector<Tensor>& values)>& fill);

  /// The device it lies on; it must lie on one.
  [[nodiscard]] Device& device() const;

 private:
  [[nodiscard]] Tensor make_buffer(const char* name, DType dtype, Device* device);

  Device* device_;
  std::vector<ParameterSpec> specs_;
  std::vector<std::int64_t> offsets_;  // elements, by id
  std::int64_t flat_elements_ = 0;
  DType compute_type_;
  bool training_;
  std::vector<MemoryLine> lines_;
  std::vector<Device::Block> blocks_;
  Tensor weights_;
  Tensor gradients_;
  Tensor gradient_sums_;
  Tensor masters_;
  Tensor exp_avg_;
  Tensor exp_avg_sq_;
};

/// Masters and moments of a training's store where the host can read and write them: the store's own memory
/// on the CPU, copies elsewhere. The store outlives it.
class HostParameters {
 public:
  explicit HostParameters(const ParameterStore& store);

  [[nodiscard]] const std::vector<ParameterSpec>& specs() const { return store_.specs(); }
  [[nodiscard]] int count() const { return store_.count(); }
  [[nodiscard]] Tensor master(ParameterId id) const { return store_.slice(masters_.tensor(), id); }
  [[nodiscard]] Tensor exp_avg(ParameterId id) const { return store_.slice(exp_avg_.tensor(), id); }
  [[nodiscard]] Tensor exp_avg_sq(ParameterId id) const { return store_.slice(exp_avg_sq_.tensor(), id); }
  /// Makes `store`, the one it was made of, the same again; its weights follow the masters.
  void write_back(ParameterStore& store) const;

 private:
  const ParameterStore& store_;
  HostTensor masters_;
  HostTensor exp_avg_;
  HostTensor exp_avg_sq_;
};

}  // namespace voca::engine
