//! A linear layer with a Bone adapter: `s = fold(x)`, `y = s·d + x·w`, and of its gradient `ds = dy·dᵀ`, `dd = sᵀ·dy`; what
//! remains is `dx = dy·wᵀ + repeat(ds)` (`gemm/linear.cu`). fold (`fold.cu`) sums the columns of x that agree modulo the
//! rank, repeat is its transpose.
//!
//! x (tokens, in), w (in, out), d (rank, out); the inputs need not be a multiple of the rank.
#include "cuda/instance.cuh"
#include "gemm/rank_grad.cuh"

using namespace graft;

/// y = s·d + x·w.
extern "C" __global__ void __launch_bounds__(MainTile::THREADS, MainTile::BLOCKS)
bone_forward(const Element* x, const Element* w, const Element* s, const Element* d, Element* y, int tokens, int n_in,
             int n_out, int rank GRAFT_EPILOGUE_PARAMETERS) {
  using Forward = Operation<Element, Element, 2, Major::K, Major::MN>;
  finished_product<MainTile>(
      Forward{{{s, tokens, rank}, {x, tokens, n_in}}, {{d, rank, n_out}, {w, n_in, n_out}}, {y, tokens, n_out}}, GRAFT_EPILOGUE);
}

/// ds, and a slab's part of sᵀ·dy, in one pass over dy.
extern "C" __global__ void __launch_bounds__(RankGrad<Element, PADDED_RANK>::THREADS, 2)
bone_rank_grad(const Element* dy, const Element* d, const Element* s, Element* ds, float* dd_parts, int tokens, int n_out,
               int rank, int tiles_per_slab) {
  using Op = RankGradOperands<Element, PADDED_RANK>;
  rank_grad(Op{{dy, tokens, n_out}, {d, rank, n_out}, {s, tokens, rank}, {ds, tokens, rank}, slab_part(dd_parts, rank, n_out), 1.f},
            tiles_per_slab);
}
