#pragma once

#include "engine/core/context.h"
#include "engine/core/parameters.h"
#include "engine/ops/ops.h"
#include "model/parameter_table.h"

// Blocks of the network, each with forward and backward. They own no memory: weights are in the parameter
// store, activations in the context's arena. Forward returns views of the activations saved for backward; in
// inference it releases everything but its output. Shapes: B batch, T frames, H hidden; a sequence is (B, T,
// H).

namespace voca::model {

/// Environment of a pass over the network.
struct Pass {
  engine::Context& context;
  const engine::ParameterStore& parameters;
  const engine::StepRandom* random = nullptr;  ///< null in inference: no dropout, nothing saved

  [[nodiscard]] bool training() const { return random != nullptr; }
  [[nodiscard]] engine::Tensor weight(engine::ParameterId id) const { return parameters.weight(id); }
  [[nodiscard]] engine::Tensor gradient(engine::ParameterId id) const { return parameters.gradient(id); }
  [[nodiscard]] engine::Tensor allocate(const char* name, const engine::Shape& shape) const {
    return context.allocate(name, shape, parameters.compute_type());
  }
  [[nodiscard]] engine::Tensor allocate_statistics(const char* name, const engine::Shape& shape) const {
    return context.allocate(name, shape, engine::statistics_type(parameters.compute_type()));
  }
  /// Marks gradients as final up to and including that of `last`, in the order of backward.
  void mark_final(engine::ParameterId last) const {
    if (context.gradients != nullptr) context.gradients->final_until(parameters.flat_end(last));
  }
  [[nodiscard]] kernels::Dropout dropout(std::uint32_t site, double p,
                                         std::int64_t elements_per_sample) const {
    return training() ? random->dropout(site, p, elements_per_sample) : kernels::Dropout{};
  }
};

/// Activations that a layer normalisation saves for backward.
struct NormState {
  engine::Tensor z;
  engine::Tensor mean;
  engine::Tensor rstd;
};

/// Projection block: y = dropout(LN(x Wᵀ + b)).
struct Projection {
  ProjectionParameters parameters;
  double dropout = 0;
  std::uint32_t site = 0;
};

/// x (B, T, width) → y (B, T, H), overwritten.
NormState project(const Pass& pass, const Projection& block, const engine::Tensor& x, engine::Tensor y);
/// Overwrites dy. Gradients of the parameters accumulate; the features' gradient is not computed.
void project_backward(const Pass& pass, const Projection& block, const NormState& state,
                      const engine::Tensor& x, engine::Tensor dy);

/// Attention block with residual and norm: y = LN(query + dropout(MHA(query, memory))).
struct AttentionBlock {
  AttentionParameters parameters;
  bool self = false;  ///< query and memory are the same sequence: one GEMM projects q, k and v
  std::int64_t heads = 1;
  double probability_dropout = 0;
  double residual_dropout = 0;
  std::uint32_t probability_site = 0;
  std::uint32_t residual_site = 0;
};

struct AttentionState {
  engine::ops::Heads q;
  engine::ops::Heads k;
  engine::ops::Heads v;
  engine::Tensor attended;   ///< (B, T_q, H) before the output projection
  engine::Tensor logsumexp;  ///< (B, N, T_q)
  NormState norm;
};

/// query (B, T_q, H), memory (B, T_k, H). y is overwritten.
AttentionState attend(const Pass& pass, const AttentionBlock& block, const engine::Tensor& query,
                      const engine::Tensor& memory, engine::Tensor y);

struct AttentionInputGradients {
  engine::Tensor dquery;
  bool accumulate_dquery = false;
  engine::Tensor dmemory;  ///< the same tensor as dquery in self-attention
  bool accumulate_dmemory = false;
};
/// Does not modify dy.
void attend_backward(const Pass& pass, const AttentionBlock& block, const AttentionState& state,
                     const engine::Tensor& query, const engine::Tensor& memory, const engine::Tensor& dy,
                     const AttentionInputGradients& gradients);

/// Feed-forward block with residual and norm: y = LN(x + dropout(W₂ dropout(gelu(W₁ x)))).
struct FeedForward {
  FeedForwardParameters parameters;
  double dropout = 0;
  std::uint32_t activation_site = 0;
  std::uint32_t residual_site = 0;
};

struct FeedForwardState {
  engine::Tensor u;  ///< (B, T, 4H): x W₁ᵀ, without bias
  engine::Tensor h;  ///< (B, T, 4H): dropout(gelu(u + b₁))
  NormState norm;
};

FeedForwardState feed_forward(const Pass& pass, const FeedForward& block, const engine::Tensor& x,
                              engine::Tensor y);
/// Overwrites dx; does not modify dy.
void feed_forward_backward(const Pass& pass, const FeedForward& block, const FeedForwardState& state,
                           const engine::Tensor& x, const engine::Tensor& dy, engine::Tensor dx);

/// Two linear maps with a GELU between them: the classifier and the contrastive head.
struct Mlp {
  LinearParameters first;
  LinearParameters second;
  double dropout = 0;
  std::uint32_t site = 0;
};

struct MlpState {
  engine::Tensor u;  ///< (rows, middle), without bias
  engine::Tensor h;  ///< (rows, middle)
};

/// x (rows, in) → y (rows, out), overwritten.
MlpState mlp(const Pass& pass, const Mlp& block, const engine::Tensor& x, engine::Tensor y);
/// Overwrites dx.
void mlp_backward(const Pass& pass, const Mlp& block, const MlpState& state, const engine::Tensor& x,
                  const engine::Tensor& dy, engine::Tensor dx);

}  // namespace voca::model
