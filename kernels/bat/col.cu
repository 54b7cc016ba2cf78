//! Bat by columns of blocks. The weight w (in, out) lies in square blocks of the rank; block (b, a) changes to
//! `w' = w + dᵀ·w + dᵀ` with the matrix d[a] of its column. With the gradient g = xᵀ·dy of w', which exists in
//! accumulators only: `dd[a] = Σ_b (w·gᵀ + gᵀ)`, that is `dd[a, k, q] = Σ_b (Σ_p w[k, p]·g[q, p] + g[q, k])`.
//!
//! Tiles are as large as whole blocks allow: of 64 columns and rank 24, 48 are used. Ranks that are multiples of 16 are
//! products of whole fragments, a warp for each 16 × 16 of the result; others are computed element by element.
#include "cuda/instance.cuh"

using namespace graft;

namespace {

/// Elements of a tile of the weight, each way, and threads that change it.
constexpr int SIDE = 64, CHANGING = 256;

/// g = xᵀ·dy.
using WeightGrad = Operation<Element, Element, 1, Major::MN, Major::MN>;
/// A tile of w as the right operand of dᵀ·w, and the matrices d beside each other as the left one: both with k down.
using Strip = Panel<Element, SIDE, SIDE, Major::MN>;

/// Sixteen steps of a panel.
template <class P> struct Steps {
  using Element = typename P::Element;
  static constexpr Major ALONG = P::ALONG;
  static constexpr int K = 16;
  P panel;
  int first;
  __device__ __forceinline__ Element* at(int i, int k) const { return panel.at(i, first + k); }
};

/// The whole blocks of up to `most` elements from `first` on.
__device__ __forceinline__ int whole(int first, int n, int most) { return n - first < most ? n - first : most; }

/// Calls `store(q, col, sum)` with what dᵀ·w is at row q and column col of a tile.
template <class F>
__device__ __forceinline__ void turn_fragments(const Strip& w, const Strip& d, int rows, int cols, int rank, const F& store) {
  for (int f = threadIdx.x / 32; f < rows / 16 * (cols / 16); f += CHANGING / 32) {
    const int q = f / (cols / 16) * 16, col = f % (cols / 16) * 16, b = q / rank * rank, a = col / rank * rank;
    Accumulators<1, 2> sums;
    sums.clear();
    for (int k = 0; k < rank; k += 16) multiply(sums, Steps<Strip>{d, k}, a + q - b, Steps<Strip>{w, b + k}, col, KeepAll{});
    sums.each([&](int i, int j, float& sum) { store(q + i, col + j, sum); });
  }
}

template <class F>
__device__ __forceinline__ void turn_elements(const Strip& w, const Strip& d, int rows, int cols, int rank, const F& store) {
  for (int e = threadIdx.x; e < rows * cols; e += CHANGING) {
    const int q = e / cols, col = e % cols, b = q / rank * rank, turned = col / rank * rank + q - b;
    float sum = 0.f;
    for (int k = 0; k < rank; k++) sum = graft::fma(to_float(*d.at(turned, k)), to_float(*w.at(col, b + k)), sum);
    store(q, col, sum);
  }
}

/// What a tile of g adds to dd[a, k, q] besides the product: Σ_b g[q, k], for `first` the first column of a.
template <class P> __device__ __forceinline__ float turned_sum(const P& g, int rows, int rank, int first, int k, int q) {
  float sum = 0.f;
  for (int b = 0; b < rows; b += rank) sum += to_float(*g.at(b + q, first + k));
  return sum;
}

/// Adds what a tile of g and the same tile of w make of dd to the slab's part, or begins it. `rows` and `cols` are whole
/// blocks; an element is always the same thread's.
template <class P>
__device__ __forceinline__ void add_fragments(const P& g, const P& w, int rows, int cols, int rank, float* part, bool is_first) {
  const int side = rank / 16;
  for (int f = threadIdx.x / 32; f < cols / 16 * side; f += MainTile::THREADS / 32) {
    const int first = f / (side * side) * rank, k = f / side % side * 16, q = f % side * 16;
    Accumulators<1, 2> sums;
    sums.clear();
    for (int b = 0; b < rows; b += rank) {
      for (int p = first; p < first + rank; p += 16) {
        multiply(sums, Steps<P>{w, p}, b + k, Steps<P>{g, p}, b + q, KeepAll{});
      }
    }
    sums.each([&](int i, int j, float& sum) {
      float* const to = part + (first + k + i) * rank + q + j;
      sum += turned_sum(g, rows, rank, first, k + i, q + j);
      *to = is_first ? sum : *to + sum;
    });
  }
}

template <class P>
__device__ __forceinline__ void add_elements(const P& g, const P& w, int rows, int cols, int rank, float* part, bool is_first) {
  for (int e = threadIdx.x; e < cols * rank; e += MainTile::THREADS) {
    const int first = e / (rank * rank) * rank, k = e / rank % rank, q = e % rank;
    float sum = turned_sum(g, rows, rank, first, k, q);
    for (int b = 0; b < rows; b += rank) {
      for (int p = first; p < first + rank; p++) sum = graft::fma(to_float(*w.at(b + k, p)), to_float(*g.at(b + q, p)), sum);
    }
    part[e] = is_first ? sum : part[e] + sum;
  }
}

}  // namespace

