//! LoRA's passes over x and over dy where a library does the large products: each also stores what it reads, and behind it
//! what it makes, so that with the weights in one frame [[w, a], [b, 0]] either large product is a plain one:
//! `y = [x | s·h]·[w; b]` and `dx = [dy | dh]·[w | a]ᵀ`.
//!
//! x (tokens, in), dy (tokens, out), a (in, rank), b (rank, out); what lies beside x or dy has `PADDED_RANK` columns, those
//! that the adapter has not being zero. Rows of x and dy begin at multiples of 16 bytes.
#include "cuda/instance.cuh"
#include "gemm/rank_grad.cuh"

using namespace graft;

namespace {

/// What is copied at once.
struct alignas(16) Chunk {
  u32 words[4];
};

/// A matrix with room for the adapter's columns behind those of what it copies.
struct Beside {
  Matrix<Element> copied, behind;

  __device__ __forceinline__ Beside(Element* data, int rows, int cols)
      : copied(data, rows, cols), behind(data + cols, rows, PADDED_RANK) {
    copied.stride = behind.stride = cols + PADDED_RANK;
  }

  /// Copies the panel at (`row`, `col`), whose rows run along memory, with all threads of the block.
  template <int THREADS, class P> __device__ __forceinline__ void copy(const P& panel, int row, int col) const {
    constexpr int PER_ROW = P::COLS / CHUNK<Element>;
    for (int chunk = threadIdx.x; chunk < P::ROWS * PER_ROW; chunk += THREADS) {
      const int i = chunk / PER_ROW, j = chunk % PER_ROW * CHUNK<Element>;
      if (row + i >= copied.rows || col + j >= copied.cols) continue;
      Element* to = copied.data + (row + i) * copied.stride + col + j;
      *reinterpret_cast<Chunk*>(to) = *reinterpret_cast<const Chunk*>(panel.at(i, j));
    }
  }
};

/// h = x·a, with x copied.
struct Down : Operation<Element, Element, 1, Major::K, Major::MN> {
  Beside beside;
  template <class P> __device__ __forceinline__ void see(const P& panel, int row, int k) const {
    beside.copy<RankTile::THREADS>(panel, row, k);
  }
};

/// dh and a slab's part of hᵀ·dy, with dy copied.
struct Grads : RankGradOperands<Element, PADDED_RANK> {
  Beside beside;
  template <class P> __device__ __forceinline__ void see(const P& panel, int token, int col) const {
    beside.copy<Shape::THREADS>(panel, token, col);
  }
  __device__ __forceinline__ void finish(typename Shape::DqSums& sums, int token, bool) const {
    store(sums, token);
    sums.pairs([&](int i, int j, float x, float y) {
      store_pair(beside.behind, token + Shape::warp_row() + i, j, x, y,
                 [&](int, int col, float sum) { return col < dq.cols ? sum * scale : 0.f; });
    });
  }
};

}  // namespace

/// A null h is not wanted.
extern "C" __global__ void __launch_bounds__(RankTile::THREADS, RankTile::BLOCKS)
lora_down_beside(const Element* x, const Element* a, Element* h, Element* beside, int tokens, int n_in, int rank,
                 const float* scale) {
  const Down op = {{{{x, tokens, n_in}}, {{a, n_in, rank}}, {h, tokens, rank}}, {beside, tokens, n_in}};
  const int m = blockIdx.y * RankTile::M;
  const float s = *scale;
  typename RankTile::Sums sums;
  sum_tile<RankTile>(sums, op, m, 0);
  if (h) store_tile<RankTile>(sums, op.c, m, 0, [](int, int, float sum) { return sum; });
  store_tile<RankTile>(sums, op.beside.behind, m, 0, [&](int, int col, float sum) { return col < rank ? sum * s : 0.f; });
}

/// As `lora_rank_grad`.
extern "C" __global__ void __launch_bounds__(RankGrad<Element, PADDED_RANK>::THREADS, 2)
lora_rank_grad_beside(const Element* dy, const Element* b, const Element* h, Element* dh, float* db_parts, Element* beside,
                      int tokens, int n_out, int rank, const float* scale, int tiles_per_slab) {
  const Grads op = {{{dy, tokens, n_out}, {b, rank, n_out}, {h, tokens, rank}, {dh, tokens, rank}, slab_part(db_parts, rank, n_out), *scale},
                    {beside, tokens, n_out}};
  rank_grad(op, tiles_per_slab);
}
