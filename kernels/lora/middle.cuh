//! LoRA with a square matrix c in rank space: `h = x·a`, `q = h·cᵀ`, and its gradient: with `dq = s·(dy·bᵀ)`,
//! `dh = dq·c`, `dc = dqᵀ·h`. What surrounds these is LoRA's own (`lora.cu`).
//!
//! c is whatever a method says of its elements, `c(i, j)`: a sum of triangles, or gates on the diagonal, for which the
//! whole product costs less than a thousandth of the projection too. Both products are epilogues: their left operand goes
//! from the registers into the shared memory that the panels have left.
#pragma once
#include "cuda/instance.cuh"
#include "gemm/rank_grad.cuh"

namespace graft {

/// c of the given rank, rounded and with zeros up to the padded rank, in a panel of either direction.
template <int THREADS, class P, class C> __device__ __forceinline__ void fill_middle(const P& panel, int rank, const C& c) {
  panel.template fill<THREADS>([&](int i, int k) {
    const int row = P::ALONG == Major::K ? i : k, col = P::ALONG == Major::K ? k : i;
    return row < rank && col < rank ? c(row, col) : 0.f;
  });
}

/// h, and from its rounded elements q, of each call, of which c is `c_of(call)`.
template <class F>
__device__ __forceinline__ void middle_down(const Matrix<const Element>& x, const RankStack<const Element>& a,
                                            const RankStack<Element>& h, const RankStack<Element>& q, const F& c_of) {
  using Down = Operation<Element, Element, 1, Major::K, Major::MN, RankStack<const Element>, RankStack<Element>>;
  const Panel<Element, RankTile::M, PADDED_RANK, Major::K> left = {reinterpret_cast<Element*>(shared_memory())};
  const Panel<Element, PADDED_RANK, PADDED_RANK, Major::K> right = {left.data + left.ELEMENTS};
  const auto plain = [](int, int, float sum) { return sum; };
  const int m = blockIdx.y * RankTile::M;
  typename RankTile::Sums sums;
  sum_tile<RankTile>(sums, Down{{x}, {a}, h}, m, 0);
  store_tile<RankTile>(sums, h, m, 0, plain);
#pragma unroll
  for (int call = 0; call < CALLS; call++) {
    auto own = sums.template columns<PADDED_RANK>(call * PADDED_RANK);
    sync_block();  // No thread reads the product's panels, or those of the call before, any more.
    put(left, RankTile::warp_row(), 0, own);
    fill_middle<RankTile::THREADS>(right, a.cols, c_of(call));
    sync_block();
    own.clear();
    multiply(own, left, RankTile::warp_row(), right, 0, KeepAll{});
    own.pairs([&](int i, int j, float x, float y) { store_pair(q[call], m + RankTile::warp_row() + i, j, x, y, plain); });
  }
}

/// The pass over dy, and what follows in rank space; `dq` of the operands is where dh goes. A null `dc_part` is not wanted.
template <class C> struct MiddleGrad : RankGradOperands<Element, PADDED_RANK> {
  using G = RankGrad<Element, PADDED_RANK>;
  Matrix<const Element> h;
  Matrix<float> dc_part;
  C c;

  __device__ __forceinline__ void finish(typename G::DqSums& sums, int token, bool is_first) const {
    const Panel<Element, G::TOKENS, PADDED_RANK, Major::K> left = {reinterpret_cast<Element*>(shared_memory())};
    const Panel<Element, PADDED_RANK, PADDED_RANK, Major::MN> middle = {left.data + left.ELEMENTS};
    const Panel<Element, PADDED_RANK, G::TOKENS, Major::MN> right = {middle.data + middle.ELEMENTS};
    sync_block();  // No thread reads the panels of dy any more.
    right.template load<G::THREADS>(h, 0, token);
    copy_commit();
    sums.each([&](int, int, float& sum) { sum *= this->scale; });
    put(left, G::warp_row(), 0, sums);
    fill_middle<G::THREADS>(middle, h.cols, c);
    copy_wait<0>();
    sync_block();
    if (dc_part.data && G::warp_row() < PADDED_RANK) {
      const Panel<Element, PADDED_RANK, G::TOKENS, Major::MN> turned = {left.data};
      Accumulators<1, PADDED_RANK / 8> dc;
      resume_part(dc, dc_part, G::warp_row(), 0, is_first);
      multiply(dc, turned, G::warp_row(), right, 0, KeepAll{});
      put_part(dc, dc_part, G::warp_row(), 0);
    }
    sums.clear();
    multiply(sums, left, G::warp_row(), middle, 0, KeepAll{});
    sums.each([&](int i, int j, float& sum) {
      const int row = token + G::warp_row() + i;
      if (row < dq.rows && j < dq.cols) dq.data[row * dq.stride + j] = from_float<Element>(sum);
    });
  }
};

/// The block's slab of dc's parts, or nothing.
__device__ __forceinline__ Matrix<float> middle_part(float* parts, int rank) {
  return parts ? slab_part(parts, rank, rank) : Matrix<float>(nullptr, rank, rank);
}

/// Element `i` of dc, of all slabs.
__device__ __forceinline__ float sum_of_parts(const float* parts, int rank, int slabs, int i) {
  float sum = 0.f;
  for (int slab = 0; slab < slabs; slab++) sum += parts[static_cast<i64>(slab) * rank * rank + i];
  return sum;
}

}  // namespace graft
