#pragma once

#include <vector>

#include "engine/core/model.h"
#include "engine/core/predictions.h"

namespace voca::engine {

/// Models that predict on the same batches, so that one pass over the data serves them all. Its parameters
/// and outputs are those of the first member, then those of the second, …, with the names that they have
/// there. It cannot be trained.
class Ensemble final : public Model {
 public:
  /// At least one model; all take the same batches, outlive the ensemble and have no more outputs together
  /// than fit a TensorList. Throws InternalError otherwise.
  explicit Ensemble(std::vector<const Model*> members);

  [[nodiscard]] const std::vector<ParameterSpec>& parameters() const override { return parameters_; }
  [[nodiscard]] const ModelSignature& signature() const override { return signature_; }
  /// Throws InternalError.
  void forward_backward(Context& context, const ParameterStore& parameters, const Batch& batch,
                        const StepRandom& random, const GradientScale& gradient_scale,
                        const TensorList& outputs, const Tensor& losses) const override;
  /// `row_losses` are those of the first member.
  void predict(Context& context, const ParameterStore& parameters, const Batch& batch,
               const TensorList& outputs, const Tensor& row_losses) const override;

  /// The predictions of each member, from those of the ensemble.
  [[nodiscard]] std::vector<Predictions> of_members(const Predictions& all) const;

 private:
  std::vector<const Model*> members_;
  std::vector<ParameterSpec> parameters_;
  ModelSignature signature_;
};

}  // namespace voca::engine
