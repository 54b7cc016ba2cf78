//! Optimiser steps of f32 weights, each element in f64 and rounded once. The learning rate and the count of steps lie in
//! device memory, so that a captured step can be replayed with others.
//!
//! AdamW: `m' = β₁m + (1−β₁)g`, `v' = β₂v + (1−β₂)g²`, `p' = p − lr·λ·p − lr·(m'/(1−β₁ᵗ)) / (√(v'/(1−β₂ᵗ)) + ε)`.
//! SGD: `p' = p − lr·(g + λ·p)`.
#include "cuda/walk.cuh"

using namespace graft;

namespace {

/// base ^ n for n ≥ 0, by squaring.
__device__ __forceinline__ double power(double base, i64 n) {
  double result = 1.0;
  for (; n > 0; n >>= 1) {
    if (n & 1) result *= base;
    base *= base;
  }
  return result;
}

}  // namespace

/// There is one step t for all elements, or (`steps_apart` = 1) one for each. Results may lie where the operands do.
extern "C" __global__ void __launch_bounds__(256)
adamw(const float* p, const float* g, const float* m, const float* v, const float* rate, const i64* steps, float* p_next,
      float* m_next, float* v_next, i64 n, i64 steps_apart, float beta1, float beta2, float epsilon, float weight_decay) {
  const double b1 = beta1, b2 = beta2, lr = *rate;
  i64 step = steps[0];
  double correct1 = 1.0 - power(b1, step), correct2 = 1.0 - power(b2, step);
  each(n, [&](i64 i) {
    if (steps[i * steps_apart] != step) {
      step = steps[i * steps_apart];
      correct1 = 1.0 - power(b1, step);
      correct2 = 1.0 - power(b2, step);
    }
    const double value = p[i], slope = g[i];
    const double mean = b1 * m[i] + (1.0 - b1) * slope, square = b2 * v[i] + (1.0 - b2) * slope * slope;
    const double update = mean / correct1 / (graft::sqrt(square / correct2) + epsilon);
    p_next[i] = static_cast<float>(value - lr * weight_decay * value - lr * update);
    m_next[i] = static_cast<float>(mean);
    v_next[i] = static_cast<float>(square);
  });
}

extern "C" __global__ void __launch_bounds__(256)
sgd(const float* p, const float* g, const float* rate, float* p_next, i64 n, float weight_decay) {
  const double lr = *rate, decay = weight_decay;
  each(n, [&](i64 i) {
    const double value = p[i];
    p_next[i] = static_cast<float>(value - lr * (g[i] + decay * value));
  });
}
