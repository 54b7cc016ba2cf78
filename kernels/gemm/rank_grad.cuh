//! Both gradients that need all of dy, in one pass over it: `dq = s·(dy·bᵀ)` and a slab's part of `qᵀ·dy`, where q is what
//! the up-projection b was given.
//!
//! A block owns a slab of tokens, in tiles of 64, and streams over the columns of dy; each panel of dy in shared memory is
//! the left operand of the one product and the right operand of the other. dq stays in registers; the parts of qᵀ·dy go
//! to global memory, where the block's later tiles add to them: each element always by the same thread.
//!
//! What is particular to a kernel is an operation as `RankGradOperands`, which has the plain ones of these members:
//! `load_saved(panel, token)` begins to bring q into shared memory, `finish(sums, token, is_first)` takes dq,
//! `see(panel, token, col)` is shown each panel of dy.
#pragma once
#include "gemm/extended.cuh"

namespace graft {

/// Sizes and shared memory.
template <class T, int RANK> struct RankGrad {
  static constexpr int TOKENS = 64, COLS = 64, WARPS = 4, THREADS = 32 * WARPS;
  /// dy as the left operand of dy·bᵀ, and the same memory as the right one of qᵀ·dy.
  using DyLeft = Panel<T, TOKENS, COLS, Major::K>;
  using DyRight = Panel<T, COLS, TOKENS, Major::MN>;
  using B = Panel<T, RANK, COLS, Major::K>;
  using Saved = Panel<T, RANK, TOKENS, Major::MN>;
  static_assert(DyLeft::STRIDE == DyRight::STRIDE, "one panel, seen twice");
  /// Enough of dy is under way to hide how long it takes; panels of single precision are too large for that.
  static constexpr int STAGES = sizeof(T) == 2 ? 4 : 2;
  static constexpr int STAGE = DyLeft::ELEMENTS + B::ELEMENTS, BYTES = (Saved::ELEMENTS + STAGES * STAGE) * sizeof(T);
  /// Each warp has 16 tokens of dq, and 16 columns of qᵀ·dy.
  using DqSums = Accumulators<1, RANK / 8>;
  using DbSums = Accumulators<RANK / 16, 2>;

  /// The first of the warp's tokens, or columns.
  static __device__ __forceinline__ int warp_row() { return static_cast<int>(threadIdx.x) / 32 * 16; }
};

/// Operands and results where q was saved and dq is stored; `db_parts` is the block's slab.
template <class T, int RANK> struct RankGradOperands {
  using Element = T;
  using Shape = RankGrad<T, RANK>;

  Matrix<const T> dy, b, saved;
  Matrix<T> dq;
  Matrix<float> db_parts;
  float scale;

  __device__ __forceinline__ void load_saved(const typename Shape::Saved& panel, int token) const {
    panel.template load<Shape::THREADS>(saved, 0, token);
  }
  __device__ __forceinline__ void finish(typename Shape::DqSums& sums, int token, bool) const { store(sums, token); }
  template <class P> __device__ __forceinline__ void see(const P&, int, int) const {}

  /// Stores what was computed of the tile at `token`, scaled.
  __device__ __forceinline__ void store(typename Shape::DqSums& sums, int token) const {
    sums.each([&](int i, int j, float& sum) {
      const int row = token + Shape::warp_row() + i;
      if (row < dq.rows && j < dq.cols) dq.data[row * dq.stride + j] = from_float<T>(sum * scale);
    });
  }
};

/// The part of the block's slab in the workspace of all slabs.
__device__ __forceinline__ Matrix<float> slab_part(float* parts, int rows, int cols) {
  return {parts + static_cast<i64>(blockIdx.x) * rows * cols, rows, cols};
}

/// Begins a warp's sums with what the slab's earlier tiles have put at (`row`, `col`) of its part, if there are any.
template <class Sums>
__device__ __forceinline__ void resume_part(Sums& sums, const Matrix<float>& part, int row, int col, bool is_first) {
  sums.each([&](int i, int j, float& sum) {
    const bool is_there = !is_first && row + i < part.rows && col + j < part.cols;
    sum = is_there ? part.data[(row + i) * part.stride + col + j] : 0.f;
  });
}

/// Puts a warp's sums at (`row`, `col`) of the slab's part.
template <class Sums> __device__ __forceinline__ void put_part(Sums& sums, const Matrix<float>& part, int row, int col) {
  const auto plain = [](int, int, float sum) { return sum; };
  sums.pairs([&](int i, int j, float x, float y) { store_pair(part, row + i, col + j, x, y, plain); });
}

/// The tile of tokens from `token` on.
template <class Op> __device__ __forceinline__ void rank_grad_tile(const Op& op, int token, bool is_first) {
  using G = typename Op::Shape;
  using T = typename Op::Element;
  T* const memory = reinterpret_cast<T*>(shared_memory());
  const typename G::Saved saved = {memory};
  const auto left = [&](int stage) { return typename G::DyLeft{memory + G::Saved::ELEMENTS + stage * G::STAGE}; };
  const auto right = [&](int stage) { return typename G::B{left(stage).data + G::DyLeft::ELEMENTS}; };
  Loader<typename G::DyLeft, G::THREADS> dy;
  Loader<typename G::B, G::THREADS> b;
  dy.begin(op.dy, token, 0);
  b.begin(op.b, 0, 0);
  const auto load = [&](int stage) {
    dy.load(left(stage));
    b.load(right(stage));
  };
  const int steps = ceil_div(op.dy.cols, G::COLS);
  typename G::DqSums dq;
  dq.clear();
  op.load_saved(saved, token);
  // What was saved is in the first group. Every turn commits one, be it empty, so that the wait always counts the same.
  for (int ahead = 0; ahead < G::STAGES - 1; ahead++) {
    if (ahead < steps) load(ahead);
    copy_commit();
  }
  int stage = 0;
  for (int i = 0; i < steps; i++) {
    // Asked for early, as it may take a while to come.
    typename G::DbSums db;
    resume_part(db, op.db_parts, 0, i * G::COLS + G::warp_row(), is_first);
    copy_wait<G::STAGES - 2>();
    sync_block();
    if (i + G::STAGES - 1 < steps) load(stage == 0 ? G::STAGES - 1 : stage - 1);
    copy_commit();
    op.see(left(stage), token, i * G::COLS);
    multiply(dq, left(stage), G::warp_row(), right(stage), 0, KeepAll{});
    multiply(db, saved, 0, typename G::DyRight{left(stage).data}, G::warp_row(), KeepAll{});
    put_part(db, op.db_parts, 0, i * G::COLS + G::warp_row());
    stage = stage + 1 == G::STAGES ? 0 : stage + 1;
  }
  op.finish(dq, token, is_first);
}

/// The slab of tokens of this block.
template <class Op> __device__ __forceinline__ void rank_grad(const Op& op, int tiles_per_slab) {
  for (int tile = 0; tile < tiles_per_slab; tile++) {
    const int token = (blockIdx.x * tiles_per_slab + tile) * Op::Shape::TOKENS;
    if (token >= op.dy.rows) return;
    if (tile > 0) sync_block();  // No thread reads the last tile's panels any more.
    rank_grad_tile(op, token, tile == 0);
  }
}

}  // namespace graft
