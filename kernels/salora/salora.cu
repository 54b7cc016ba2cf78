//! The gates of SaLoRA: `t = σ(gate + ln draw − ln(1 − draw))`, `g = clip((12·t − 1)/10, 0, 1)`, and their gradient. They
//! scale the ranks as AdaLoRA's singular values do, by the kernels of `adalora.cu`.
#include "cuda/math.cuh"

using namespace graft;

extern "C" __global__ void __launch_bounds__(64)
salora_gates(const float* gate, const float* draw, float* t, float* g, int rank) {
  const int i = threadIdx.x;
  if (i >= rank) return;
  const double noise = log64(draw[i]) - log64(1.0 - static_cast<double>(draw[i]));
  t[i] = sigmoid(static_cast<float>(gate[i] + noise));
  g[i] = static_cast<float>(clamp((static_cast<double>(t[i]) * 12.0 - 1.0) / 10.0, 0.0, 1.0));
}

/// `dgate = 1.2·t·(1 − t)·dg` where the gate is neither shut nor wholly open.
extern "C" __global__ void __launch_bounds__(64)
salora_gate_grad(const float* dg, const float* t, const float* g, float* dgate, int rank) {
  const int i = threadIdx.x;
  if (i >= rank) return;
  const double slope = 1.2 * t[i] * (1.0 - static_cast<double>(t[i]));
  dgate[i] = g[i] > 0.f && g[i] < 1.f ? static_cast<float>(dg[i] * slope) : 0.f;
}
