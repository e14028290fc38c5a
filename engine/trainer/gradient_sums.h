#pragma once

#include <cstdint>

#include "engine/core/context.h"
#include "engine/trainer/memory_plan.h"

namespace voca::engine {

/// Accumulates the gradients of a step's batches in ParameterStore::gradient_sums(), each part as soon as
/// backward has finished it. Per batch: start_batch(), a backward pass with this as its listener,
/// finish_batch().
class GradientSums final : public GradientListener {
 public:
  /// `workspace` must have separate gradient sums and outlive this object.
  explicit GradientSums(Workspace& workspace) : workspace_(workspace) {}

  /// Zeroes the gradients. The `first` batch of a step overwrites the sums. `next` is notified of final parts
  /// of the sums; null if more batches follow in the step.
  void start_batch(bool first, GradientListener* next);
  void final_until(std::int64_t elements) override;
  /// Adds the gradients that were not reported as final.
  void finish_batch();

 private:
  Workspace& workspace_;
  bool first_ = true;
  GradientListener* next_ = nullptr;
  std::int64_t added_ = 0;  // elements of this batch added so far
};

}  // namespace voca::engine
