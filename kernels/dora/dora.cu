//! DoRA: LoRA whose outputs have lengths of their own. With n the norms of the columns of `v = w + s·(a·b)`:
//! `sum = s·(h·b) + x·w`, `y = sum∘(m/n)`; in the gradient n is constant: `dsum = dy∘(m/n)`, for which LoRA's gradient
//! follows, and `dm = Σ dy∘sum / n`.
#include "cuda/instance.cuh"
#include "cuda/math.cuh"

using namespace graft;

namespace {

/// The adapter's segment first, scaled when it ends; what is stored is scaled to its column's length.
struct Forward : Operation<Element, Element, 2, Major::K, Major::MN> {
  float scale;
  const float *m, *n;
  Element* sums;
  __device__ __forceinline__ float between(int segment, int, int, float sum) const { return segment == 0 ? sum * scale : sum; }
  __device__ __forceinline__ float finish(int row, int col, float sum) const {
    if (sums) sums[row * c.stride + col] = from_float<Element>(sum);
    return sum * (m[col] / n[col]);
  }
};

}  // namespace

/// The squares of a tile of v, summed over its rows: one float for each column and row of tiles.
extern "C" __global__ void __launch_bounds__(MainTile::THREADS, MainTile::BLOCKS)
dora_squares(const Element* w, const Element* a, const Element* b, float* parts, int n_in, int n_out, int rank, const float* scale) {
  constexpr int WARPS_M = MainTile::M / MainTile::WARP_M;
  const int m = blockIdx.y * MainTile::M, n = blockIdx.x * MainTile::N, lane = threadIdx.x % 32;
  using Change = Operation<Element, Element, 1, Major::K, Major::MN>;
  typename MainTile::Sums sums;
  sum_tile<MainTile>(sums, Change{{{a, n_in, rank}}, {{b, rank, n_out}}, {nullptr, n_in, n_out}}, m, n);
  sync_block();  // No thread reads the product's panels any more.
  float* const squares = reinterpret_cast<float*>(shared_memory()) + MainTile::warp_row() / MainTile::WARP_M * MainTile::N;
  float own[MainTile::WARP_N / 4] = {};
  sums.each([&](int i, int j, float& sum) {
    const int row = m + MainTile::warp_row() + i, col = n + MainTile::warp_col() + j;
    if (row >= n_in || col >= n_out) return;
    const float v = to_float(w[static_cast<i64>(row) * n_out + col]) + *scale * sum;
    own[j / 8 * 2 + j % 2] += v * v;
  });
#pragma unroll
  for (int i = 0; i < MainTile::WARP_N / 4; i++) {
    // The lanes of a column differ in all but the lowest two bits.
    for (int mask = 4; mask < 32; mask *= 2) own[i] += shuffle_xor(own[i], mask);
    if (lane < 4) squares[MainTile::warp_col() + i / 2 * 8 + lane * 2 + i % 2] = own[i];
  }
  sync_block();
  const float* const all = reinterpret_cast<const float*>(shared_memory());
  for (int col = threadIdx.x; col < MainTile::N && n + col < n_out; col += MainTile::THREADS) {
    float sum = 0.f;
    for (int i = 0; i < WARPS_M; i++) sum += all[i * MainTile::N + col];
    parts[static_cast<i64>(blockIdx.y) * n_out + n + col] = sum;
  }
}

/// n, of the squares of all rows of tiles.
extern "C" __global__ void __launch_bounds__(256) dora_norms(const float* parts, float* n, int n_out, int tiles) {
  const int col = blockIdx.x * 256 + threadIdx.x;
  if (col >= n_out) return;
  float sum = 0.f;
  for (int tile = 0; tile < tiles; tile++) sum += parts[static_cast<i64>(tile) * n_out + col];
  n[col] = graft::sqrt(sum);
}

/// y, and the sums where they are wanted.
extern "C" __global__ void __launch_bounds__(MainTile::THREADS, MainTile::BLOCKS)
dora_forward(const Element* x, const Element* w, const Element* h, const Element* b, const float* m, const float* n, Element* y,
             Element* sums, int tokens, int n_in, int n_out, int rank, const float* scale GRAFT_EPILOGUE_PARAMETERS) {
  finished_product<MainTile>(
      Forward{{{{h, tokens, rank}, {x, tokens, n_in}}, {{b, rank, n_out}, {w, n_in, n_out}}, {y, tokens, n_out}}, *scale, m, n, sums},
      GRAFT_EPILOGUE);
}

/// dsum, and a slab's part of Σ dy∘sum, one column for each thread; null parts are not wanted. grid = (columns, slabs).
extern "C" __global__ void __launch_bounds__(256)
dora_stretch(const Element* dy, const Element* sums, const float* m, const float* n, Element* dsum, float* parts, int tokens,
             int n_out, int tokens_per_slab) {
  const int col = blockIdx.x * 256 + threadIdx.x, begin = blockIdx.y * tokens_per_slab;
  const int end = tokens - begin < tokens_per_slab ? tokens : begin + tokens_per_slab;
  if (col >= n_out) return;
  const float length = m[col] / n[col];
  float part = 0.f;
  for (i64 i = static_cast<i64>(begin) * n_out + col; i < static_cast<i64>(end) * n_out; i += n_out) {
    part = graft::fma(to_float(dy[i]), to_float(sums[i]), part);
    dsum[i] = from_float<Element>(to_float(dy[i]) * length);
  }
  if (parts) parts[static_cast<i64>(blockIdx.y) * n_out + col] = part;
}

/// dm, of all slabs.
extern "C" __global__ void __launch_bounds__(256)
dora_length_grad(const float* parts, const float* n, float* dm, int n_out, int slabs) {
  const int col = blockIdx.x * 256 + threadIdx.x;
  if (col >= n_out) return;
  float sum = 0.f;
  for (int slab = 0; slab < slabs; slab++) sum += parts[static_cast<i64>(slab) * n_out + col];
  dm[col] = sum / n[col];
}
