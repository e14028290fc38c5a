#pragma once

#include "engine/core/context.h"
#include "engine/core/parameters.h"
#include "engine/ops/ops.h"
#include "model/parameter_table.h"

// The blocks of the network, each forward and backward. They own no memory: weights come from the parameter
// store, activations from the context's arena. Forward returns views of what backward needs; in inference it
// gives everything back but its output. Shapes: B batch, T frames, H hidden; a sequence is (B, T, H).

namespace voca::model {

/// What a pass over the network runs with.
struct Pass {
  engine::Context& context;
  const engine::ParameterStore& parameters;
  const engine::StepRandom* random = nullptr;  ///< null in inference: nothing is dropped, nothing saved

  [[nodiscard]] bool training() const { return random != nullptr; }
  [[nodiscard]] engine::Tensor weight(engine::ParameterId id) const { return parameters.weight(id); }
  [[nodiscard]] engine::Tensor gradient(engine::ParameterId id) const { return parameters.gradient(id); }
  [[nodiscard]] engine::Tensor allocate(const char* name, const engine::Shape& shape) const {
    return context.allocate(name, shape, parameters.compute_type());
  }
  [[nodiscard]] engine::Tensor allocate_statistics(const char* name, const engine::Shape& shape) const;
  [[nodiscard]] kernels::Dropout dropout(std::uint32_t site, double p,
                                         std::int64_t elements_per_sample) const {
    return training() ? random->dropout(site, p, elements_per_sample) : kernels::Dropout{};
  }
};

/// What a layer normalisation saves.
struct NormState {
  engine::Tensor z;
  engine::Tensor mean;
  engine::Tensor rstd;
};

// -- projection: y = dropout(LN(x Wᵀ + b))
// --------------------------------------------------------------------------

struct Projection {
  ProjectionParameters parameters;
  double dropout = 0;
  std::uint32_t site = 0;
};

/// x (B, T, width) → y (B, T, H), overwritten.
NormState project(const Pass& pass, const Projection& block, const engine::Tensor& x,
                  const engine::Tensor& y);
/// dy is overwritten on the way. Gradients of the parameters accumulate; the features need none.
void project_backward(const Pass& pass, const Projection& block, const NormState& state,
                      const engine::Tensor& x, const engine::Tensor& dy);

// -- attention with residual and norm: y = LN(query + dropout(MHA(query, memory)))
// ---------------------------------------

struct AttentionBlock {
  AttentionParameters parameters;
  bool self = false;  ///< query and memory are the same sequence: one projection makes q, k and v
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
                      const engine::Tensor& memory, const engine::Tensor& y);

struct AttentionInputGradients {
  engine::Tensor dquery;
  bool accumulate_dquery = false;
  engine::Tensor dmemory;  ///< the same tensor as dquery in self-attention
  bool accumulate_dmemory = false;
};
/// dy is left as it is.
void attend_backward(const Pass& pass, const AttentionBlock& block, const AttentionState& state,
                     const engine::Tensor& query, const engine::Tensor& memory, const engine::Tensor& dy,
                     const AttentionInputGradients& gradients);

// -- feed-forward with residual and norm: y = LN(x + dropout(W₂ dropout(gelu(W₁ x))))
// ------------------------------------

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
                              const engine::Tensor& y);
/// dx is overwritten; dy is left as it is.
void feed_forward_backward(const Pass& pass, const FeedForward& block, const FeedForwardState& state,
                           const engine::Tensor& x, const engine::Tensor& dy, const engine::Tensor& dx);

// -- two linear maps with a GELU between them: the classifier and the contrastive head
// --------------------------------------

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
MlpState mlp(const Pass& pass, const Mlp& block, const engine::Tensor& x, const engine::Tensor& y);
/// dx is overwritten.
void mlp_backward(const Pass& pass, const Mlp& block, const MlpState& state, const engine::Tensor& x,
                  const engine::Tensor& dy, const engine::Tensor& dx);

}  // namespace voca::model
