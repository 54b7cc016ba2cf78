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

__device__ __forceinline__ float to_float(float x) { return x; }
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }

/// Two neighbouring elements, stored at once.
template <class T> struct alignas(2 * sizeof(T)) Pair {
  T first, second;
};

}  // namespace graft
