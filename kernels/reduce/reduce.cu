//! Reductions of strided tensors, held in f64: y[k] = end(Σ x[k, o]), where the sum may be of squares, or the largest or the
//! smallest element, over the walk of the axes that go. Where there are few results, slabs of the walk are reduced side by
//! side and joined in order.
#include "cuda/team.cuh"
#include "cuda/walk.cuh"

using namespace graft;

namespace {

using Element = GRAFT_ELEMENT;

/// What is made of the elements that fall together, as `Reduction` in `cuda.rs` numbers it.
struct Sum : Plus {
  static __device__ __forceinline__ double start() { return 0; }
  static __device__ __forceinline__ double of(double x) { return x; }
};
struct SumOfSquares : Sum {
  static __device__ __forceinline__ double of(double x) { return x * x; }
};
struct Max : Larger {
  static __device__ __forceinline__ double start() { return -as_double(0x7ff0000000000000ull); }
  static __device__ __forceinline__ double of(double x) { return x; }
};
struct Min : Smaller {
  static __device__ __forceinline__ double start() { return as_double(0x7ff0000000000000ull); }
  static __device__ __forceinline__ double of(double x) { return x; }
};

template <class F> __device__ __forceinline__ void with_kind(int kind, F f) {
  if (kind == 0) f(Sum{});
  if (kind == 1) f(SumOfSquares{});
  if (kind == 2) f(Max{});
  if (kind == 3) f(Min{});
}

/// What becomes of the whole: itself, the mean of `count`, the root.
enum End { SAME_VALUE, MEAN, ROOT };

__device__ __forceinline__ float end_of(int end, double whole, i64 count) {
  if (end == MEAN) whole = whole / static_cast<double>(count);
  return static_cast<float>(end == ROOT ? graft::sqrt(whole) : whole);
}

/// Where the reduction of a slab goes: to the parts, which are joined later, or to the result.
struct Target {
  double* parts;
  float* out;
  i64 n, count;
  int end;

  __device__ __forceinline__ void store(i64 i, double whole) const {
    if (parts) {
      parts[blockIdx.y * n + i] = whole;
    } else {
      out[i] = end_of(end, whole, count);
    }
  }
};

/// The steps of slab `blockIdx.y`.
struct Slab {
  i64 begin, steps;

  __device__ __forceinline__ Slab(i64 count, i64 per_slab) : begin(blockIdx.y * per_slab) {
    const i64 left = count - begin;
    steps = left < per_slab ? left : per_slab;
  }
};

}  // namespace

/// A team for each result: its threads take neighbours of the walk `o`.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
reduce_rows(const Element* x, double* parts, float* out, i64 n, i64 count, i64 per_slab, int kind, int end, GRAFT_SIZES(k),
            GRAFT_STRIDES(ks), GRAFT_SIZES(o), GRAFT_STRIDES(os)) {
  const auto kept = GRAFT_WALK(k, ks), over = GRAFT_WALK(o, os);
  const Slab slab(count, per_slab);
  with_kind(kind, [&](auto fold) {
    each_row(per_slab, [&](auto team, i64 row) {
      i64 base[1], offset[1];
      kept.at(row < n ? row : 0, base);
      double part = fold.start();
      for (i64 i = team.lane(); i < slab.steps; i += ROW_THREADS / team.ROWS) {
        over.at(slab.begin + i, offset);
        part = fold(part, fold.of(to_float(x[base[0] + offset[0]])));
      }
      const double whole = team.join(part, fold);
      if (row < n && team.lane() == 0) Target{parts, out, n, count, end}.store(row, whole);
    });
  });
}

/// A thread for each result: neighbours lie side by side.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
reduce_columns(const Element* x, double* parts, float* out, i64 n, i64 count, i64 per_slab, int kind, int end,
               GRAFT_SIZES(k), GRAFT_STRIDES(ks), GRAFT_SIZES(o), GRAFT_STRIDES(os)) {
  const auto kept = GRAFT_WALK(k, ks), over = GRAFT_WALK(o, os);
  const Slab slab(count, per_slab);
  const i64 column = static_cast<i64>(blockIdx.x) * ROW_THREADS + threadIdx.x;
  if (column >= n) return;
  with_kind(kind, [&](auto fold) {
    i64 base[1], offset[1];
    kept.at(column, base);
    double whole = fold.start();
    for (i64 i = 0; i < slab.steps; i++) {
      over.at(slab.begin + i, offset);
      whole = fold(whole, fold.of(to_float(x[base[0] + offset[0]])));
    }
    Target{parts, out, n, count, end}.store(column, whole);
  });
}

/// Joins the slabs' parts, in order.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
reduce_parts(const double* parts, float* out, i64 n, i64 count, int slabs, int kind, int end) {
  const i64 i = static_cast<i64>(blockIdx.x) * ROW_THREADS + threadIdx.x;
  if (i >= n) return;
  with_kind(kind, [&](auto fold) {
    double whole = fold.start();
    for (int slab = 0; slab < slabs; slab++) whole = fold(whole, parts[slab * n + i]);
    out[i] = end_of(end, whole, count);
  });
}
