#include "tests/simt/host_device.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <fmt/format.h>

#include <cstring>
#include <exception>

#include "engine/base/error.h"
#include "tests/simt/executor.h"

namespace voca::simt::host {
namespace {

using engine::DType;
using engine::LibraryGemm;
using kernels::Transpose;

/// Key by which a library selects its algorithm.
std::string key_of(const LibraryGemm& p) {
  return fmt::format("{} {}{} {}x{}x{} ld {} {} {} batch {} {} {} {} {} {} align {}", name_of(p.dtype),
                     p.transpose_a == Transpose::kYes, p.transpose_b == Transpose::kYes, p.m, p.n, p.k, p.lda,
                     p.ldb, p.ldc, p.batch, p.stride_a, p.stride_b, p.stride_c, p.beta != 0, p.add_bias,
                     p.alignment);
}

template <typename T>
double element(const void* base, std::int64_t i) {
  return static_cast<double>(static_cast<float>(static_cast<const T*>(base)[i]));
}

template <typename T>
void compute_one(const LibraryGemm& p, std::int64_t batch) {
  const bool ta = p.transpose_a == Transpose::kYes;
  const bool tb = p.transpose_b == Transpose::kYes;
  for (std::int64_t i = 0; i < p.m; ++i) {
    for (std::int64_t j = 0; j < p.n; ++j) {
      double sum = p.add_bias ? element<T>(p.bias, j) : 0;
      T* const out = static_cast<T*>(p.c) + batch * p.stride_c + i * p.ldc + j;
      if (p.beta != 0) sum += p.beta * static_cast<double>(static_cast<float>(*out));
      for (std::int64_t l = 0; l < p.k; ++l) {
        sum += element<T>(p.a, batch * p.stride_a + (ta ? l * p.lda + i : i * p.lda + l)) *
               element<T>(p.b, batch * p.stride_b + (tb ? j * p.ldb + l : l * p.ldb + j));
      }
      *out = static_cast<T>(static_cast<float>(sum));
    }
  }
}

void compute(const LibraryGemm& gemm) {
  for (std::int64_t batch = 0; batch < gemm.batch; ++batch) {
    if (gemm.dtype == DType::kBF16) {
      compute_one<__nv_bfloat16>(gemm, batch);
    } else if (gemm.dtype == DType::kF16) {
      compute_one<__half>(gemm, batch);
    } else {
      compute_one<float>(gemm, batch);
    }
  }
}

}  // namespace

HostDevice::HostDevice()
    : streams_{Stream(schedule().landing == Landing::kEager ? Stream::When::kAtOnce : Stream::When::kLate),
               Stream(Stream::When::kLate)} {}

void HostDevice::synchronize(engine::Stream stream) {
  Stream::of(stream)->finish();
}

void HostDevice::copy_to_device(void* to, const void* host, std::size_t bytes, engine::Stream stream) {
  Stream::of(stream)->queue([=] { std::memcpy(to, host, bytes); });
}

void HostDevice::copy_to_host(void* host, const void* from, std::size_t bytes, engine::Stream stream) {
  Stream::of(stream)->queue([=] { std::memcpy(host, from, bytes); });
}

std::byte* HostDevice::allocate_bytes(std::size_t bytes) {
  void* data = host::allocate(bytes);
  std::memset(data, 0, bytes);
  return static_cast<std::byte*>(data);
}

// Like a GPU, finishes all work before memory is freed. During exception unwinding, work may wait for ranks
// that never arrive; it is then dropped, as when a process ends.
void HostDevice::free_bytes_at(std::byte* data) noexcept {
  for (Stream& stream : streams_) std::uncaught_exceptions() > 0 ? stream.discard() : stream.finish();
  host::free(data);
}

void* HostDevice::make_event() {
  return new Stream::Point;
}

void HostDevice::destroy_event(void* event) noexcept {
  delete static_cast<Stream::Point*>(event);
}

void HostDevice::record_event(void* event, engine::Stream stream) {
  *static_cast<Stream::Point*>(event) = Stream::of(stream)->end();
}

void HostDevice::stream_wait(engine::Stream stream, void* event) {
  Stream::of(stream)->wait(*static_cast<const Stream::Point*>(event));
}

void HostDevice::synchronize_event(void* event) {
  static_cast<const Stream::Point*>(event)->reach();
}

void HostGemmLibrary::prepare(const LibraryGemm& args) {
  prepared_.insert(key_of(args));
}

// Like a library, keeps the workspace from now on and leaves garbage in the arena.
void HostGemmLibrary::tune(std::byte* workspace, std::byte* memory, std::size_t memory_bytes) {
  workspace_ = workspace;
  std::memset(memory, 0xFF, memory_bytes);
}

void HostGemmLibrary::gemm(const LibraryGemm& args, engine::Stream stream) {
  if (only_prepared_ && !prepared_.contains(key_of(args)))
    throw engine::InternalError("GEMM {} was not prepared", key_of(args));
  ++gemms_;
  if (stream == nullptr) return compute(args);
  Stream::of(stream)->queue([args] { compute(args); });
}

}  // namespace voca::simt::host
