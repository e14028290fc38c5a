#include "engine/trainer/gradient_sums.h"

#include "engine/ops/ops.h"

namespace voca::engine {

void GradientSums::start_batch(bool first, GradientListener* next) {
  first_ = first;
  next_ = next;
  added_ = 0;
  Context context = workspace_.context();
  ops::fill(context, 0.0, workspace_.parameters().gradients());
}

void GradientSums::final_until(std::int64_t elements) {
  VOCA_CHECK(elements >= added_);
  const std::int64_t count = elements - added_;
  if (count > 0) {
    Context context = workspace_.context();
    const ParameterStore& parameters = workspace_.parameters();
    ops::wide_sum(context, parameters.gradients().rows(added_, count), !first_,
                  parameters.gradient_sums().rows(added_, count));
    added_ = elements;
  }
  if (next_ != nullptr) next_->final_until(elements);
}

void GradientSums::finish_batch() {
  if (const std::int64_t all = workspace_.parameters().gradients().elements(); added_ < all) final_until(all);
}

}  // namespace voca::engine
