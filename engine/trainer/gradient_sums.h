#pragma once

#include <cstdint>

#include "engine/core/context.h"
#include "engine/trainer/memory.h"

namespace voca::engine {

/// Adds the gradients of a step's batches up in ParameterStore::gradient_sums(), each part of them as soon as
/// backward has finished it. For each batch: start_batch(), a backward pass that this listens to,
/// finish_batch().
class GradientSums final : public GradientListener {
 public:
  /// Of a workspace that keeps the sums apart, which outlives this.
  explicit GradientSums(Workspace& workspace) : workspace_(workspace) {}

  /// Zeroes the gradients. The `first` batch of a step overwrites the sums. `next` is told what of the sums
  /// is final; null where other batches follow.
  void start_batch(bool first, GradientListener* next);
  void final_until(std::int64_t elements) override;
  /// Adds what no one called final.
  void finish_batch();

 private:
  Workspace& workspace_;
  bool first_ = true;
  GradientListener* next_ = nullptr;
  std::int64_t added_ = 0;  // elements of this batch
};

}  // namespace voca::engine
