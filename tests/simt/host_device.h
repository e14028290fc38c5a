#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>

#include "engine/comm/gradient_buckets.h"
#include "engine/core/device.h"
#include "engine/core/gemm_library.h"
#include "tests/simt/stream.h"

// GPU stand-ins for a whole training step besides kernels: a device with executor memory, and GEMMs by plain
// loops.

namespace voca::simt::host {

/// GEMMs with sums in double.
class HostGemmLibrary final : public engine::GemmLibrary {
 public:
  /// If `only_prepared`, gemm() throws InternalError for a GEMM that no dry run prepared.
  explicit HostGemmLibrary(bool only_prepared = true) : only_prepared_(only_prepared) {}
  void prepare(const engine::LibraryGemm& args) override;
  [[nodiscard]] std::size_t workspace_bytes() const override { return 256; }
  void tune(std::byte* workspace, std::byte* memory, std::size_t memory_bytes) override;
  void gemm(const engine::LibraryGemm& args, engine::Stream stream) override;

  [[nodiscard]] std::int64_t gemms() const { return gemms_; }

 private:
  bool only_prepared_;
  std::set<std::string> prepared_;
  std::byte* workspace_ = nullptr;
  std::int64_t gemms_ = 0;
};

/// Device of kind kCuda on executor memory, with its own GEMMs. Copies run as late as possible, in the order
/// given by streams and events (Stream), so that a missing wait shows. The compute stream is late too, which
/// exposes work that does not wait for it; under a schedule with eager copies it runs immediately, which
/// exposes missing waits of its own work. Used by one thread; different devices may be used by different
/// threads.
class HostDevice : public engine::Device {
 public:
  HostDevice();
  [[nodiscard]] engine::DeviceKind kind() const override { return engine::DeviceKind::kCuda; }
  [[nodiscard]] std::string description() const override { return "cuda kernels on the cpu"; }
  [[nodiscard]] engine::FreeMemory free_memory() const override {
    return {.bytes = free_bytes_, .limit = ""};
  }
  void synchronize(engine::Stream stream) override;
  [[nodiscard]] engine::Stream compute_stream() const override { return streams_[0].handle(); }
  [[nodiscard]] engine::Stream copy_stream() const override { return streams_[1].handle(); }
  [[nodiscard]] HostGemmLibrary* gemm_library() override { return &gemm_library_; }
  void copy_to_device(void* to, const void* host, std::size_t bytes, engine::Stream stream) override;
  void copy_to_host(void* host, const void* from, std::size_t bytes, engine::Stream stream) override;

  void set_free_bytes(std::size_t bytes) { free_bytes_ = bytes; }

 protected:
  std::byte* allocate_bytes(std::size_t bytes) override;
  void free_bytes_at(std::byte* data) noexcept override;
  [[nodiscard]] void* make_event() override;
  void destroy_event(void* event) noexcept override;
  void record_event(void* event, engine::Stream stream) override;
  void stream_wait(engine::Stream stream, void* event) override;
  void synchronize_event(void* event) override;

 private:
  mutable std::array<Stream, 2> streams_;  // compute, copies
  HostGemmLibrary gemm_library_{false};
  std::size_t free_bytes_ = 0;
};

/// Additional stream for the gradient all-reduces of a HostDevice.
class HostCommunicationStream final : public engine::CommunicationStream {
 public:
  explicit HostCommunicationStream(Stream::When when) : stream_(when) {}
  ~HostCommunicationStream() override { stream_.discard(); }

  [[nodiscard]] engine::Stream stream() const override { return stream_.handle(); }
  void wait_for(engine::Stream compute) override { stream_.wait(Stream::of(compute)->end()); }
  void hold_up(engine::Stream compute) override { Stream::of(compute)->wait(stream_.end()); }

 private:
  mutable Stream stream_;
};

}  // namespace voca::simt::host
