#include "engine/comm/gradient_buckets.h"

#include <algorithm>

#include "engine/base/error.h"
#include "engine/base/thread.h"

namespace voca::engine {
namespace {

constexpr std::int64_t kBoundaryBytes = 64;
constexpr std::int64_t kFewestBuckets = 4;

}  // namespace

std::vector<Bucket> cut_buckets(std::int64_t elements, std::size_t element_bytes, std::size_t bucket_bytes) {
  VOCA_CHECK(elements >= 0 && element_bytes > 0 && bucket_bytes > 0);
  if (elements == 0) return {};
  const auto ceil_divide = [](std::int64_t a, std::int64_t b) { return (a + b - 1) / b; };
  const std::int64_t unit =
      std::max<std::int64_t>(kBoundaryBytes / static_cast<std::int64_t>(element_bytes), 1);
  const std::int64_t units = ceil_divide(elements, unit);
  const std::int64_t wanted =
      std::max<std::int64_t>(static_cast<std::int64_t>(bucket_bytes) / kBoundaryBytes, 1);
  const std::int64_t count = std::max(std::min(kFewestBuckets, units), ceil_divide(units, wanted));
  const std::int64_t size = ceil_divide(units, count) * unit;
  std::vector<Bucket> buckets;
  for (std::int64_t begin = 0; begin < elements; begin += size)
    buckets.push_back({begin, std::min(begin + size, elements)});
  return buckets;
}

GradientBuckets::GradientBuckets(Communicator& communicator, const Tensor& gradients,
                                 const BucketOptions& options)
    : communicator_(communicator),
      gradients_(gradients),
      overlap_(options.overlap),
      buckets_(cut_buckets(gradients.elements(), size_of(gradients.dtype), options.bucket_bytes)) {
  VOCA_CHECK(gradients.shape.rank() == 1);
  if (overlap_) worker_ = start_thread<std::thread>("the sum of gradients", [this] { work(); });
}

GradientBuckets::GradientBuckets(Communicator& communicator, const Tensor& gradients,
                                 CommunicationStream& communication, Stream compute,
                                 const BucketOptions& options)
    : GradientBuckets(communicator, gradients, {.bucket_bytes = options.bucket_bytes, .overlap = false}) {
  communication_ = &communication;
  compute_ = compute;
  overlap_ = options.overlap;
}

GradientBuckets::~GradientBuckets() {
  bool stuck = false;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    stuck = worker_.joinable() && started_ > summed_;
  }
  changed_.notify_all();
  if (stuck) communicator_.abort();
  if (worker_.joinable()) worker_.join();
}

void GradientBuckets::sum(std::size_t bucket, Stream stream) {
  const auto [begin, end] = buckets_[bucket];
  communicator_.all_reduce_sum("gradients", gradients_.rows(begin, end - begin), stream);
}

void GradientBuckets::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] {
      return stopping_ || (!failure_ && started_ < buckets_.size() && buckets_[started_].end <= final_);
    });
    if (stopping_) return;
    const std::size_t bucket = started_++;
    lock.unlock();
    std::exception_ptr failure;
    try {
      sum(bucket, nullptr);
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    failure_ = failure;
    ++summed_;
    changed_.notify_all();
  }
}

void GradientBuckets::final_until(std::int64_t elements) {
  {
    const std::lock_guard lock(mutex_);
    VOCA_CHECK(elements >= final_ && elements <= gradients_.elements());
    final_ = elements;
  }
  if (worker_.joinable()) return changed_.notify_all();
  if (!overlap_ || communication_ == nullptr) return;
  if (started_ == buckets_.size() || buckets_[started_].end > elements) return;
  communication_->wait_for(compute_);
  while (started_ < buckets_.size() && buckets_[started_].end <= elements)
    sum(started_++, communication_->stream());
}

void GradientBuckets::finish() {
  if (final_ < gradients_.elements()) final_until(gradients_.elements());  // only this thread writes final_
  if (worker_.joinable()) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return failure_ || summed_ == buckets_.size(); });
    if (failure_) std::rethrow_exception(failure_);
  } else if (communication_ != nullptr) {
    if (!overlap_) communication_->wait_for(compute_);
    while (started_ < buckets_.size()) sum(started_++, communication_->stream());
    communication_->hold_up(compute_);
  } else {
    while (started_ < buckets_.size()) sum(started_++, nullptr);
  }
  const std::lock_guard lock(mutex_);
  final_ = 0;
  started_ = 0;
  summed_ = 0;
}

}  // namespace voca::engine
