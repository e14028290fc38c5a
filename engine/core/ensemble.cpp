#include "engine/core/ensemble.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "engine/base/error.h"

namespace voca::engine {
namespace {

int count_of(const Model& member) {
  return static_cast<int>(member.parameters().size());
}

}  // namespace

Ensemble::Ensemble(std::vector<const Model*> members) : members_(std::move(members)) {
  VOCA_CHECK(!members_.empty());
  signature_.batch = members_.front()->signature().batch;
  signature_.losses = members_.front()->signature().losses;
  for (const Model* member : members_) {
    const ModelSignature& signature = member->signature();
    VOCA_CHECK(signature.batch == signature_.batch);
    std::ranges::copy(member->parameters(), std::back_inserter(parameters_));
    std::ranges::copy(signature.outputs, std::back_inserter(signature_.outputs));
  }
  VOCA_CHECK(signature_.outputs.size() <= TensorList::kCapacity);
}

void Ensemble::forward_backward(Context& /*context*/, const ParameterStore& /*parameters*/,
                                const Batch& /*batch*/, const StepRandom& /*random*/,
                                const GradientScale& /*gradient_scale*/, const TensorList& /*outputs*/,
                                const Tensor& /*losses*/) const {
  throw InternalError("ensemble: its members are trained one by one");
}

void Ensemble::predict(Context& context, const ParameterStore& parameters, const Batch& batch,
                       const TensorList& outputs, const Tensor& row_losses) const {
  ParameterId first = 0;
  std::size_t first_output = 0;
  for (const Model* member : members_) {
    const ArenaScope scope(context.arena);
    TensorList own;
    for (std::size_t i = 0; i < member->signature().outputs.size(); ++i)
      own.push_back(outputs[first_output++]);
    member->predict(context, parameters.part(first, count_of(*member)), batch, own,
                    member == members_.front() ? row_losses : Tensor{});
    first += count_of(*member);
  }
}

std::vector<Predictions> Ensemble::of_members(const Predictions& all) const {
  std::vector<Predictions> each;
  auto output = all.outputs.begin();
  for (const Model* member : members_) {
    const auto end = output + std::ssize(member->signature().outputs);
    each.push_back({.samples = all.samples,
                    .outputs = {output, end},
                    .targets = all.targets,
                    .losses = each.empty() ? all.losses : std::vector<double>{}});
    output = end;
  }
  return each;
}

}  // namespace voca::engine
