#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "engine/device.h"
#include "engine/matrix_products.h"

// What a whole step needs beside kernels to run as on a GPU: memory of the executor that calls itself a
// GPU's, and matrix products by plain loops.

namespace voca::simt::host {

/// Products summed in double.
class HostProducts final : public engine::MatrixProducts {
 public:
  /// With `only_prepared` multiply() throws InternalError for a product that no dry run prepared.
  explicit HostProducts(bool only_prepared = true) : only_prepared_(only_prepared) {}
  void prepare(const engine::MatrixProduct& product) override;
  [[nodiscard]] std::size_t workspace_bytes() const override { return 256; }
  void tune(std::byte* workspace, std::byte* memory, std::size_t memory_bytes) override;
  void multiply(const engine::MatrixProduct& product, void* stream) override;

  [[nodiscard]] std::int64_t multiplied() const { return multiplied_; }

 private:
  bool only_prepared_;
  std::set<std::string> prepared_;
  std::byte* workspace_ = nullptr;
  std::int64_t multiplied_ = 0;
};

/// A device of kind kCuda over the executor's memory, with products of its own. Kernels run when they are
/// launched. A copy is done as late as may be: when someone waits for its stream or for an event behind it,
/// the host or the other stream, so that a wait left out shows; of the compute stream this holds for what the
/// host reads.
class HostDevice : public engine::Device {
 public:
  [[nodiscard]] engine::DeviceKind kind() const override { return engine::DeviceKind::kCuda; }
  [[nodiscard]] std::string description() const override { return "cuda kernels on the cpu"; }
  [[nodiscard]] std::size_t free_bytes() const override { return free_bytes_; }
  void synchronize(void* stream) override;
  [[nodiscard]] void* compute_stream() const override { return &streams_[0]; }
  [[nodiscard]] void* copy_stream() const override { return &streams_[1]; }
  [[nodiscard]] HostProducts* products() override { return &products_; }
  void copy_to_device(void* to, const void* host, std::size_t bytes, void* stream) override;
  void copy_to_host(void* host, const void* from, std::size_t bytes, void* stream) override;

  void set_free_bytes(std::size_t bytes) { free_bytes_ = bytes; }

 protected:
  std::byte* allocate_bytes(std::size_t bytes) override;
  void free_bytes_at(std::byte* data) noexcept override;
  [[nodiscard]] void* make_event() override;
  void destroy_event(void* event) noexcept override;
  void record_event(void* event, void* stream) override;
  void stream_wait(void* stream, void* event) override;
  void synchronize_event(void* event) override;

 private:
  struct Copy {
    void* to = nullptr;
    const void* from = nullptr;     ///< read when the copy is done; null: `data` is copied
    std::vector<std::byte> data{};  ///< as it was when the copy was queued
    std::size_t bytes = 0;
  };
  struct Stream {
    std::deque<Copy> queued;
    std::uint64_t done = 0;  ///< copies, since the beginning
    [[nodiscard]] std::uint64_t last() const { return done + queued.size(); }
  };
  struct Event {
    Stream* stream = nullptr;
    std::uint64_t copies = 0;  ///< of the stream that it stands behind
  };
  static void finish(Stream& stream, std::uint64_t copies);

  mutable std::array<Stream, 2> streams_;
  HostProducts products_{false};
  std::size_t free_bytes_ = 0;
};

}  // namespace voca::simt::host
