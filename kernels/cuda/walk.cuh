//! A thread's elements, and walks over strided tensors, in the order of a row-major one of the same sizes.
#pragma once
#include "cuda/dialect.cuh"

namespace graft {

/// Elements of a thread that takes several: enough loads under way at once. Launches count with it, too (`launch.rs`).
inline constexpr int PER_THREAD = 4;

/// Calls `f(i)` for each of this thread's elements out of `n`.
template <class F> __device__ __forceinline__ void each(i64 n, F f) {
  const i64 first = static_cast<i64>(blockIdx.x) * 256 * PER_THREAD + threadIdx.x;
#pragma unroll
  for (int j = 0; j < PER_THREAD; j++) {
    if (first + j * 256 < n) f(first + j * 256);
  }
}

/// The most axes that a walk has.
inline constexpr int AXES = 8;

/// Sizes, and each of `N` operands' strides, innermost first.
template <int N> struct Walk {
  int rank, sizes[AXES];
  i64 strides[N][AXES];

  /// The operands' offsets at element `index`.
  __device__ __forceinline__ void at(u64 index, i64 (&offsets)[N]) const {
#pragma unroll
    for (int n = 0; n < N; n++) offsets[n] = 0;
    // Every axis has to be told by a compile-time index, else the walk would move to local memory.
#pragma unroll
    for (int axis = 0; axis < AXES; axis++) {
      if (axis >= rank) continue;
      const u64 rest = axis + 1 < rank ? divide(index, static_cast<u32>(sizes[axis])) : 0;
      const i64 i = static_cast<i64>(index - rest * sizes[axis]);
#pragma unroll
      for (int n = 0; n < N; n++) offsets[n] += i * strides[n][axis];
      index = rest;
    }
  }
};

}  // namespace graft

/// The parameters of a kernel that make up a walk `w`: sizes, and an operand's strides.
#define GRAFT_SIZES(w) \
  int w##_rank, int w##_n0, int w##_n1, int w##_n2, int w##_n3, int w##_n4, int w##_n5, int w##_n6, int w##_n7
#define GRAFT_STRIDES(s) i64 s##_0, i64 s##_1, i64 s##_2, i64 s##_3, i64 s##_4, i64 s##_5, i64 s##_6, i64 s##_7

/// The walk of these parameters over one operand, or two.
#define GRAFT_WALK_SIZES(w) w##_rank, {w##_n0, w##_n1, w##_n2, w##_n3, w##_n4, w##_n5, w##_n6, w##_n7}
#define GRAFT_WALK_STRIDES(s) {s##_0, s##_1, s##_2, s##_3, s##_4, s##_5, s##_6, s##_7}
#define GRAFT_WALK(w, s) graft::Walk<1>{GRAFT_WALK_SIZES(w), {GRAFT_WALK_STRIDES(s)}}
#define GRAFT_WALK_OF_TWO(w, s, t) graft::Walk<2>{GRAFT_WALK_SIZES(w), {GRAFT_WALK_STRIDES(s), GRAFT_WALK_STRIDES(t)}}
