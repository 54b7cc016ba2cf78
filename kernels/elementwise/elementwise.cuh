//! What generated element-wise kernels are made of, besides the language's operators: loads and stores by type, and the
//! conversions and choices that C++ leaves open.
#pragma once
#include "cuda/quick.cuh"

namespace graft {

/// An element as it is computed with: 16-bit floats as f32, all others as they are.
template <class T> __device__ __forceinline__ T value(T x) { return x; }
__device__ __forceinline__ float value(bf16 x) { return to_float(x); }
__device__ __forceinline__ float value(f16 x) { return to_float(x); }

/// What is computed, rounded to the element type; stored, and used further on, as if it had been stored.
template <class T, class V> __device__ __forceinline__ T element(V x) {
  if constexpr (SAME<T, bf16> || SAME<T, f16>) {
    return from_float<T>(x);
  } else {
    return static_cast<T>(x);
  }
}

template <class T> inline constexpr bool IS_FLOATING = SAME<T, float> || SAME<T, double>;

/// The largest number of an integer type; the smallest is −1 less it, or 0.
template <class T> inline constexpr T LARGEST = static_cast<T>(~0ull >> (65 - 8 * sizeof(T)));
template <> inline constexpr unsigned char LARGEST<unsigned char> = 255;
template <class T> inline constexpr T SMALLEST = SAME<T, unsigned char> ? T{0} : static_cast<T>(-LARGEST<T> - 1);

/// ONNX's Cast: floats are cut off, out of range the nearest number of the type (NaN: 0); integers wrap; anything but
/// zero is true.
template <class To, class From> __device__ __forceinline__ To convert(From x) {
  if constexpr (SAME<To, bool>) {
    return x != From{0};
  } else if constexpr (IS_FLOATING<From> && !IS_FLOATING<To>) {
    // LARGEST rounds up to a power of two as a float: what is below is in range.
    if (x >= static_cast<From>(LARGEST<To>)) return LARGEST<To>;
    if (x <= static_cast<From>(SMALLEST<To>)) return SMALLEST<To>;
    return x == x ? static_cast<To>(x) : To{0};
  } else {
    return static_cast<To>(x);
  }
}

/// The smaller of two numbers, NaN if the first is.
template <class T> __device__ __forceinline__ T minimum(T a, T b) { return a < b || a != a ? a : b; }
template <class T> __device__ __forceinline__ T maximum(T a, T b) { return a > b || a != a ? a : b; }

/// a − b·⌊a / b⌋ of integers: what is left has the sign of b.
template <class T> __device__ __forceinline__ T modulo(T a, T b) {
  const T rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

__device__ __forceinline__ float sign(float x) { return x > 0.f ? 1.f : x < 0.f ? -1.f : x; }

/// Sums, differences and products; those of integers wrap.
template <class T> struct Wrapping {
  using Type = T;
};
template <> struct Wrapping<int> {
  using Type = u32;
};
template <> struct Wrapping<i64> {
  using Type = u64;
};
template <class T> __device__ __forceinline__ T plus(T a, T b) {
  using W = typename Wrapping<T>::Type;
  return static_cast<T>(static_cast<W>(a) + static_cast<W>(b));
}
template <class T> __device__ __forceinline__ T minus(T a, T b) {
  using W = typename Wrapping<T>::Type;
  return static_cast<T>(static_cast<W>(a) - static_cast<W>(b));
}
template <class T> __device__ __forceinline__ T times(T a, T b) {
  using W = typename Wrapping<T>::Type;
  return static_cast<T>(static_cast<W>(a) * static_cast<W>(b));
}

}  // namespace graft
