#pragma once

// How closely the network must agree with PyTorch and with itself, and why.

namespace voca::model::testing {

// Logits in fp32 from the same weights and input: the contract's 1e-5, absolute.
inline constexpr double kLogits = 1e-5;
// Gradients in fp32 against autograd in double, relative to the tensor's largest element: the contract's
// 1e-4.
inline constexpr double kGradients = 1e-4;
// The same mathematics in double in both programs: rounding alone, through a dozen blocks.
inline constexpr double kDouble = 1e-10;
// Gradients against central differences in double, relative: the contract's 1e-6.
inline constexpr double kCentralDifferences = 1e-6;
// Losses over 20 steps of training from the same weights, relative: the contract's 1e-3.
inline constexpr double kRun = 1e-3;
// A tensor whose gradients are all smaller than this times the network's largest is zero but for rounding,
// and is compared on that scale.
inline constexpr double kSmallestScale = 1e-6;

}  // namespace voca::model::testing
