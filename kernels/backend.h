#pragma once

struct CUstream_st;  // of the CUDA runtime, whose cudaStream_t is a pointer to it

// The backends, and the element types in which each computes. An operation is a set of overloads on the
// backend: gelu_forward(Cpu{}, args), gelu_forward(Cuda{stream}, args).

/// Instruction set for which this file is compiled (kernels/cpu/levels.h). Everywhere but in the CPU kernels
/// an operation runs the kernels of the set that is chosen at start.
#if !defined(VOCA_CPU_LEVEL)
#define VOCA_CPU_LEVEL chosen
#endif

namespace voca::kernels {

/// A cudaStream_t. Null is the default stream of a GPU, and the only stream of the CPU.
using Stream = CUstream_st*;

template <typename Level>
struct CpuOf {};
/// The threads of this process (kernels/cpu/parallel.h). An operation has finished when it returns.
using Cpu = CpuOf<struct VOCA_CPU_LEVEL>;

/// The current GPU of the calling thread. An operation is queued on the stream, and throws cuda::Error if
/// CUDA rejects it.
struct Cuda {
  Stream stream = nullptr;
};

}  // namespace voca::kernels

/// X(T, ...) for every element type T of the operations on a backend. Instantiations, the dispatch of
/// engine/ops and the test cases derive from these lists.
#define VOCA_CPU_TYPES(X, ...) X(float __VA_OPT__(, ) __VA_ARGS__) X(double __VA_OPT__(, ) __VA_ARGS__)
#define VOCA_CUDA_TYPES(X) X(float) VOCA_TENSOR_CORE_TYPES(X)
/// The types of the operations on the tensor cores.
#define VOCA_TENSOR_CORE_TYPES(X) X(__nv_bfloat16) X(__half)
