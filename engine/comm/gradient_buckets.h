#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/comm/communicator.h"
#include "engine/core/context.h"
#include "engine/core/tensor.h"

namespace voca::engine {

/// Slice [begin, end) of the flat gradient buffer, in elements.
struct Bucket {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};
/// Splits a buffer of `elements` elements of `element_bytes` bytes into slices of about `bucket_bytes` on
/// 64-byte boundaries, all of one size except the last. A small buffer is split into four, so that there is
/// something to overlap. Identical on every rank. Empty for an empty buffer.
[[nodiscard]] std::vector<Bucket> cut_buckets(std::int64_t elements, std::size_t element_bytes,
                                              std::size_t bucket_bytes);

/// A separate stream on a GPU, so that all-reduces overlap with backward.
class CommunicationStream {
 public:
  CommunicationStream() = default;
  CommunicationStream(const CommunicationStream&) = delete;
  CommunicationStream& operator=(const CommunicationStream&) = delete;
  virtual ~CommunicationStream() = default;

  [[nodiscard]] virtual Stream stream() const = 0;
  /// Work queued here from now on waits for the work queued on `compute` so far.
  virtual void wait_for(Stream compute) = 0;
  /// Work queued on `compute` from now on waits for the work queued here so far.
  virtual void hold_up(Stream compute) = 0;
};

struct BucketOptions {
  std::size_t bucket_bytes = std::size_t{25} << 20U;
  bool overlap = true;  ///< false runs every all-reduce in finish(): same bits, later
};

/// All-reduces gradients bucket by bucket, each as soon as backward has completed it. A step is a series of
/// final_until() calls, then finish(), after which all gradients are summed. The result is bitwise the same
/// with and without overlap and for any bucket size.
class GradientBuckets final : public GradientListener {
 public:
  /// CPU: a worker thread calls `communicator`, which must not be the main thread's, so that their
  /// collectives do not interleave. `gradients` (elements) and `communicator` must outlive this.
  GradientBuckets(Communicator& communicator, const Tensor& gradients, const BucketOptions& options = {});
  /// GPU: all-reduces are queued on `communication`, after the work on `compute` at the time a bucket becomes
  /// final.
  GradientBuckets(Communicator& communicator, const Tensor& gradients, CommunicationStream& communication,
                  Stream compute, const BucketOptions& options = {});
  /// If finish() was not reached, aborts the communicator to end a running all-reduce.
  ~GradientBuckets() override;
  GradientBuckets(const GradientBuckets&) = delete;
  GradientBuckets& operator=(const GradientBuckets&) = delete;

  void final_until(std::int64_t elements) override;
  /// Waits until all buckets are summed (GPU: makes the compute stream wait). Rethrows the exception of a
  /// collective.
  void finish();

  [[nodiscard]] const std::vector<Bucket>& buckets() const { return buckets_; }

 private:
  void work();
  void sum(std::size_t bucket, Stream stream);

  Communicator& communicator_;
  Tensor gradients_;
  CommunicationStream* communication_ = nullptr;
  Stream compute_ = nullptr;
  bool overlap_;
  std::vector<Bucket> buckets_;

  std::mutex mutex_;  // guards the members below; the worker sums without it
  std::condition_variable changed_;
  std::int64_t final_ = 0;   // elements
  std::size_t started_ = 0;  // buckets passed to a collective
  std::size_t summed_ = 0;   // buckets
  std::exception_ptr failure_;
  bool stopping_ = false;
  std::thread worker_;
};

}  // namespace voca::engine
