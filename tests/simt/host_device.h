#pragma once

#include <memory>
#include <set>
#include <string>

#include "engine/device.h"
#include "engine/matrix_products.h"

// What a whole step needs beside kernels to run as on a GPU: memory of the executor that calls itself a
// GPU's, and matrix products by plain loops.

namespace voca::simt::host {

/// A device of kind kCuda over the executor's memory.
[[nodiscard]] std::unique_ptr<engine::Device> make_host_device();

/// Products summed in double. Throws InternalError for one that the dry run did not prepare.
class HostProducts final : public engine::MatrixProducts {
 public:
  void prepare(const engine::MatrixProduct& product) override;
  [[nodiscard]] std::size_t workspace_bytes() const override { return 0; }
  void tune(std::byte* /*workspace*/, std::byte* /*memory*/, std::size_t /*memory_bytes*/) override {}
  void multiply(const engine::MatrixProduct& product, void* stream) override;

 private:
  std::set<std::string> prepared_;
};

}  // namespace voca::simt::host
