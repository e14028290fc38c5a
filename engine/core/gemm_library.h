#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "engine/core/dtype.h"
#include "kernels/gemm.h"

namespace voca::engine {

/// A GEMM as a library takes it. In a dry run its pointers are null.
struct LibraryGemm : kernels::Gemm<void> {
  DType dtype = DType::kF32;  ///< of all arrays: kF32, kBF16 or kF16; accumulation is fp32
  int alignment = 16;         ///< power of two that divides the start address of every operand, in bytes
};

/// Workspace of a GPU's GEMM library.
inline constexpr std::size_t kGemmWorkspaceBytes = std::size_t{32} << 20;

/// How the ranks of a job agree on GEMM algorithms: rank 0 chooses and sends, the others receive. The default
/// is a world of one.
struct AlgorithmSharing {
  bool chooses = true;
  std::function<void(const std::string& text)> tell{};  ///< on the choosing rank; null in a world of one
  std::function<std::string()> hear{};                  ///< on the others: waits for what `tell` sends
};

/// GEMM library of one GPU. A dry run passes every GEMM of the run to prepare(); tune() chooses an algorithm
/// for each once there is memory; gemm() then only queues. Each GEMM always takes the same algorithm, and
/// all algorithms are deterministic: the same build and device give the same bits.
class GemmLibrary {
 public:
  GemmLibrary() = default;
  GemmLibrary(const GemmLibrary&) = delete;
  GemmLibrary& operator=(const GemmLibrary&) = delete;
  virtual ~GemmLibrary() = default;

  /// Records a GEMM of a dry run.
  virtual void prepare(const LibraryGemm& args) = 0;
  /// Size of the workspace for gemm(); the owner of the run allocates it from the device by name.
  [[nodiscard]] virtual std::size_t workspace_bytes() const = 0;
  /// Takes over the workspace and chooses an algorithm for every recorded GEMM; may overwrite `memory`, the
  /// arena before the first step, to time candidates.
  virtual void tune(std::byte* workspace, std::byte* memory, std::size_t memory_bytes) = 0;
  /// Queues a GEMM on `stream`. If it was not recorded (a smaller last batch), it takes the first algorithm
  /// that the library proposes.
  virtual void gemm(const LibraryGemm& args, Stream stream) = 0;
  /// One line per algorithm that tune() chose, for the record of the run.
  [[nodiscard]] virtual std::vector<std::string> choices() const { return {}; }
};

}  // namespace voca::engine
