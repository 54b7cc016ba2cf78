//! Threads that make one number together: of each one's part a tree within the warps, then their results in order. Which
//! thread adds what depends on sizes alone, so a sum has the same bits each time.
#pragma once
#include "cuda/dialect.cuh"

namespace graft {

/// The threads of a block whose work is rows.
inline constexpr int ROW_THREADS = 256;

struct Plus {
  template <class T> __device__ __forceinline__ T operator()(T a, T b) const { return a + b; }
};

/// The larger one; NaN if either is.
struct Larger {
  template <class T> __device__ __forceinline__ T operator()(T a, T b) const { return a > b || a != a ? a : b; }
};

struct Either {
  __device__ __forceinline__ u32 operator()(u32 a, u32 b) const { return a | b; }
};

struct Smaller {
  template <class T> __device__ __forceinline__ T operator()(T a, T b) const { return a < b || a != a ? a : b; }
};

/// The `SIZE` threads that share a row: a warp or the whole block, which needs `SHARED` bytes of shared memory.
template <int SIZE> struct Team {
  static constexpr int ROWS = ROW_THREADS / SIZE, WARPS = SIZE / 32, SHARED = WARPS * sizeof(double);
  static_assert(SIZE == 32 || SIZE == ROW_THREADS, "a warp or the block");

  /// The place of this thread in its team, and of its team in the block.
  static __device__ __forceinline__ int lane() { return threadIdx.x % SIZE; }
  static __device__ __forceinline__ int row() { return threadIdx.x / SIZE; }

  /// What `join` makes of the threads' parts, for all of them. Every thread of the block has to come here.
  template <class T, class Join> static __device__ __forceinline__ T join(T part, Join join) {
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) part = join(part, shuffle_xor(part, mask));
    if constexpr (WARPS == 1) return part;
    T* const parts = reinterpret_cast<T*>(shared_memory());
    sync_block();  // No thread reads the parts of the last call any more.
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = part;
    sync_block();
    T all = parts[0];
#pragma unroll
    for (int warp = 1; warp < WARPS; warp++) all = join(all, parts[warp]);
    return all;
  }

  /// The sum of f(i) over 0 ≤ i < n.
  template <class F> static __device__ __forceinline__ double sum(i64 n, F f) {
    double part = 0;
    for (i64 i = lane(); i < n; i += SIZE) part += f(i);
    return join(part, Plus{});
  }

  /// The largest f(i), or `least`.
  template <class T, class F> static __device__ __forceinline__ T max(i64 n, T least, F f) {
    T part = least;
    for (i64 i = lane(); i < n; i += SIZE) part = Larger{}(part, f(i));
    return join(part, Larger{});
  }
};

/// Rows that are longer than this have a block each; others share one, a warp each.
inline constexpr int LONGEST_OF_WARP = 512;

/// Calls `f(team, row)` for every row of this block; threads of a row beyond the last one do another's work, as all have to
/// take part, and store nothing: `f` is told by `row < rows` alone.
template <class F> __device__ __forceinline__ void each_row(i64 length, F f) {
  if (length > LONGEST_OF_WARP) {
    f(Team<ROW_THREADS>{}, static_cast<i64>(blockIdx.x));
  } else {
    f(Team<32>{}, static_cast<i64>(blockIdx.x) * Team<32>::ROWS + Team<32>::row());
  }
}

}  // namespace graft
