#include "engine/cuda/graphs.h"

#include <spdlog/spdlog.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/cuda/check.h"
#include "kernels/elementwise.h"

namespace voca::engine::cuda {
namespace {

using Nodes = std::vector<cudaGraphNode_t>;

/// The nodes returned by ask(of, array, count), which returns their number if the array is null.
template <typename Of>
Nodes nodes_of(cudaError_t (*ask)(Of, cudaGraphNode_t*, std::size_t*), Of of) {
  std::size_t count = 0;
  VOCA_CUDA(ask(of, nullptr, &count));
  Nodes nodes(count);
  VOCA_CUDA(ask(of, nodes.data(), &count));
  return nodes;
}

// CUDA 13 also returns edge data, which is not needed here.
#if CUDART_VERSION >= 13000
cudaError_t before(cudaGraphNode_t node, cudaGraphNode_t* out, std::size_t* count) {
  return cudaGraphNodeGetDependencies(node, out, nullptr, count);
}
cudaError_t after(cudaGraphNode_t node, cudaGraphNode_t* out, std::size_t* count) {
  return cudaGraphNodeGetDependentNodes(node, out, nullptr, count);
}
cudaError_t connect(cudaGraph_t graph, cudaGraphNode_t from, cudaGraphNode_t to) {
  return cudaGraphAddDependencies(graph, &from, &to, nullptr, 1);
}
#else
cudaError_t before(cudaGraphNode_t node, cudaGraphNode_t* out, std::size_t* count) {
  return cudaGraphNodeGetDependencies(node, out, count);
}
cudaError_t after(cudaGraphNode_t node, cudaGraphNode_t* out, std::size_t* count) {
  return cudaGraphNodeGetDependentNodes(node, out, count);
}
cudaError_t connect(cudaGraph_t graph, cudaGraphNode_t from, cudaGraphNode_t to) {
  return cudaGraphAddDependencies(graph, &from, &to, 1);
}
#endif

/// Replaces memset nodes of one word by kernels. cuBLASLt queues one before most GEMMs; between two kernels,
/// any other node costs a GPU 4 µs, a kernel 1.5 µs.
void set_words_by_kernels(cudaGraph_t graph) {
  for (cudaGraphNode_t node : nodes_of(cudaGraphGetNodes, graph)) {
    cudaGraphNodeType type{};
    VOCA_CUDA(cudaGraphNodeGetType(node, &type));
    if (type != cudaGraphNodeTypeMemset) continue;
    cudaMemsetParams set{};
    VOCA_CUDA(cudaGraphMemsetNodeGetParams(node, &set));
    if (set.elementSize * set.width != sizeof(std::uint32_t) || set.height != 1 ||
        reinterpret_cast<std::uintptr_t>(set.dst) % sizeof(std::uint32_t) != 0)
      continue;
    auto* word = static_cast<std::uint32_t*>(set.dst);
    // Replicates the element's value across the word.
    std::uint32_t value = set.value;
    if (set.elementSize == 1) value = (value & 0xFFU) * 0x01010101U;
    if (set.elementSize == 2) value = (value & 0xFFFFU) * 0x00010001U;
    void* arguments[] = {static_cast<void*>(&word), static_cast<void*>(&value)};
    cudaKernelNodeParams kernel{};
    kernel.func = reinterpret_cast<void*>(kernels::set_word(kernels::Cuda{}));
    kernel.gridDim = dim3(1);
    kernel.blockDim = dim3(1);
    kernel.kernelParams = arguments;
    const Nodes earlier = nodes_of(before, node);
    const Nodes later = nodes_of(after, node);
    cudaGraphNode_t replacement = nullptr;
    VOCA_CUDA(cudaGraphAddKernelNode(&replacement, graph, earlier.data(), earlier.size(), &kernel));
    for (cudaGraphNode_t next : later) VOCA_CUDA(connect(graph, replacement, next));
    VOCA_CUDA(cudaGraphDestroyNode(node));
  }
}

}  // namespace

Graphs::~Graphs() {
  for (const auto& [kind, executable] : executables_) {
    if (executable != nullptr) VOCA_REPORT(cudaGraphExecDestroy(executable));
  }
}

void Graphs::queue(std::uint64_t kind, cudaStream_t stream, const std::function<void()>& work) {
  const auto [place, first] = executables_.try_emplace(kind, nullptr);
  if (first || !can_capture_) return work();
  cudaGraph_t graph = capture(stream, work);
  if (graph == nullptr) {
    can_capture_ = false;
    spdlog::warn("a step cannot be queued as a CUDA graph; its kernels are queued one by one");
    return work();
  }
  set_words_by_kernels(graph);
  cudaGraphExec_t& executable = place->second;
  cudaGraphExecUpdateResultInfo difference{};
  if (executable != nullptr && cudaGraphExecUpdate(executable, graph, &difference) != cudaSuccess) {
    (void)cudaGetLastError();  // its nodes differ now
    VOCA_CUDA(cudaGraphExecDestroy(executable));
    executable = nullptr;
  }
  if (executable == nullptr) VOCA_CUDA(cudaGraphInstantiate(&executable, graph, 0));
  VOCA_CUDA(cudaGraphDestroy(graph));
  VOCA_CUDA(cudaGraphLaunch(executable, stream));
}

cudaGraph_t capture(cudaStream_t stream, const std::function<void()>& work) {
  cudaGraph_t graph = nullptr;
  VOCA_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  try {
    work();
  } catch (...) {
    // A call forbidden during capture invalidates it. Otherwise the exception is work's own.
    const bool broken = cudaStreamEndCapture(stream, &graph) != cudaSuccess;
    (void)cudaGetLastError();
    if (graph != nullptr) VOCA_REPORT(cudaGraphDestroy(graph));
    if (broken) return nullptr;
    throw;
  }
  if (cudaStreamEndCapture(stream, &graph) == cudaSuccess) return graph;
  (void)cudaGetLastError();
  return nullptr;
}

}  // namespace voca::engine::cuda
