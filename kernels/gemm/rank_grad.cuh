//! Both gradients that need all of dy, in one pass over it: `dh = s·(dy·bᵀ)` and a slab's part of `hᵀ·dy`.
//!
//! A block owns a slab of tokens, in tiles of 64, and streams over the columns of dy; each panel of dy in shared memory is
//! the left operand of the one product and the right operand of the other. dh stays in registers; the parts of hᵀ·dy go
//! to global memory, where the block's later tiles add to them: each element always by the same thread.
#pragma once
#include "cuda/product.cuh"

namespace graft {

/// Operands and results; `db_parts` is the first slab's.
template <class T> struct RankGradOperands {
  Matrix<const T> dy, b, h;
  Matrix<T> dh;
  Matrix<float> db_parts;
  float scale;
};

/// Sizes and shared memory.
template <class T, int RANK> struct RankGrad {
  static constexpr int TOKENS = 64, COLS = 64, WARPS = 4, THREADS = 32 * WARPS;
  /// dy as the left operand of dy·bᵀ, and the same memory as the right one of hᵀ·dy.
  using DyLeft = Panel<T, TOKENS, COLS, Major::K>;
  using DyRight = Panel<T, COLS, TOKENS, Major::MN>;
  using B = Panel<T, RANK, COLS, Major::K>;
  using H = Panel<T, RANK, TOKENS, Major::MN>;
  static_assert(DyLeft::STRIDE == DyRight::STRIDE, "one panel, seen twice");
  static constexpr int STAGE = DyLeft::ELEMENTS + B::ELEMENTS, BYTES = (H::ELEMENTS + 2 * STAGE) * sizeof(T);
  /// Each warp has 16 tokens of dh, and 16 columns of hᵀ·dy.
  using DhSums = Accumulators<1, RANK / 8>;
  using DbSums = Accumulators<RANK / 16, 2>;
};

/// Adds a warp's sums to the slab's part, or begins it.
template <class Sums>
__device__ __forceinline__ void add_part(Sums& sums, const Matrix<float>& part, int col, bool is_first) {
  sums.each([&](int i, int j, float& sum) {
    if (i >= part.rows || col + j >= part.cols) return;
    float* to = part.data + i * part.stride + col + j;
    *to = is_first ? sum : *to + sum;
  });
}

/// The tile of tokens from `token` on.
template <class T, int RANK>
__device__ __forceinline__ void rank_grad_tile(const RankGradOperands<T>& op, const Matrix<float>& part, int token, bool is_first) {
  using G = RankGrad<T, RANK>;
  T* const memory = reinterpret_cast<T*>(shared_memory());
  const typename G::H h = {memory};
  const auto stage = [&](int i) { return memory + G::H::ELEMENTS + i % 2 * G::STAGE; };
  const auto load = [&](int i) {
    typename G::DyLeft{stage(i)}.template load<G::THREADS>(op.dy, token, i * G::COLS);
    typename G::B{stage(i) + G::DyLeft::ELEMENTS}.template load<G::THREADS>(op.b, 0, i * G::COLS);
  };
  const int warp = threadIdx.x / 32, steps = ceil_div(op.dy.cols, G::COLS);
  typename G::DhSums dh;
  dh.clear();
  h.template load<G::THREADS>(op.h, 0, token);
  load(0);
  copy_commit();
  for (int i = 0; i < steps; i++) {
    copy_wait<0>();
    sync_block();
    if (i + 1 < steps) load(i + 1);
    copy_commit();
    multiply(dh, typename G::DyLeft{stage(i)}, 16 * warp, typename G::B{stage(i) + G::DyLeft::ELEMENTS}, 0, KeepAll{});
    typename G::DbSums db;
    db.clear();
    multiply(db, h, 0, typename G::DyRight{stage(i)}, 16 * warp, KeepAll{});
    add_part(db, part, i * G::COLS + 16 * warp, is_first);
  }
  dh.each([&](int i, int j, float& sum) {
    const int row = token + 16 * warp + i;
    if (row < op.dh.rows && j < op.dh.cols) op.dh.data[row * op.dh.stride + j] = from_float<T>(sum * op.scale);
  });
}

template <class T, int RANK>
__device__ __forceinline__ void rank_grad(const RankGradOperands<T>& op, int tiles_per_slab) {
  using G = RankGrad<T, RANK>;
  Matrix<float> part = op.db_parts;
  part.data += blockIdx.x * part.rows * part.stride;
  for (int tile = 0; tile < tiles_per_slab; tile++) {
    const int token = (blockIdx.x * tiles_per_slab + tile) * G::TOKENS;
    if (token >= op.dy.rows) return;
    if (tile > 0) sync_block();  // No thread reads the last tile's panels any more.
    rank_grad_tile<T, RANK>(op, part, token, tile == 0);
  }
}

}  // namespace graft
