#include "tests/simt/host_device.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <fmt/format.h>

#include <cstring>

#include "engine/error.h"
#include "tests/simt/executor.h"

namespace voca::simt::host {
namespace {

using engine::DType;
using engine::MatrixProduct;
using kernels::Transpose;

class HostDevice final : public engine::Device {
 public:
  [[nodiscard]] engine::DeviceKind kind() const override { return engine::DeviceKind::kCuda; }
  [[nodiscard]] std::string description() const override { return "cuda kernels on the cpu"; }
  [[nodiscard]] std::size_t free_bytes() const override { return 0; }
  void synchronize(void* /*stream*/) override {}

 protected:
  std::byte* allocate_bytes(std::size_t bytes) override {
    void* data = host::allocate(bytes);
    std::memset(data, 0, bytes);
    return static_cast<std::byte*>(data);
  }
  void free_bytes_at(std::byte* data) noexcept override { host::free(data); }
};

/// What a library chooses its algorithm by.
std::string key_of(const MatrixProduct& p) {
  return fmt::format("{} {}{} {}x{}x{} ld {} {} {} batch {} {} {} {} {} {} align {}", name_of(p.dtype),
                     p.transpose_a == Transpose::kYes, p.transpose_b == Transpose::kYes, p.m, p.n, p.k, p.lda,
                     p.ldb, p.ldc, p.batch, p.stride_a, p.stride_b, p.stride_c, p.accumulate, p.add_bias,
                     p.alignment);
}

template <typename T>
double element(const void* base, std::int64_t i) {
  return static_cast<double>(static_cast<float>(static_cast<const T*>(base)[i]));
}

template <typename T>
void multiply_one(const MatrixProduct& p, std::int64_t batch) {
  const bool ta = p.transpose_a == Transpose::kYes;
  const bool tb = p.transpose_b == Transpose::kYes;
  for (std::int64_t i = 0; i < p.m; ++i) {
    for (std::int64_t j = 0; j < p.n; ++j) {
      double sum = p.add_bias ? element<T>(p.bias, j) : 0;
      T* const out = static_cast<T*>(p.c) + batch * p.stride_c + i * p.ldc + j;
      if (p.accumulate) sum += static_cast<double>(static_cast<float>(*out));
      for (std::int64_t l = 0; l < p.k; ++l) {
        sum += element<T>(p.a, batch * p.stride_a + (ta ? l * p.lda + i : i * p.lda + l)) *
               element<T>(p.b, batch * p.stride_b + (tb ? j * p.ldb + l : l * p.ldb + j));
      }
      *out = static_cast<T>(static_cast<float>(sum));
    }
  }
}

}  // namespace

std::unique_ptr<engine::Device> make_host_device() {
  return std::make_unique<HostDevice>();
}

void HostProducts::prepare(const MatrixProduct& product) {
  prepared_.insert(key_of(product));
}

void HostProducts::multiply(const MatrixProduct& product, void* /*stream*/) {
  if (!prepared_.contains(key_of(product)))
    throw engine::InternalError("product {} was not prepared", key_of(product));
  for (std::int64_t batch = 0; batch < product.batch; ++batch) {
    if (product.dtype == DType::kBF16) {
      multiply_one<__nv_bfloat16>(product, batch);
    } else if (product.dtype == DType::kF16) {
      multiply_one<__half>(product, batch);
    } else {
      multiply_one<float>(product, batch);
    }
  }
}

}  // namespace voca::simt::host
