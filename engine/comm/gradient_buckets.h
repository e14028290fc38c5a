#pragma once

#include <chrono>
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

/// A slice [begin, end) of the flat gradient buffer, in elements.
struct Bucket {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};
/// Cuts a buffer of `elements`, each of `element_bytes`, into slices of about `bucket_bytes`, all of one size
/// but for the last, on 64-byte boundaries; into four where it is small, so that there is something to
/// overlap. The same on every rank. None for an empty buffer.
[[nodiscard]] std::vector<Bucket> cut_buckets(std::int64_t elements, std::size_t element_bytes,
                                              std::size_t bucket_bytes);

/// When the sum of a bucket began and ended.
struct BucketTrace {
  Bucket bucket;
  std::chrono::steady_clock::time_point begin;
  std::chrono::steady_clock::time_point end;
};
/// Of one step.
struct StepTrace {
  std::vector<BucketTrace> buckets;                    ///< in the order in which they are summed
  std::chrono::steady_clock::time_point backward_end;  ///< when the last gradient was final
};

/// A queue of work of its own on a GPU, so that sums run beside backward.
class CommunicationStream {
 public:
  CommunicationStream() = default;
  CommunicationStream(const CommunicationStream&) = delete;
  CommunicationStream& operator=(const CommunicationStream&) = delete;
  virtual ~CommunicationStream() = default;

  [[nodiscard]] virtual void* stream() const = 0;
  /// What is queued here from now on waits for what is queued on `compute` by now.
  virtual void wait_for(void* compute) = 0;
  /// What is queued on `compute` from now on waits for what is queued here by now.
  virtual void hold_up(void* compute) = 0;
};

struct BucketOptions {
  std::size_t bucket_bytes = std::size_t{25} << 20U;
  bool overlap = true;  ///< false sums every bucket in finish(): the same bits, later
};

/// Sums the gradients of all ranks, each bucket as soon as backward has finished it. One step is
/// final_until(…) …, then finish(), by which all of them are final. The same bits with and without overlap
/// and for any size of bucket.
class GradientBuckets final : public GradientListener {
 public:
  /// On the CPU: a worker thread calls `communicator`, which must be another one than the main thread's, so
  /// that their collectives never mix. `gradients` (elements) and `communicator` outlive this.
  GradientBuckets(Communicator& communicator, const Tensor& gradients, const BucketOptions& options = {});
  /// On a GPU: sums are queued on `communication`, behind what `compute` holds when a bucket is final; the
  /// trace has the times of queueing.
  GradientBuckets(Communicator& communicator, const Tensor& gradients, CommunicationStream& communication,
                  void* compute, const BucketOptions& options = {});
  /// Ends a sum under way by aborting the communicator: finish() was not reached.
  ~GradientBuckets() override;
  GradientBuckets(const GradientBuckets&) = delete;
  GradientBuckets& operator=(const GradientBuckets&) = delete;

  void final_until(std::int64_t elements) override;
  /// Waits until all buckets are summed (GPU: holds up the compute stream until they are). Throws what a
  /// collective threw.
  void finish();

  [[nodiscard]] const std::vector<Bucket>& buckets() const { return buckets_; }
  /// Of the step last finished.
  [[nodiscard]] const StepTrace& trace() const { return trace_; }

 private:
  void work();
  void sum(std::size_t bucket, void* stream);

  Communicator& communicator_;
  Tensor gradients_;
  CommunicationStream* communication_ = nullptr;
  void* compute_ = nullptr;
  bool overlap_;
  std::vector<Bucket> buckets_;
  StepTrace trace_;

  std::mutex mutex_;  // guards what follows; the worker sums without it
  std::condition_variable changed_;
  std::int64_t final_ = 0;   // elements
  std::size_t started_ = 0;  // buckets handed to a collective
  std::size_t summed_ = 0;   // buckets
  std::exception_ptr failure_;
  bool stopping_ = false;
  std::thread worker_;
};

}  // namespace voca::engine
