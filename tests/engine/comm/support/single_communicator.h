#pragma once

#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "engine/base/error.h"
#include "engine/comm/communicator.h"

namespace voca::engine::testing {

/// Communicator of one rank: a no-op on any device.
class SingleCommunicator final : public Communicator {
 public:
  [[nodiscard]] int rank() const override { return 0; }
  [[nodiscard]] int world_size() const override { return 1; }
  void all_reduce_sum(const char* /*name*/, Tensor /*data*/, Stream /*stream*/) override {}
  void all_gather_rows(const char* name, const Tensor& part, std::span<const std::int64_t> rows_by_rank,
                       Tensor all, Stream /*stream*/) override {
    VOCA_CHECK(rows_by_rank.size() == 1 && part.bytes() == all.bytes());
    if (part.data == all.data || part.bytes() == 0) return;
    // A world of one needs no gathered copy; on a GPU it would need a stream.
    if (part.device != DeviceKind::kCpu || all.device != DeviceKind::kCpu)
      throw InternalError("all_gather of {}: a world of one copies on the CPU only", name);
    std::memcpy(all.data, part.data, part.bytes());
  }
  void broadcast(const char* /*name*/, Tensor /*data*/, int root, Stream /*stream*/) override {
    VOCA_CHECK(root == 0);
  }
  void barrier(const char* /*name*/) override {}
  [[nodiscard]] std::vector<double> all_gather_values(const char* /*name*/,
                                                      std::span<const double> mine) override {
    return {mine.begin(), mine.end()};
  }
  void abort() noexcept override {}
};

[[nodiscard]] inline std::unique_ptr<Communicator> make_single_communicator() {
  return std::make_unique<SingleCommunicator>();
}

}  // namespace voca::engine::testing
