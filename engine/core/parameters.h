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

/// Initial distribution of a parameter (covers torch.nn's rules).
struct Initializer {
  enum class Kind : std::uint8_t { kConstant, kUniform, kNormal };
  Kind kind = Kind::kConstant;
  double value = 0;  ///< the constant; the bound b of uniform(−b, b); the standard deviation of normal(0, σ)
};

/// One parameter of a model. The order of registration is the order of the state dict and of optimiser
/// states.
struct ParameterSpec {
  std::string name;  ///< its state_dict name
  Shape shape;
  Initializer initializer;
  /// Parameters of one initialisation group start from the same random numbers; −1: own random numbers.
  int same_start_as = -1;  ///< index of an earlier parameter
  /// Position in the order in which backward completes the gradients, which is the layout of the flat
  /// buffers.
  int backward_rank = 0;
};

/// Index of a parameter in the order of registration.
using ParameterId = int;

/// Flat buffers in the order in which backward completes the gradients: weights in the compute type,
/// gradients, their fp32 sums if separate, fp32 master weights (absent if the compute type is the masters'
/// type: the weights are the masters), and AdamW's two moments. Parameters start at 64-byte boundaries; the
/// padding is zero and stays zero. On kMeta no memory is allocated.
class ParameterStore {
 public:
  /// `training` false allocates only the weights. `device` null computes the layout without memory.
  /// `wide_sums` makes gradient_sums() a separate buffer if the compute type has 16 bits.
  ParameterStore(std::vector<ParameterSpec> specs, DType compute_type, bool training, Device* device,
                 bool wide_sums = false);

  [[nodiscard]] const std::vector<ParameterSpec>& specs() const { return specs_; }
  [[nodiscard]] int count() const { return static_cast<int>(specs_.size()); }
  /// The parameters in the order in which backward completes their gradients.
  [[nodiscard]] std::vector<ParameterId> in_backward_order() const;
  /// Number of parameter elements, without padding.
  [[nodiscard]] std::int64_t parameters() const;

  [[nodiscard]] Tensor weight(ParameterId id) const { return slice(weights_, id); }
  [[nodiscard]] Tensor gradient(ParameterId id) const { return slice(gradients_, id); }
  [[nodiscard]] Tensor master(ParameterId id) const { return slice(masters(), id); }
  [[nodiscard]] Tensor exp_avg(ParameterId id) const { return slice(exp_avg_, id); }
  [[nodiscard]] Tensor exp_avg_sq(ParameterId id) const { return slice(exp_avg_sq_, id); }

  /// End of `id` in a flat buffer, in elements, including padding: all parameters that backward completes no
  /// later lie before this offset.
  [[nodiscard]] std::int64_t flat_end(ParameterId id) const;

  /// The whole buffers, (elements with padding).
  [[nodiscard]] const Tensor& weights() const { return weights_; }
  [[nodiscard]] const Tensor& gradients() const { return gradients_; }
  /// Sum of gradients over a step's batches and ranks; gradients() if not separate.
  [[nodiscard]] const Tensor& gradient_sums() const { return gradient_sums_ ? gradient_sums_ : gradients_; }
  [[nodiscard]] bool sums_apart() const { return static_cast<bool>(gradient_sums_); }
  [[nodiscard]] const Tensor& masters() const { return masters_ ? masters_ : weights_; }
  [[nodiscard]] const Tensor& exp_avgs() const { return exp_avg_; }
  [[nodiscard]] const Tensor& exp_avg_sqs() const { return exp_avg_sq_; }

  [[nodiscard]] DType compute_type() const { return compute_type_; }
  [[nodiscard]] bool training() const { return training_; }
  /// Its buffers by name, allocated or, without a device, planned.
  [[nodiscard]] const std::vector<MemoryLine>& lines() const { return lines_; }

  /// The weights of `count` parameters from `first` on as a store of their own, to predict with. This store
  /// must outlive it.
  [[nodiscard]] ParameterStore part(ParameterId first, int count) const;

  /// View of one parameter in a flat buffer with this store's layout.
  [[nodiscard]] Tensor slice(const Tensor& flat, ParameterId id) const;

  /// Initialises every parameter by its rule, each from the random stream (seed, its index).
  void initialise(std::uint64_t seed);
  /// Overwrites every parameter. `fill` writes the values to host tensors in registration order, with the
  /// parameters' shapes and the masters' type; separate masters are overwritten, and the weights are rounded
  /// to nearest even. If `fill` throws, a GPU's parameters are unchanged.
  void assign(const std::function<void(std::vector<Tensor>& values)>& fill);

  /// The device of its memory; throws InternalError if it was constructed without one.
  [[nodiscard]] Device& device() const;

 private:
  ParameterStore(const ParameterStore& whole, ParameterId first, int count);
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

/// Master weights and moments of a training store in host-accessible memory: the store's own memory on the
/// CPU, copies otherwise. The store must outlive it.
class HostParameters {
 public:
  explicit HostParameters(const ParameterStore& store);

  [[nodiscard]] const std::vector<ParameterSpec>& specs() const { return store_.specs(); }
  [[nodiscard]] int count() const { return store_.count(); }
  [[nodiscard]] Tensor master(ParameterId id) const { return store_.slice(masters_.tensor(), id); }
  [[nodiscard]] Tensor exp_avg(ParameterId id) const { return store_.slice(exp_avg_.tensor(), id); }
  [[nodiscard]] Tensor exp_avg_sq(ParameterId id) const { return store_.slice(exp_avg_sq_.tensor(), id); }
  /// Writes masters and moments back to `store`, which must be the one it was constructed from; the weights
  /// are recomputed from the masters.
  void write_back(ParameterStore& store) const;

 private:
  const ParameterStore& store_;
  HostTensor masters_;
  HostTensor exp_avg_;
  HostTensor exp_avg_sq_;
};

}  // namespace voca::engine
