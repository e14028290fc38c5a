#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/random.h"
#include "engine/core/batch.h"
#include "engine/core/model.h"

namespace voca::engine::test {

/// Two layers with dropout between them on one input "features" (kFeatures), a detector as
/// model/tasks/detection.h describes it: small enough to train in milliseconds, with all that a run's bits
/// depend on.
class ToyModel : public Model {
 public:
  static constexpr std::int64_t kFeatures = 5;
  static constexpr std::int64_t kHidden = 7;

  /// `outputs` 1 for two classes, else classes.
  explicit ToyModel(std::int64_t outputs = 1, double dropout = 0.25);

  [[nodiscard]] const std::vector<ParameterSpec>& parameters() const override { return parameters_; }
  [[nodiscard]] const ModelSignature& signature() const override { return signature_; }
  void forward_backward(Context& context, const ParameterStore& parameters, const Batch& batch,
                        const StepRandom& random, const GradientScale& gradient_scale,
                        const TensorList& outputs, const Tensor& losses) const override;
  void predict(Context& context, const ParameterStore& parameters, const Batch& batch,
               const TensorList& outputs, const Tensor& row_losses) const override;

  /// Called at the end of every forward_backward that computes, to spoil what it computed.
  std::function<void(const ParameterStore&, const StepRandom&, const Tensor& losses)> after_backward;

 private:
  enum : std::uint8_t { kHiddenWeight, kHiddenBias, kOutputWeight, kOutputBias };
  struct Activations {
    Tensor hidden;
    Tensor active;
  };
  Activations forward(Context& context, const ParameterStore& parameters, const Batch& batch,
                      const kernels::Dropout& dropout, const Tensor& logits) const;
  void cross_entropy(Context& context, const Tensor& logits, const Tensor& labels, const GradientScale& grad,
                     const Tensor& loss, const Tensor& row_losses, const Tensor& dlogits) const;

  std::vector<ParameterSpec> parameters_;
  ModelSignature signature_;
  std::int64_t outputs_;
  double dropout_;
};

/// Samples that follow from a seed, in an order that follows from (seed, epoch).
class ToySource : public BatchSource {
 public:
  struct Options {
    std::int64_t samples = 22;
    std::int64_t batch_size = 4;
    std::int64_t classes = 2;
    std::uint64_t seed = 1;
    bool shuffle = true;
    DType compute_type = DType::kF32;
    /// What the label of a sample is, where it is not to follow from the seed.
    std::function<std::int32_t(std::int64_t sample)> label{};
    /// A rank's part: its slice of every batch where the order is shuffled, else every world_size-th batch.
    int rank = 0;
    int world_size = 1;
  };
  explicit ToySource(Options options);

  [[nodiscard]] std::int64_t samples_per_epoch() const override;
  [[nodiscard]] std::int64_t batches_per_epoch() const override;
  [[nodiscard]] std::int64_t max_batch_size() const override { return options_.batch_size; }
  void start_epoch(std::int64_t epoch, std::int64_t first_batch) override;
  const Batch* next() override;
  [[nodiscard]] std::optional<std::int64_t> size_of_batch(std::int64_t batch) const override {
    if (!bad.empty()) return {};
    return part(batch).end - part(batch).begin;
  }
  [[nodiscard]] std::int64_t bad_samples() const override { return static_cast<std::int64_t>(bad.size()); }

  [[nodiscard]] std::int32_t label(std::int64_t sample) const {
    return labels_[static_cast<std::size_t>(sample)];
  }

  /// Samples that it leaves out.
  std::vector<std::int64_t> bad;
  /// Changes the sample at a place of the epoch to another, to break the promise of each sample once.
  std::function<std::int64_t(std::int64_t place, std::int64_t sample)> replace;

 private:
  /// [begin, end) of the order: this rank's part of a batch of the epoch.
  struct Part {
    std::int64_t begin;
    std::int64_t end;
  };
  [[nodiscard]] Part part(std::int64_t batch) const;

  template <typename T>
  void fill(const std::vector<std::int64_t>& samples);

  Options options_;
  std::vector<double> features_;  // (samples, features)
  std::vector<std::int32_t> labels_;
  std::vector<std::int64_t> order_;
  std::int64_t next_ = 0;  // batch
  std::vector<std::int64_t> taken_;
  std::vector<std::byte> input_;
  std::vector<std::int32_t> batch_labels_;
  Batch batch_;
};

}  // namespace voca::engine::test
