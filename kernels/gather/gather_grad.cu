//! The gradient of a gather: dx[o, r, i] = Σ dy[o, j, i] over the j with index[j] = r, in their order, so without atomics and
//! with the same bits each time. dx is zero before.
#include "cuda/index.cuh"
#include "cuda/team.cuh"

using namespace graft;

namespace {

using Element = GRAFT_ELEMENT;

/// Columns that a thread sums side by side.
constexpr int COLUMNS = 4;

/// Which of 256 indices are the row's, a byte each.
struct Readers {
  u8* flags;

  __device__ __forceinline__ void find(const Indices& indices, i64 from, i64 n, i64 size, i64 row) const {
    const i64 j = from + threadIdx.x;
    sync_block();  // No thread reads the last ones any more.
    flags[threadIdx.x] = j < n && indices.position(j, size) == row;
    sync_block();
  }
  /// Calls `f(i)` for each of them, in order; eight at a time are seen to be none.
  template <class F> __device__ __forceinline__ void each(F f) const {
    for (int eight = 0; eight < ROW_THREADS; eight += 8) {
      if (*reinterpret_cast<const u64*>(flags + eight) == 0) continue;
      for (int i = eight; i < eight + 8; i++) {
        if (flags[i]) f(i);
      }
    }
  }
};

}  // namespace

/// The block of the first index that reads a row sums what all of them send there. grid = (n, outer). Without a number of
/// blocks the assembler makes room for five and spills.
extern "C" __global__ void __launch_bounds__(ROW_THREADS, 4)
gather_grad(const Element* dy, const void* index, int is_wide, Element* dx, i64 size, i64 n, i64 inner) {
  const Indices indices = {index, is_wide};
  const i64 first = blockIdx.x, row = indices.position(first, size);
  u32 is_earlier = 0;
  for (i64 j = threadIdx.x; j < first; j += ROW_THREADS) is_earlier |= indices.position(j, size) == row;
  if (Team<ROW_THREADS>::join(is_earlier, Either{})) return;
  const Readers readers = {reinterpret_cast<u8*>(shared_memory()) + Team<ROW_THREADS>::SHARED};
  const Element* const from = dy + blockIdx.y * n * inner;
  Element* const to = dx + (blockIdx.y * size + row) * inner;
  for (i64 column = threadIdx.x; column - threadIdx.x < inner; column += COLUMNS * ROW_THREADS) {
    float sums[COLUMNS] = {};
    for (i64 j = first; j < n; j += ROW_THREADS) {
      readers.find(indices, j, n, size, row);
      readers.each([&](int i) {
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) {
          const i64 at = column + c * ROW_THREADS;
          if (at < inner) sums[c] += to_float(from[(j + i) * inner + at]);
        }
      });
    }
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) {
      const i64 at = column + c * ROW_THREADS;
      if (at < inner) to[at] = from_float<Element>(sums[c]);
    }
  }
}
