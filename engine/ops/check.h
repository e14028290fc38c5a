#pragma once

#include <type_traits>

#include "engine/core/context.h"
#include "engine/core/tensor.h"

#if defined(VOCA_WITH_CUDA)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

#if defined(VOCA_WITH_CUDA)
namespace voca::engine {
template <>
inline constexpr DType kDTypeOf<__nv_bfloat16> = DType::kBF16;
template <>
inline constexpr DType kDTypeOf<__half> = DType::kF16;
}  // namespace voca::engine
#endif

// Shared by the files of this folder: argument checks, and dispatch from a tensor's type and device to a
// kernel.

namespace voca::engine::ops {

/// Throws InternalError naming operation and tensor unless the tensor has this shape and type and is on the
/// context's device.
void expect(const Context& context, const char* operation, const Tensor& tensor, const Shape& shape,
            DType dtype);
/// expect() for an optional argument: accepts an empty tensor.
void expect_optional(const Context& context, const char* operation, const Tensor& tensor, const Shape& shape,
                     DType dtype);

/// MatrixProduct::alignment of operands that start at multiples of `elements` elements in memory aligned to
/// 16 bytes. Several strides may be joined by |.
[[nodiscard]] int alignment_of(std::int64_t elements, DType dtype);
/// Queues a GEMM on the context's GPU; in a dry run only records it. Throws InternalError if an operand is
/// not aligned as `product` says, because the algorithm was chosen for that alignment.
void multiply(const Context& context, const MatrixProduct& product);

[[noreturn]] void unsupported_type(const char* operation, DType dtype);
[[noreturn]] void unsupported_device(const char* operation, DeviceKind device, DType dtype);

/// The last extent, and the product of the extents before it.
[[nodiscard]] inline std::int64_t columns_of(const Tensor& tensor) {
  return tensor.shape.rank() == 0 ? 1 : tensor.shape[tensor.shape.rank() - 1];
}
[[nodiscard]] inline std::int64_t rows_of(const Tensor& tensor) {
  const std::int64_t columns = columns_of(tensor);
  return columns == 0 ? 0 : tensor.elements() / columns;
}

[[nodiscard]] inline DType statistics_type(DType compute_type) {
  return compute_type == DType::kF64 ? DType::kF64 : DType::kF32;
}

/// Data of an optional argument; null if empty.
template <typename T>
[[nodiscard]] T* pointer(const Tensor& tensor) {
  return tensor ? tensor.as<T>() : nullptr;
}

#if defined(VOCA_WITH_CUDA)
inline constexpr bool kWithCuda = true;
#else
inline constexpr bool kWithCuda = false;
#endif

/// Element types in which each backend computes.
template <typename T>
inline constexpr bool kOnCpu = std::is_same_v<T, float> || std::is_same_v<T, double>;
template <typename T>
inline constexpr bool kOnCuda = kWithCuda && !std::is_same_v<T, double>;

/// Whether `backend` computes in T.
template <typename T>
[[nodiscard]] constexpr bool has_kernel(DeviceKind backend) {
  return backend == DeviceKind::kCuda ? kOnCuda<T> : kOnCpu<T>;
}

/// Calls f.template operator()<T>() with the compute type T, a type that the CPU supports.
template <typename F>
void by_cpu_type(const char* operation, DType dtype, F&& f) {
  switch (dtype) {
    case DType::kF32:
      return f.template operator()<float>();
    case DType::kF64:
      return f.template operator()<double>();
    default:
      unsupported_type(operation, dtype);
  }
}

/// by_cpu_type() including the types that only a GPU supports.
template <typename F>
void by_type(const char* operation, DType dtype, F&& f) {
#if defined(VOCA_WITH_CUDA)
  if (dtype == DType::kBF16) return f.template operator()<__nv_bfloat16>();
  if (dtype == DType::kF16) return f.template operator()<__half>();
#endif
  by_cpu_type(operation, dtype, f);
}

}  // namespace voca::engine::ops

/// Evaluates on_cpu or on_cuda by the device of the context; T, the element type, is in scope. In a dry run
/// neither runs.
#define VOCA_BY_BACKEND(context, operation, on_cpu, on_cuda)                                                \
  do {                                                                                                      \
    const ::voca::engine::DeviceKind voca_device = (context).device();                                      \
    if (voca_device == ::voca::engine::DeviceKind::kMeta) {                                                 \
      if (::voca::engine::ops::has_kernel<T>((context).backend())) break;                                   \
      ::voca::engine::ops::unsupported_device(operation, (context).backend(), ::voca::engine::kDTypeOf<T>); \
    }                                                                                                       \
    if constexpr (::voca::engine::ops::kOnCpu<T>) {                                                         \
      if (voca_device == ::voca::engine::DeviceKind::kCpu) {                                                \
        on_cpu;                                                                                             \
        break;                                                                                              \
      }                                                                                                     \
    }                                                                                                       \
    if constexpr (::voca::engine::ops::kOnCuda<T>) {                                                        \
      if (voca_device == ::voca::engine::DeviceKind::kCuda) {                                               \
        on_cuda;                                                                                            \
        break;                                                                                              \
      }                                                                                                     \
    }                                                                                                       \
    ::voca::engine::ops::unsupported_device(operation, voca_device, ::voca::engine::kDTypeOf<T>);           \
  } while (false)

/// Runs a kernel on the backend of the context's device.
#define VOCA_DISPATCH(context, kernel, args)                            \
  VOCA_BY_BACKEND(context, #kernel, ::voca::kernels::cpu::kernel(args), \
                  ::voca::kernels::cuda::kernel(args, (context).stream))

/// Scratch size in bytes for the context's backend, from one expression per backend; T is in scope.
#define VOCA_SCRATCH_BYTES(context, operation, on_cpu, on_cuda)                                           \
  [&]() -> std::size_t {                                                                                  \
    if constexpr (::voca::engine::ops::kOnCpu<T>) {                                                       \
      if ((context).backend() == ::voca::engine::DeviceKind::kCpu) return on_cpu;                         \
    }                                                                                                     \
    if constexpr (::voca::engine::ops::kOnCuda<T>) {                                                      \
      if ((context).backend() == ::voca::engine::DeviceKind::kCuda) return on_cuda;                       \
    }                                                                                                     \
    ::voca::engine::ops::unsupported_device(operation, (context).backend(), ::voca::engine::kDTypeOf<T>); \
  }()
