#include "engine/core/parameters.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "engine/base/random.h"
#include "kernels/cpu/half.h"

namespace voca::engine {
namespace {

constexpr std::int64_t kAlignmentBytes = 64;

template <typename T>
void fill_parameter(const ParameterSpec& spec, std::uint64_t seed, int index, T* out, std::int64_t elements) {
  RandomStream random(seed, RandomPurpose::kInitialisation, static_cast<std::uint64_t>(index));
  for (std::int64_t i = 0; i < elements; ++i) {
    double value = spec.initializer.value;
    if (spec.initializer.kind == Initializer::Kind::kUniform) value *= 2 * random.uniform() - 1;
    if (spec.initializer.kind == Initializer::Kind::kNormal) value *= random.normal();
    out[i] = static_cast<T>(value);
  }
}

}  // namespace

ParameterStore::ParameterStore(std::vector<ParameterSpec> specs, DType compute_type, bool training,
                               Device* device, bool wide_sums)
    : device_(device),
      specs_(std::move(specs)),
      offsets_(specs_.size()),
      compute_type_(compute_type),
      training_(training) {
  for (const ParameterId id : in_backward_order()) {
    offsets_[static_cast<std::size_t>(id)] = flat_elements_;
    flat_elements_ = flat_end(id);
  }
  const DType statistics = statistics_type(compute_type);
  weights_ = make_buffer("weights", compute_type, device);
  if (!training) return;
  gradients_ = make_buffer("gradients", compute_type, device);
  if (wide_sums && compute_type != statistics)
    gradient_sums_ = make_buffer("gradient sums", statistics, device);
  if (compute_type != statistics) masters_ = make_buffer("master weights", statistics, device);
  exp_avg_ = make_buffer("first moments", statistics, device);
  exp_avg_sq_ = make_buffer("second moments", statistics, device);
}

ParameterStore::ParameterStore(const ParameterStore& whole, ParameterId first, int count)
    : device_(whole.device_),
      specs_(whole.specs_.begin() + first, whole.specs_.begin() + first + count),
      offsets_(whole.offsets_.begin() + first, whole.offsets_.begin() + first + count),
      flat_elements_(whole.flat_elements_),
      compute_type_(whole.compute_type_),
      training_(false),
      weights_(whole.weights_) {}

ParameterStore ParameterStore::part(ParameterId first, int count) const {
  VOCA_CHECK(first >= 0 && count >= 0 && first + count <= this->count());
  return {*this, first, count};
}

std::vector<ParameterId> ParameterStore::in_backward_order() const {
  std::vector<ParameterId> order(specs_.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](ParameterId a, ParameterId b) {
    return specs_[static_cast<std::size_t>(a)].backward_rank <
           specs_[static_cast<std::size_t>(b)].backward_rank;
  });
  return order;
}

std::int64_t ParameterStore::flat_end(ParameterId id) const {
  const auto index = static_cast<std::size_t>(id);
  VOCA_CHECK(index < specs_.size());
  const std::int64_t alignment = kAlignmentBytes / static_cast<std::int64_t>(size_of(compute_type_));
  return offsets_[index] + (specs_[index].shape.elements() + alignment - 1) / alignment * alignment;
}

std::int64_t ParameterStore::parameters() const {
  std::int64_t sum = 0;
  for (const ParameterSpec& spec : specs_) sum += spec.shape.elements();
  return sum;
}

Tensor ParameterStore::make_buffer(const char* name, DType dtype, Device* device) {
  Tensor tensor{
      .data = nullptr, .shape = {flat_elements_}, .dtype = dtype, .device = DeviceKind::kMeta, .name = name};
  lines_.push_back({name, tensor.bytes()});
  if (device == nullptr) return tensor;
  blocks_.push_back(device->allocate(name, tensor.bytes()));
  tensor.data = blocks_.back().data();
  tensor.device = device->kind();
  return tensor;
}

Tensor ParameterStore::slice(const Tensor& flat, ParameterId id) const {
  const auto index = static_cast<std::size_t>(id);
  VOCA_CHECK(index < specs_.size() && flat);
  Tensor tensor = flat;
  tensor.shape = specs_[index].shape;
  tensor.name = specs_[index].name.c_str();
  if (flat.data != nullptr) {
    tensor.data =
        static_cast<std::byte*>(flat.data) + static_cast<std::size_t>(offsets_[index]) * size_of(flat.dtype);
  }
  return tensor;
}

void ParameterStore::initialise(std::uint64_t seed) {
  assign([&](std::vector<Tensor>& values) {
    for (int id = 0; id < count(); ++id) {
      const ParameterSpec& spec = specs_[static_cast<std::size_t>(id)];
      const int source = spec.same_start_as >= 0 ? spec.same_start_as : id;
      Tensor& target = values[static_cast<std::size_t>(id)];
      if (target.dtype == DType::kF64) {
        fill_parameter(spec, seed, source, target.as<double>(), target.elements());
      } else {
        fill_parameter(spec, seed, source, target.as<float>(), target.elements());
      }
    }
  });
}

void ParameterStore::assign(const std::function<void(std::vector<Tensor>& values)>& fill) {
  const bool in_place = device().kind() == DeviceKind::kCpu && masters().data == weights_.data;
  const DType type = statistics_type(compute_type_);
  Tensor flat{.shape = weights_.shape, .dtype = type, .device = DeviceKind::kCpu, .name = "parameter values"};
  std::vector<std::byte> staged(in_place ? 0 : flat.bytes());
  flat.data = in_place ? weights_.data : staged.data();
  std::vector<Tensor> values;
  for (int id = 0; id < count(); ++id) values.push_back(slice(flat, id));
  fill(values);
  if (in_place) return;
  if (masters().dtype == type) write_to(device(), masters(), 0, flat.data, flat.bytes());
  if (compute_type_ == type) return;
  std::vector<std::uint16_t> rounded(static_cast<std::size_t>(flat_elements_));
  const auto* const from = flat.as<float>();
  for (std::size_t i = 0; i < rounded.size(); ++i) {
    rounded[i] = compute_type_ == DType::kBF16 ? kernels::cpu::float_to_bfloat16(from[i])
                                               : kernels::cpu::float_to_half(from[i]);
  }
  write_to(device(), weights_, 0, rounded.data(), weights_.bytes());
}

Device& ParameterStore::device() const {
  VOCA_CHECK(device_ != nullptr);
  return *device_;
}

HostParameters::HostParameters(const ParameterStore& store)
    : store_(store),
      masters_(store.device(), store.masters()),
      exp_avg_(store.device(), store.exp_avgs()),
      exp_avg_sq_(store.device(), store.exp_avg_sqs()) {}

void HostParameters::write_back(ParameterStore& store) const {
  VOCA_CHECK(&store == &store_);
  store.assign([&](const std::vector<Tensor>& values) {
    for (ParameterId id = 0; id < count(); ++id) {
      const Tensor from = master(id);
      void* const to = values[static_cast<std::size_t>(id)].data;
      if (to != from.data) std::memcpy(to, from.data, from.bytes());
    }
  });
  exp_avg_.write_back();
  exp_avg_sq_.write_back();
}

}  // namespace voca::engine
