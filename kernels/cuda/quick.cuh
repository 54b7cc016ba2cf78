//! Elementary functions in f32 alone, for results that are rounded to 16 bits and do not show that they err by up to 2⁻¹⁵:
//! those of `math.cuh` are made of f64, of which most GPUs do a thirty-second or sixty-fourth part as much.
#pragma once
#include "cuda/math.cuh"

namespace graft::quick {

/// x within low..high; NaN stays NaN.
__device__ __forceinline__ float clamp(float x, float low, float high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}

/// c[0] + c[1]·x + c[2]·x² + …, from the highest power down.
template <int N> __device__ __forceinline__ float polynomial(const float (&c)[N], float x) {
  float p = c[N - 1];
#pragma unroll
  for (int i = N - 2; i >= 0; i--) p = graft::fma(p, x, c[i]);
  return p;
}

/// 1 / (1 + e^-x).
__device__ __forceinline__ float sigmoid(float x) { return 1.f / (1.f + quick_exp(-x)); }

/// x / (1 + e^-x).
__device__ __forceinline__ float silu(float x) { return x * sigmoid(x); }

__device__ __forceinline__ float tanh(float x) {
  constexpr float SERIES[] = {1.f, -1.f / 3.f, 2.f / 15.f, -17.f / 315.f};
  // Near zero the difference cancels.
  const float near = x * polynomial(SERIES, x * x), far = 1.f - 2.f / (quick_exp(2.f * x) + 1.f);
  return magnitude(x) < 0.25f ? near : far;
}

/// The normal distribution's Φ(x), given e^(-x²/2).
__device__ __forceinline__ float normal(float x, float bell) {
  // In t = (z - 2) / (z + 2), z = |x|/√2: erfc(z) · e^(z²) · (1 + 2z); a Chebyshev fit with error 1e-6.
  constexpr float TAIL[] = {1.27697873f,   -0.0927566290f,  -0.166046798f, 0.163949758f, -0.0540863313f,
                            -0.00763280503f, 0.00833740178f, 0.000629922084f, -0.000993698020f};
  const float z = magnitude(x) * 0.70710678f, sum = z + 2.f, twice = graft::fma(2.f, z, 1.f);
  const float inverse = 1.f / (sum * twice);
  const float tail = 0.5f * polynomial(TAIL, (z - 2.f) * twice * inverse) * (sum * inverse) * bell;
  return x < 0.f ? tail : 1.f - tail;
}

/// Where e^(-x²/2) is 0 to f32, and so are Φ(x) or 1 − Φ(x).
inline constexpr float FAR = 14.f;

__device__ __forceinline__ float bell_of(float x) { return quick_exp(-0.5f * (x * x)); }

/// x · Φ(x).
__device__ __forceinline__ float gelu(float x) {
  const float c = clamp(x, -FAR, FAR);
  return x * normal(c, bell_of(c));
}

/// dy · (Φ(x) + x · φ(x)).
__device__ __forceinline__ float gelu_grad(float dy, float x) {
  const float c = clamp(x, -FAR, FAR), bell = bell_of(c);
  return dy * graft::fma(c * 0.39894228f, bell, normal(c, bell));
}

/// 0.5 x (1 + tanh(u)) = x / (1 + e^(-2u)), u = √(2/π) (x + 0.044715 x³).
__device__ __forceinline__ float gelu_tanh(float x) {
  const float c = clamp(x, -FAR, FAR);
  return x * sigmoid(1.5957691f * graft::fma(0.044715f * c, c * c, c));
}

/// dy times the derivative of `gelu_tanh`.
__device__ __forceinline__ float gelu_tanh_grad(float dy, float x) {
  const float c = clamp(x, -FAR, FAR), s = sigmoid(1.5957691f * graft::fma(0.044715f * c, c * c, c));
  const float inner = 1.5957691f * graft::fma(0.134145f, c * c, 1.f);
  return dy * graft::fma(c * s * (1.f - s), inner, s);
}

}  // namespace graft::quick
