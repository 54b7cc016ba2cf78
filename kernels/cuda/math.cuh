//! Elementary functions: those of `math.rs`, operation by operation, so that the CPU, the emulator, the interpreter and a
//! GPU compute the same bits. They are made of what IEEE 754 defines exactly (sums, products, quotients and integer
//! arithmetic), never of a GPU's approximations, whose bits nothing else can reproduce.
#pragma once
#include "cuda/dialect.cuh"

namespace graft {

/// x within low..high; NaN stays NaN.
__device__ __forceinline__ double clamp(double x, double low, double high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}

__device__ __forceinline__ double magnitude(double x) { return as_double(as_bits(x) & ~(1ull << 63)); }
__device__ __forceinline__ float magnitude(float x) { return as_float(as_bits(x) & ~(1u << 31)); }

/// The magnitude of x with the sign of y.
__device__ __forceinline__ double with_sign(double x, double y) {
  return as_double((as_bits(x) & ~(1ull << 63)) | (as_bits(y) & (1ull << 63)));
}

/// c[0] + c[1]·x + c[2]·x² + …, from the highest power down.
template <int N> __device__ __forceinline__ double polynomial(const double (&c)[N], double x) {
  double p = 0;
#pragma unroll
  for (int i = N - 1; i >= 0; i--) p = p * x + c[i];
  return p;
}

/// e^x for x in about ±700, to 1e-12: 2^n · e^r with |r| ≤ ln 2 / 2 and the Taylor polynomial of degree 10.
__device__ __forceinline__ double exp64(double x) {
  constexpr double TAYLOR[] = {1.0,         1.0,          1.0 / 2.0,     1.0 / 6.0,      1.0 / 24.0,     1.0 / 120.0,
                               1.0 / 720.0, 1.0 / 5040.0, 1.0 / 40320.0, 1.0 / 362880.0, 1.0 / 3628800.0};
  // Adding 1.5 · 2^52 rounds to an integer and leaves it in the low bits.
  constexpr double ROUND = 6755399441055744.0, LOG2_E = 1.44269504088896340736, LN_2 = 0.693147180559945309417;
  const double shifted = x * LOG2_E + ROUND;
  const double r = x - (shifted - ROUND) * LN_2;
  return polynomial(TAYLOR, r) * as_double((as_bits(shifted) << 52) + (1023ull << 52));
}

__device__ __forceinline__ float exp(float x) { return static_cast<float>(exp64(clamp(x, -150.0, 150.0))); }

/// e^x in f32 alone, to two units in the last place and 0 where that would be no normal number.
__device__ __forceinline__ float quick_exp(float x) {
  // 1.5 · 2^23, and ln 2 in two parts, of which products of the first with small integers are exact.
  constexpr float ROUND = 12582912.0f, LOG2_E = 1.44269504088896340736f, LN_2[] = {0.6933594f, -2.1219444e-4f};
  constexpr float TAYLOR[] = {1.0f,         1.0f,          1.0f / 2.0f,   1.0f / 6.0f,
                              1.0f / 24.0f, 1.0f / 120.0f, 1.0f / 720.0f, 1.0f / 5040.0f};
  const float shifted = x * LOG2_E + ROUND;
  const float n = shifted - ROUND;
  const float r = (x - n * LN_2[0]) - n * LN_2[1];
  float y = 0.f;
#pragma unroll
  for (int i = 7; i >= 0; i--) y = y * r + TAYLOR[i];
  y *= as_float((as_bits(shifted) << 23) + (127u << 23));
  y = x < -87.0f ? 0.0f : y;
  return x > 88.0f ? as_float(0x7f800000u) : y;
}

/// 1 / (1 + e^-x).
__device__ __forceinline__ float sigmoid(float x) {
  return static_cast<float>(1.0 / (1.0 + exp64(clamp(-static_cast<double>(x), -150.0, 150.0))));
}

/// x / (1 + e^-x).
__device__ __forceinline__ float silu(float y) {
  const double x = y;
  // Far below zero the gate is 0 to the last bit of any product.
  const double gate = x < -700.0 ? 0.0 : 1.0 / (1.0 + exp64(clamp(-x, -700.0, 700.0)));
  return static_cast<float>(x * gate);
}

__device__ __forceinline__ double tanh64(double x) {
  const double e = exp64(clamp(2.0 * x, -60.0, 60.0));
  const double far = (e - 1.0) / (e + 1.0);
  // Near zero the difference cancels; the series is exact to 3e-12 there.
  const double near = x * (1.0 - x * x * (1.0 / 3.0 - x * x * (2.0 / 15.0)));
  return magnitude(x) < 0.02 ? near : far;
}

__device__ __forceinline__ float tanh(float x) { return static_cast<float>(tanh64(x)); }

/// erf(x), given e^(-x²).
__device__ __forceinline__ double erf_given(double x, double bell) {
  // In t = (z - 2) / (z + 2): erfc(z) · e^(z²) · (1 + 2z) for 0.4 ≤ z ≤ 6.2; a Chebyshev fit with error 1.2e-11.
  constexpr double TAIL[] = {1.2769783815580689,    -0.09276382636782453,   -0.16603039896952074,  0.16405126423503317,
                             -0.05421995035968231,  -0.008033676521067713,  0.008721992812640553,  0.0012681174437598733,
                             -0.0014531357493063925, -0.0004388998346001699, 0.000198198718762373, 0.00011410704049625308};
  // In x²: erf(x) / x for |x| ≤ 0.5; a Chebyshev fit with error 2e-13.
  constexpr double NEAR[] = {1.1283791670953816,   -0.37612638898217227,   0.11283791364422359,    -0.02686609961393399,
                             0.005223192204459037, -0.0008503560720416463, 0.00010777043509615104};
  const double z = clamp(magnitude(x), 0.4, 6.2);
  const double tail = polynomial(TAIL, (z - 2.0) / (z + 2.0)) / (1.0 + 2.0 * z) * bell;
  const double near = x * polynomial(NEAR, x * x);
  return magnitude(x) < 0.5 ? near : with_sign(1.0 - tail, x) + 0.0 * x;
}

__device__ __forceinline__ double erf64(double x) {
  const double z = clamp(magnitude(x), 0.4, 6.2);
  return erf_given(x, exp64(-z * z));
}

__device__ __forceinline__ float erf(float x) { return static_cast<float>(erf64(clamp(x, -10.0, 10.0))); }

inline constexpr double SQRT_2_OVER_PI = 0.7978845608028654, FRAC_1_SQRT_2 = 0.707106781186547524400844362104849039;

/// x · Φ(x) with the normal distribution's Φ.
__device__ __forceinline__ float gelu(float y) {
  const double x = y;
  return static_cast<float>(x * (0.5 * (1.0 + erf64(clamp(x * FRAC_1_SQRT_2, -10.0, 10.0)))));
}

/// dy · (Φ(x) + x · φ(x)).
__device__ __forceinline__ float gelu_grad(float dy, float y) {
  const double x = clamp(y, -14.0, 14.0), z = x * FRAC_1_SQRT_2, bell = exp64(-z * z);
  const double phi = 0.5 * (1.0 + erf_given(z, bell)), density = 0.5 * SQRT_2_OVER_PI * bell;
  return static_cast<float>(static_cast<double>(dy) * (phi + x * density));
}

/// 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))).
__device__ __forceinline__ float gelu_tanh(float y) {
  const double x = y;
  return static_cast<float>(0.5 * x * (1.0 + tanh64(SQRT_2_OVER_PI * (x + 0.044715 * x * x * x))));
}

/// dy times the derivative of `gelu_tanh`.
__device__ __forceinline__ float gelu_tanh_grad(float dy, float y) {
  const double x = clamp(y, -1e3, 1e3), t = tanh64(SQRT_2_OVER_PI * (x + 0.044715 * x * x * x));
  const double inner = SQRT_2_OVER_PI * (1.0 + 3.0 * 0.044715 * x * x);
  return static_cast<float>(static_cast<double>(dy) * (0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner));
}

/// ln((1 + s) / (1 - s)) for |s| ≤ 0.172, to 1e-14.
__device__ __forceinline__ double log_of_ratio(double s) {
  constexpr double SERIES[] = {2.0,       2.0 / 3.0,  2.0 / 5.0,  2.0 / 7.0, 2.0 / 9.0,
                               2.0 / 11.0, 2.0 / 13.0, 2.0 / 15.0, 2.0 / 17.0};
  return s * polynomial(SERIES, s * s);
}

/// The natural logarithm of a positive, finite and normal number: of its mantissa, brought into √½..√2, and its exponent.
__device__ __forceinline__ double log64(double x) {
  constexpr double LN_2 = 0.693147180559945309417;
  constexpr u64 SQRT_HALF = 0x3fe6a09e667f3bcdull;
  // Subtracting √½'s bits makes the exponent count from there.
  const i64 exponent = static_cast<i64>(as_bits(x) - SQRT_HALF) >> 52;
  const double m = as_double(as_bits(x) - (static_cast<u64>(exponent) << 52));
  return static_cast<double>(exponent) * LN_2 + log_of_ratio((m - 1.0) / (m + 1.0));
}

inline constexpr u32 INFINITE = 0x7f800000u, NOT_A_NUMBER = 0x7fc00000u;

/// The natural logarithm.
__device__ __forceinline__ float log(float x) {
  if (!(x > 0.f)) return x == 0.f ? as_float(INFINITE | 1u << 31) : as_float(NOT_A_NUMBER);
  return as_bits(x) == INFINITE ? x : static_cast<float>(log64(x));
}

/// ln(1 + e^x), without overflow.
__device__ __forceinline__ float softplus(float y) {
  const double x = y, e = exp64(clamp(-magnitude(x), -700.0, 0.0));
  // Small, it would be lost beside 1.
  const double log1p = e < 0.4 ? log_of_ratio(e / (2.0 + e)) : log64(1.0 + e);
  return static_cast<float>((x < 0.0 ? 0.0 : x) + log1p);
}

/// base ^ exponent, with the results that IEEE 754 gives to zeros, infinities and negative bases.
__device__ __forceinline__ float pow(float base, float exponent) {
  if (exponent == 0.f || base == 1.f) return 1.f;
  if (base != base || exponent != exponent) return as_float(NOT_A_NUMBER);
  const float size = magnitude(base), power = magnitude(exponent);
  // From 2^24 on every number is even; below, what is left of its half tells.
  const bool is_whole = power >= 16777216.f || static_cast<float>(static_cast<int>(power)) == power;
  const bool is_odd = is_whole && power < 16777216.f && static_cast<int>(power) % 2 == 1;
  float result;
  if (size == 0.f || as_bits(size) == INFINITE) {
    result = (size == 0.f) == (exponent > 0.f) ? 0.f : as_float(INFINITE);
  } else if (as_bits(power) == INFINITE) {
    result = size == 1.f ? 1.f : (size > 1.f) == (exponent > 0.f) ? as_float(INFINITE) : 0.f;
  } else {
    if (base < 0.f && !is_whole) return as_float(NOT_A_NUMBER);
    result = static_cast<float>(exp64(clamp(static_cast<double>(exponent) * log64(size), -150.0, 150.0)));
  }
  return as_float(as_bits(result) | (is_odd ? as_bits(base) & 1u << 31 : 0u));
}

/// x = quarter · π/2 + rest, with |rest| ≤ π/4; the quarter counts up to multiples of 4.
struct Angle {
  double rest;
  u32 quarter;
};

/// x · 2/π is its 24 bits times those bits of 2/π that give no multiples of 4 (Payne and Hanek 1983).
__device__ __forceinline__ Angle reduce_large(float x) {
  constexpr u32 TWO_OVER_PI[] = {0,          0xa2f9836e, 0x4e441529, 0xfc2757d1,
                                 0xf534ddc0, 0xdb629599, 0x3c439041, 0xfe5163ab};
  const u64 mantissa = (as_bits(x) & 0x7fffffu) | 0x800000u;
  // The number is mantissa · 2^(first - 30); bit `first` of the table is the first that counts.
  const u32 first = (as_bits(x) >> 23) - 120, shift = first % 32;
  u64 words[4] = {};
#pragma unroll
  for (u32 i = 0; i < 5; i++) {
#pragma unroll
    for (u32 j = 0; j < 4; j++) words[j] = first / 32 == i ? TWO_OVER_PI[i + j] : words[j];
  }
  const auto word = [&](int i) { return (words[i] << shift | words[i + 1] >> (32 - shift)) & 0xffffffffull; };
  u64 turns = (mantissa * word(0) << 32) + mantissa * word(1) + (mantissa * word(2) >> 32);
  const u64 quarter = (turns + (1ull << 61)) >> 62;
  turns -= quarter << 62;
  return {static_cast<double>(static_cast<i64>(turns)) * (1.57079632679489661923 / 4611686018427387904.0),
          static_cast<u32>(quarter)};
}

/// For finite x that is not negative.
__device__ __forceinline__ Angle reduce_angle(float x) {
  if (x >= 65536.f) return reduce_large(x);
  // π/2 in two parts: products of the first with numbers of 17 bits are exact.
  constexpr double ROUND = 6755399441055744.0, TWO_OVER_PI = 0.636619772367581343076;
  constexpr double HALF_PI[] = {1.57079632673412561417, 6.07710050650619224932e-11};
  const double shifted = x * TWO_OVER_PI + ROUND, n = shifted - ROUND;
  return {(x - n * HALF_PI[0]) - n * HALF_PI[1], static_cast<u32>(as_bits(shifted))};
}

/// The sine of rest + quarter · π/2.
__device__ __forceinline__ double sine_of(Angle angle) {
  constexpr double SINE[] = {1.0,
                             -1.0 / 6.0,
                             1.0 / 120.0,
                             -1.0 / 5040.0,
                             1.0 / 362880.0,
                             -1.0 / 39916800.0,
                             1.0 / 6227020800.0,
                             -1.0 / 1307674368000.0};
  constexpr double COSINE[] = {1.0,
                               -1.0 / 2.0,
                               1.0 / 24.0,
                               -1.0 / 720.0,
                               1.0 / 40320.0,
                               -1.0 / 3628800.0,
                               1.0 / 479001600.0,
                               -1.0 / 87178291200.0,
                               1.0 / 20922789888000.0};
  const double x = angle.rest, square = x * x;
  const double y = angle.quarter % 2 == 0 ? x * polynomial(SINE, square) : polynomial(COSINE, square);
  return angle.quarter % 4 < 2 ? y : -y;
}

__device__ __forceinline__ float sin(float x) {
  const float size = magnitude(x);
  if (!(size < as_float(INFINITE))) return as_float(NOT_A_NUMBER);
  const float y = static_cast<float>(sine_of(reduce_angle(size)));
  return as_bits(x) >> 31 ? -y : y;
}

__device__ __forceinline__ float cos(float x) {
  const float size = magnitude(x);
  if (!(size < as_float(INFINITE))) return as_float(NOT_A_NUMBER);
  const Angle angle = reduce_angle(size);
  return static_cast<float>(sine_of({angle.rest, angle.quarter + 1}));
}

}  // namespace graft
