//! The dialect of every kernel: the names that CUDA C++ (`device.cuh`, compiled by NVRTC) and the emulator
//! (`emulate.h`, compiled by a host compiler) both define. No CUDA header is needed.
#pragma once
#ifdef __CUDACC_RTC__
#include "cuda/device.cuh"
#else
#include "emulate/emulate.h"
#endif

namespace graft {

/// Elements of 16 bytes: what one asynchronous copy moves.
template <class T> inline constexpr int CHUNK = 16 / sizeof(T);

template <class A, class B> inline constexpr bool SAME = false;
template <class A> inline constexpr bool SAME<A, A> = true;

/// ⌈a / b⌉.
__device__ __forceinline__ constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

/// ⌊a / b⌋. A division of 64 bits takes several times as long as one of 32, and few tensors need it.
__device__ __forceinline__ u64 divide(u64 a, u64 b) {
  return (a | b) >> 32 ? a / b : static_cast<u32>(a) / static_cast<u32>(b);
}

__device__ __forceinline__ float to_float(float x) { return x; }
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }

__device__ __forceinline__ float shuffle_xor(float x, int mask) { return as_float(shuffle_xor(as_bits(x), mask)); }
__device__ __forceinline__ double shuffle_xor(double x, int mask) {
  const u64 high = shuffle_xor(static_cast<u32>(as_bits(x) >> 32), mask), low = shuffle_xor(static_cast<u32>(as_bits(x)), mask);
  return as_double(high << 32 | low);
}

/// Two neighbouring elements, stored at once.
template <class T> struct alignas(2 * sizeof(T)) Pair {
  T first, second;
};

}  // namespace graft
