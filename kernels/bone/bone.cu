//! A linear layer with a Bone adapter: `s = fold(x)`, `y = s·d + x·w`, and its gradient: with `ds = dy·dᵀ`,
//! `dx = dy·wᵀ + repeat(ds)`, `dd = sᵀ·dy`. fold sums the columns of x that agree modulo the rank, repeat is its transpose.
//!
//! x (tokens, in), w (in, out), d (rank, out); the inputs need not be a multiple of the rank.
#include "cuda/instance.cuh"
#include "gemm/rank_grad.cuh"

using namespace graft;

namespace {

/// y = s·d + x·w.
using Forward = Operation<Element, Element, 2, Major::K, Major::MN>;

/// dx = dy·wᵀ + repeat(ds): what is repeated is added to the sums as they are stored.
struct InputGrad : Operation<Element, Element, 1, Major::K, Major::K> {
  Matrix<const Element> ds;
  __device__ __forceinline__ float finish(int row, int col, float sum) const {
    return sum + to_float(ds.data[row * ds.stride + col % ds.cols]);
  }
};

}  // namespace

/// s = fold(x), one element for each thread; a warp reads neighbouring columns.
extern "C" __global__ void __launch_bounds__(256) bone_fold(const Element* x, Element* s, int tokens, int n_in, int rank) {
  const i64 i = static_cast<i64>(blockIdx.x) * 256 + threadIdx.x;
  if (i >= static_cast<i64>(tokens) * rank) return;
  const Element* row = x + i / rank * n_in;
  float sum = 0.f;
  for (int col = static_cast<int>(i % rank); col < n_in; col += rank) sum += to_float(row[col]);
  s[i] = from_float<Element>(sum);
}

extern "C" __global__ void __launch_bounds__(MainTile::THREADS)
bone_forward(const Element* x, const Element* w, const Element* s, const Element* d, Element* y, int tokens, int n_in,
             int n_out, int rank) {
  extended_product<MainTile>(
      Forward{{{s, tokens, rank}, {x, tokens, n_in}}, {{d, rank, n_out}, {w, n_in, n_out}}, {y, tokens, n_out}}, ALL_STEPS);
}

extern "C" __global__ void __launch_bounds__(MainTile::THREADS)
bone_input_grad(const Element* dy, const Element* w, const Element* ds, Element* dx, int tokens, int n_in, int n_out, int rank) {
  extended_product<MainTile>(
      InputGrad{{{{dy, tokens, n_out}}, {{w, n_in, n_out}}, {dx, tokens, n_in}}, {ds, tokens, rank}}, ALL_STEPS);
}

/// ds, and a slab's part of sᵀ·dy, in one pass over dy.
extern "C" __global__ void __launch_bounds__(RankGrad<Element, PADDED_RANK>::THREADS, 2)
bone_rank_grad(const Element* dy, const Element* d, const Element* s, Element* ds, float* dd_parts, int tokens, int n_out,
               int rank, int tiles_per_slab) {
  rank_grad<Element, PADDED_RANK>({{dy, tokens, n_out}, {d, rank, n_out}, {s, tokens, rank}, {ds, tokens, rank},
                                   {dd_parts, rank, n_out}, 1.f}, tiles_per_slab);
}
