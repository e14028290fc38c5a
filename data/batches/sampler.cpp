#include "data/batches/sampler.h"

#include <algorithm>
#include <utility>

#include "engine/base/error.h"
#include "engine/base/random.h"

namespace voca::data {

Sampler::Sampler(std::vector<std::int64_t> samples, const SamplerOptions& options)
    : samples_(std::move(samples)), options_(options), order_(samples_) {
  VOCA_CHECK(options_.world_size >= 1 && options_.rank >= 0 && options_.rank < options_.world_size);
  VOCA_CHECK(options_.batch_size >= 1);
  const auto count = static_cast<std::int64_t>(samples_.size());
  if (options_.training && count > 0 && count < options_.world_size) {
    throw engine::UsageError("the training split has {} samples, fewer than the {} ranks; use fewer ranks",
                             count, options_.world_size);
  }
  const std::int64_t global = options_.batch_size * options_.world_size;
  const std::int64_t full = count / global;
  visited_ = options_.training && full > 0 ? full * global : count;
  const std::int64_t global_batches = (visited_ + global - 1) / global;
  for (std::int64_t b = 0; b < global_batches; ++b) {
    const std::int64_t mine = slice(b).count;
    samples_of_rank_ += mine;
    if (mine > 0) batches_ = b + 1;  // only an evaluation's last slice can be empty
  }
}

void Sampler::start_epoch(std::int64_t epoch) {
  if (!options_.training) return;
  std::ranges::copy(samples_, order_.begin());
  engine::RandomStream(options_.seed, engine::RandomPurpose::kPermutation, static_cast<std::uint64_t>(epoch))
      .shuffle(order_.begin(), order_.end());
}

Sampler::Slice Sampler::slice(std::int64_t batch) const {
  const std::int64_t global = options_.batch_size * options_.world_size;
  const std::int64_t first = batch * global;
  const std::int64_t size = std::min(global, visited_ - first);
  if (!options_.training) {
    const std::int64_t before = std::min(size, options_.batch_size * options_.rank);
    return {first + before, std::min(options_.batch_size, size - before)};
  }
  const std::int64_t begin = size * options_.rank / options_.world_size;
  const std::int64_t end = size * (options_.rank + 1) / options_.world_size;
  return {first + begin, end - begin};
}

std::span<const std::int64_t> Sampler::batch(std::int64_t batch) const {
  VOCA_CHECK(batch >= 0 && batch < batches_);
  const Slice mine = slice(batch);
  return {order_.data() + mine.first, static_cast<std::size_t>(mine.count)};
}

std::int64_t Sampler::first_position(std::int64_t batch) const {
  return slice(batch).first;
}

}  // namespace voca::data