/// w', a tile for each block of threads.
extern "C" __global__ void __launch_bounds__(CHANGING, 2)
bat_weight(const Element* w, const Element* d, Element* changed, int n_in, int n_out, int rank) {
  const Strip w_tile = {reinterpret_cast<Element*>(shared_memory())}, d_tile = {w_tile.data + Strip::ELEMENTS};
  const int most = SIDE / rank * rank, row = blockIdx.x * most, first = blockIdx.y * most;
  const int rows = whole(row, n_in, most), cols = whole(first, n_out, most);
  w_tile.template load<CHANGING>({w, n_in, n_out}, first, row);
  copy_commit();
  d_tile.template fill<CHANGING>([&](int col, int k) {
    const i64 at = (static_cast<i64>(first) + col / rank * rank + k) * rank + col % rank;
    return col < cols && k < rank ? to_float(d[at]) : 0.f;
  });
  copy_wait<0>();
  sync_block();
  const auto store = [&](int q, int col, float sum) {
    const int p = col % rank, turned = col - p + q % rank;
    const float all = to_float(*w_tile.at(col, q)) + to_float(*d_tile.at(turned, p)) + sum;
    changed[(static_cast<i64>(row) + q) * n_out + first + col] = from_float<Element>(all);
  };
  if (rank % 16 == 0) {
    turn_fragments(w_tile, d_tile, rows, cols, rank, store);
  } else {
    turn_elements(w_tile, d_tile, rows, cols, rank, store);
  }
}

/// The part of dd that a slab of the rows of w makes, in tiles from top to bottom. One block on a multiprocessor is enough:
/// without that word the assembler makes room for more and spills.
extern "C" __global__ void __launch_bounds__(MainTile::THREADS, 1)
bat_grad(const Element* x, const Element* dy, const Element* w, float* parts, int tokens, int n_in, int n_out, int rank,
         int tiles_per_slab) {
  const Panel<Element, MainTile::M, MainTile::N, Major::K> g = {reinterpret_cast<Element*>(shared_memory())};
  const Panel<Element, MainTile::M, MainTile::N, Major::K> w_tile = {g.data + g.ELEMENTS};
  const int most = MainTile::N / rank * rank, n = blockIdx.x * most, cols = whole(n, n_out, most);
  float* const part = parts + (static_cast<i64>(blockIdx.y) * n_out + n) * rank;
  for (int tile = 0; tile < tiles_per_slab; tile++) {
    const int most_rows = MainTile::M / rank * rank, m = (blockIdx.y * tiles_per_slab + tile) * most_rows;
    const int rows = whole(m, n_in, most_rows);
    if (rows <= 0) return;
    typename MainTile::Sums sums;
    sum_tile<MainTile>(sums, WeightGrad{{{x, tokens, n_in}}, {{dy, tokens, n_out}}, {nullptr, n_in, n_out}}, m, n);
    sync_block();  // No thread reads the product's panels any more.
    w_tile.template load<MainTile::THREADS>({w, n_in, n_out}, m, n);
    copy_commit();
    put(g, MainTile::warp_row(), MainTile::warp_col(), sums);
    copy_wait<0>();
    sync_block();
    if (rank % 16 == 0) {
      add_fragments(g, w_tile, rows, cols, rank, part, tile == 0);
    } else {
      add_elements(g, w_tile, rows, cols, rank, part, tile == 0);
    }
    sync_block();  // No thread reads the tiles any more.
  }
}
