//! The product that every linear layer and its adapter are made of:
//! `c (m, n) = Σ over segments of a (m, k)·b (k, n)`, the sum running on from one segment to the next (K-extension).
//!
//! What is particular to a kernel is an operation with these members, of which `Operation` has the plain ones:
//! `a[]`, `b[]`, `c`; `mask(segment)`, which elements of a count; `between(segment, row, col, sum)`, what becomes of the
//! sums when a segment ends; `finish(row, col, sum)`, what is stored, or handed to the epilogue (`epilogue.cuh`);
//! `see(panel, row, k)`, which is shown each panel of a while it is in shared memory, and where it begins in a.
//!
//! A block computes one tile of c; threads copy panels of a and b through a ring of `STAGES` stages of shared memory.
//! grid = (tiles of n, tiles of m, slabs of the sum); a slab stores its part of the sum behind that of the one before.
#pragma once
#include "cuda/product.cuh"
#include "gemm/epilogue.cuh"

namespace graft {

/// The shape of a block's work: a tile of `M_` × `N_` elements in steps of `K_`, by `WARPS_M` × `WARPS_N` warps.
template <int M_, int N_, int K_, int WARPS_M_, int WARPS_N_, int STAGES_> struct Tile {
  static constexpr int M = M_, N = N_, K = K_, WARPS_N = WARPS_N_, STAGES = STAGES_;
  static constexpr int THREADS = 32 * WARPS_M_ * WARPS_N_, WARP_M = M / WARPS_M_, WARP_N = N / WARPS_N_;
  /// Blocks on a multiprocessor: without that word the assembler may make room for more, and spill registers.
  static constexpr int BLOCKS = 2;
  static_assert(WARP_M % 16 == 0 && WARP_N % 16 == 0 && K % 16 == 0 && STAGES >= 2, "whole fragments");
  using Sums = Accumulators<WARP_M / 16, WARP_N / 8>;

  /// Where the warp's part of the tile begins.
  static __device__ __forceinline__ int warp_row() { return static_cast<int>(threadIdx.x) / 32 / WARPS_N * WARP_M; }
  static __device__ __forceinline__ int warp_col() { return static_cast<int>(threadIdx.x) / 32 % WARPS_N * WARP_N; }
};

/// An operation that masks nothing and stores the plain sum. `T` is the element of a and b, `C` that of c; b and c may be
/// several matrices side by side.
template <class T, class C, int SEGMENTS_, Major A, Major B, class Right_ = Matrix<const T>, class Out = Matrix<C>>
struct Operation {
  using Element = T;
  using Right = Right_;
  static constexpr int SEGMENTS = SEGMENTS_;
  static constexpr Major A_MAJOR = A, B_MAJOR = B;

  Matrix<const T> a[SEGMENTS];
  Right b[SEGMENTS];
  Out c;

