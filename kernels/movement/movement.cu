//! Elements moved whole, whatever they mean: from any strides to any strides, constants, triangles.
#include "cuda/walk.cuh"

using namespace graft;

namespace {

using Unit = GRAFT_UNIT;

/// Elements that a thread moves: enough loads under way at once.
constexpr int PER_THREAD = 4;

/// Calls `f(i)` for each of this thread's elements out of `n`.
template <class F> __device__ __forceinline__ void each(i64 n, F f) {
  const i64 first = static_cast<i64>(blockIdx.x) * 256 * PER_THREAD + threadIdx.x;
#pragma unroll
  for (int j = 0; j < PER_THREAD; j++) {
    if (first + j * 256 < n) f(first + j * 256);
  }
}

}  // namespace

/// to[b + to_at] = from[a + from_at] along a walk with the offsets a and b.
extern "C" __global__ void __launch_bounds__(256)
copy_strided(const Unit* from, i64 from_at, Unit* to, i64 to_at, i64 n, GRAFT_SIZES(w), GRAFT_STRIDES(a), GRAFT_STRIDES(b)) {
  const auto walk = GRAFT_WALK_OF_TWO(w, a, b);
  each(n, [&](i64 i) {
    i64 offsets[2];
    walk.at(i, offsets);
    to[to_at + offsets[1]] = from[from_at + offsets[0]];
  });
}

/// to[i] = value, the low bits of a word, or where it is given the element at `given`.
extern "C" __global__ void __launch_bounds__(256) fill(Unit* to, i64 n, i64 value, const Unit* given) {
  const Unit element = given ? *given : static_cast<Unit>(value);
  each(n, [&](i64 i) { to[i] = element; });
}

/// to[i] = start + i · delta, whole numbers.
extern "C" __global__ void __launch_bounds__(256) range(const i64* start, const i64* delta, i64* to, i64 n) {
  each(n, [&](i64 i) { to[i] = static_cast<i64>(static_cast<u64>(*start) + static_cast<u64>(*delta) * static_cast<u64>(i)); });
}

/// Matrices (rows, cols) with zeros below (`upper`) or above the diagonal number `k`, which lies in memory or is 0.
extern "C" __global__ void __launch_bounds__(256)
triangle(const Unit* from, Unit* to, i64 n, int rows, int cols, const i64* k, int upper) {
  const i64 diagonal = k ? *k : 0;
  each(n, [&](i64 i) {
    const i64 row = i / cols % rows, ahead = i % cols - row;
    const bool is_kept = upper ? ahead >= diagonal : ahead <= diagonal;
    to[i] = is_kept ? from[i] : Unit{};
  });
}