  __device__ __forceinline__ KeepAll mask(int) const { return {}; }
  __device__ __forceinline__ float between(int, int, int, float sum) const { return sum; }
  __device__ __forceinline__ float finish(int, int, float sum) const { return sum; }
  template <class P> __device__ __forceinline__ void see(const P&, int, int) const {}
};

/// As many steps in a slab as there are: the sum is not split.
inline constexpr int ALL_STEPS = 1 << 30;

/// The ring of panels.
template <class T, class Op> struct Ring {
  using E = typename Op::Element;
  using Left = Panel<E, T::M, T::K, Op::A_MAJOR>;
  using Right = typename PanelOf<typename Op::Right, E, T::N, T::K, Op::B_MAJOR>::Type;
  static constexpr int STAGE = Left::ELEMENTS + Right::ELEMENTS, BYTES = T::STAGES * STAGE * sizeof(E);

  E* memory;

  __device__ __forceinline__ Left left(int stage) const { return {memory + stage * STAGE}; }
  __device__ __forceinline__ Right right(int stage) const { return {memory + stage * STAGE + Left::ELEMENTS}; }
};

/// How many steps a segment takes.
template <class T, class Op> __device__ __forceinline__ int steps_of(const Op& op, int segment) {
  const auto& a = op.a[segment];
  return ceil_div(Op::A_MAJOR == Major::K ? a.cols : a.rows, T::K);
}

/// Brings the panels of one step after another, through all segments. Segments are told apart by compile-time indices: an
/// index known at run time only would move the operation's matrices from registers to local memory.
template <class T, class Op> class Feed {
  using R = Ring<T, Op>;
  Loader<typename R::Left, T::THREADS> left;
  Loader<typename R::Right, T::THREADS> right;
  /// The segment of the next step, and how many of its steps are left.
  int segment, rest;

  __device__ __forceinline__ void begin(const Op& op, int s, int t, int m, int n) {
    left.begin(op.a[s], m, t * T::K);
    right.begin(op.b[s], n, t * T::K);
    segment = s, rest = steps_of<T>(op, s) - t;
  }

 public:
  /// For the tile at (`m`, `n`), from the step with number `t` on.
  __device__ __forceinline__ Feed(const Op& op, int m, int n, int t) {
    begin(op, 0, t, m, n);
#pragma unroll
    for (int s = 1; s < Op::SEGMENTS; s++) {
      if (rest <= 0) begin(op, s, -rest, m, n);
    }
  }

  /// Begins to copy the panels of the next step.
  __device__ __forceinline__ void load(const Op& op, const R& ring, int stage, int m, int n) {
    const int next = segment + 1;
#pragma unroll
    for (int s = 1; s < Op::SEGMENTS; s++) {
      if (rest == 0 && s == next) begin(op, s, 0, m, n);
    }
    left.load(ring.left(stage));
    right.load(ring.right(stage));
    rest--;
  }
};

/// An operation's mask in the coordinates of the panel at (`row`, `step`).
template <class Mask> struct Shifted {
  static constexpr bool IS_MASK = Mask::IS_MASK;
  Mask mask;
  int row, step;
  __device__ __forceinline__ bool operator()(int i, int k) const { return mask(row + i, step + k); }
};

/// Stores two neighbours of c, at once where they may be; `finish(row, col, sum)` is what is stored.
template <class Out, class F>
__device__ __forceinline__ void store_pair(const Out& all, int row, int col, float x, float y, const F& finish) {
  using C = typename Out::Element;
  const Matrix<C> c = all.of_column(col);
  if (row >= c.rows || col >= c.cols) return;
  const bool are_two = col + 1 < c.cols;
  const C first = from_float<C>(finish(row, col, x));
  const C second = are_two ? from_float<C>(finish(row, col + 1, y)) : C{};
  C* to = c.data + row * c.stride + col;
  if (are_two && reinterpret_cast<u64>(to) % sizeof(Pair<C>) == 0) {
    *reinterpret_cast<Pair<C>*>(to) = {first, second};
  } else {
    to[0] = first;
    if (are_two) to[1] = second;
  }
}

/// Stores the block's tile of c, at (`m`, `n`).
template <class T, class Out, class F>
__device__ __forceinline__ void store_tile(typename T::Sums& sums, const Out& c, int m, int n, const F& finish) {
  m += T::warp_row(), n += T::warp_col();
  sums.pairs([&](int i, int j, float x, float y) { store_pair(c, m + i, n + j, x, y, finish); });
}

/// The sums of the tile at (`m`, `n`) over the steps of a slab, of `steps_per_slab` each.
template <class T, class Op>
__device__ __forceinline__ void sum_tile(typename T::Sums& acc, const Op& op, int m, int n, int slab = 0,
                                         int steps_per_slab = ALL_STEPS) {
  const int warp_m = T::warp_row(), warp_n = T::warp_col();
  int end = 0;
#pragma unroll
  for (int s = 0; s < Op::SEGMENTS; s++) end += steps_of<T>(op, s);
  const int begin = slab * steps_per_slab;
  if (end - begin > steps_per_slab) end = begin + steps_per_slab;

  const Ring<T, Op> ring = {reinterpret_cast<typename Op::Element*>(shared_memory())};
  Feed<T, Op> feed(op, m, n, begin);
  acc.clear();
  // Every turn commits one group, be it empty, so that the wait below always counts the same.
  for (int ahead = 0; ahead < T::STAGES - 1; ahead++) {
    if (begin + ahead < end) feed.load(op, ring, ahead, m, n);
    copy_commit();
  }
  int t = begin, stage = 0, before = 0;
#pragma unroll
  for (int s = 0; s < Op::SEGMENTS; s++) {
    const int after = before + steps_of<T>(op, s);
    const auto mask = op.mask(s);
    for (; t < after && t < end; t++) {
      copy_wait<T::STAGES - 2>();
      // The panels of this step are there for all threads, and no thread reads those of the last step any more.
      sync_block();
      if (t + T::STAGES - 1 < end) feed.load(op, ring, stage == 0 ? T::STAGES - 1 : stage - 1, m, n);
      copy_commit();
      const Shifted<decltype(op.mask(s))> keeps = {mask, m, (t - before) * T::K};
      op.see(ring.left(stage), m, (t - before) * T::K);
      multiply(acc, ring.left(stage), warp_m, ring.right(stage), warp_n, keeps);
      stage = stage + 1 == T::STAGES ? 0 : stage + 1;
    }
    if (Op::SEGMENTS > 1 && t == after && begin < after) {
      acc.each([&](int i, int j, float& sum) { sum = op.between(s, m + warp_m + i, n + warp_n + j, sum); });
    }
    before = after;
  }
}

/// Where the tile of a block begins.
struct Corner {
  int m, n;
};

/// The block's tile. Blocks that run at the same time shall read the same panels, so that these come from the L2 cache:
/// they take the tiles of a few rows of tiles, column by column.
template <class T> __device__ __forceinline__ Corner corner_of_block() {
  constexpr int MOST = 8;
  const int across = gridDim.x, down = gridDim.y, tile = blockIdx.y * across + blockIdx.x;
  const int first = tile / (MOST * across) * MOST, rows = down - first < MOST ? down - first : MOST;
  const int within = tile - first * across;
  return {(first + within % rows) * T::M, within / rows * T::N};
}

/// One tile of c, and of the sum the steps of a slab, of `steps_per_slab` each; the grid's third axis are the slabs.
template <class T, class Op> __device__ __forceinline__ void extended_product(const Op& op, int steps_per_slab) {
  const auto [m, n] = corner_of_block<T>();
  typename T::Sums sums;
  sum_tile<T>(sums, op, m, n, blockIdx.z, steps_per_slab);
  store_tile<T>(sums, op.c.after(blockIdx.z), m, n, [&](int row, int col, float sum) { return op.finish(row, col, sum); });
}

/// Elements that a thread reads for an epilogue before it computes and stores any: enough to have memory busy.
inline constexpr int AT_ONCE = 4;

/// Does an epilogue with the block's tile of c, which lies rounded in shared memory; `m`, `n` and `first` are the tile's row,
/// its column and the number of its first row among the rows of all products.
///
/// The threads walk along rows, so that they read and write neighbours; and in a loop that is not unrolled, for ops may be
/// long.
template <class T, class C, class E>
__device__ __forceinline__ void finish_tile(const Matrix<C>& tile, i64 first, int m, int n, int cols, const E& epilogue) {
#pragma unroll 1
  for (int begin = threadIdx.x; begin < T::M * T::N; begin += AT_ONCE * T::THREADS) {
    typename E::Operands operands[AT_ONCE];
    const auto each = [&](auto f) {
#pragma unroll
      for (int u = 0; u < AT_ONCE; u++) {
        const int at = begin + u * T::THREADS, row = at / T::N, col = at % T::N;
        if (row < tile.rows && col < tile.cols) f(operands[u], row, col, (first + m + row) * cols + n + col);
      }
    };
    each([&](auto& of, int row, int col, i64 i) { of = epilogue.load(i, first + m + row, n + col); });
    each([&](auto& of, int row, int col, i64 i) { epilogue.store(of, tile.data[row * tile.stride + col], i); });
  }
}

/// One tile of c, whose sum is not split, and its epilogue; the grid's third axis are the products of a batch, whose results
/// lie one below the other.
template <class T, class Op, class E> __device__ __forceinline__ void finished_product(const Op& op, const E& epilogue) {
  using C = typename decltype(Op::c)::Element;
  const Corner corner = corner_of_block<T>();
  const int m = corner.m, n = corner.n;
  typename T::Sums sums;
  sum_tile<T>(sums, op, m, n);
  const i64 first = static_cast<i64>(blockIdx.z) * op.c.rows;
  const auto finish = [&](int row, int col, float sum) { return op.finish(row, col, sum); };
  if constexpr (!E::IS_ANY) {
    store_tile<T>(sums, op.c.after(blockIdx.z), m, n, finish);
  } else {
    const int rows = op.c.rows - m < T::M ? op.c.rows - m : T::M, cols = op.c.cols - n < T::N ? op.c.cols - n : T::N;
    Matrix<C> tile(reinterpret_cast<C*>(shared_memory()), rows, cols);
    // 8 elements between the rows, so that the pairs that a warp stores at once lie in banks of their own.
    tile.stride = T::N + 8;
    static_assert(T::M * (T::N + 8) * sizeof(C) <= Ring<T, Op>::BYTES, "the tile takes the place of the panels");
    sync_block();  // No thread reads the panels any more.
    store_tile<T>(sums, tile, 0, 0, [&](int row, int col, float sum) { return finish(m + row, n + col, sum); });
    sync_block();
    finish_tile<T>(tile, first, m, n, op.c.cols, epilogue);
  }
}

}  // namespace graft
