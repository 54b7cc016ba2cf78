//! Attention by tiles of queries and keys, of which no more than one pair is ever held: `y = p·v` with
//! `p = exp(scale·q·kᵀ + bias − lse)`, and its gradient: with `dp = dy·vᵀ` and `ds = p·(dp − Σ dp·p)`, `dq = scale·ds·k`,
//! `dk = scale·dsᵀ·q`, `dv = pᵀ·dy`. Sums are in f32 and in a fixed order.
//!
//! q, dy (batch, heads, queries, …), k and v (batch, heads / times, keys, …), bias any strides; heads are at most `GRAFT_WIDTH`
//! wide. 128 threads: thread (i, j) of 16 × 8 has the queries `ROWS·i + r` and the keys, or columns, `j + 8·c` of a tile.
#include "cuda/math.cuh"

using namespace graft;

namespace {

using Element = GRAFT_ELEMENT;
/// The columns of a tile in shared memory: an odd stride keeps neighbouring rows in different banks.
constexpr int WIDTH = GRAFT_WIDTH, STRIDE = WIDTH + 1;
constexpr int THREADS = 128, ROWS = 2, QUERIES = 16 * ROWS, KEYS = 32, COLS = KEYS / 8, COLUMNS = WIDTH / 8;
constexpr int SHARES = KEYS + 1;

/// A tensor of rank 4.
struct Tensor {
  const Element* data;
  i64 batch, head, row, col;

  /// The matrix of a head.
  __device__ __forceinline__ Tensor of(int b, int h) const { return {data + b * batch + h * head, batch, head, row, col}; }
  __device__ __forceinline__ float at(i64 i, i64 j) const { return to_float(data[i * row + j * col]); }
};

/// A tile of rows in shared memory.
struct Tile {
  float* data;

  /// Copies the rows from `first` on, zeros beyond the last of `n`, and beyond the last of `cols`.
  __device__ __forceinline__ void load(const Tensor& from, int first, int rows, int n, int cols) const {
    for (int e = threadIdx.x; e < rows * WIDTH; e += THREADS) {
      const int row = e / WIDTH, col = e % WIDTH;
      data[row * STRIDE + col] = first + row < n && col < cols ? from.at(first + row, col) : 0.f;
    }
  }
  __device__ __forceinline__ float at(int row, int col) const { return data[row * STRIDE + col]; }
};

/// The sizes of a call.
struct Sizes {
  int heads, times, queries, keys, size, width;
  float scale;
};

/// A thread's place.
struct Place {
  int i, j;
  __device__ __forceinline__ Place() : i(threadIdx.x / 8), j(threadIdx.x % 8) {}
};

/// What `join` makes of the parts of the eight threads that share a query.
template <class Join> __device__ __forceinline__ float joined(float part, Join join) {
#pragma unroll
  for (int mask = 4; mask > 0; mask /= 2) part = join(part, shuffle_xor(part, mask));
  return part;
}

__device__ __forceinline__ float sum(float a, float b) { return a + b; }
/// The larger one; NaN if either is.
__device__ __forceinline__ float larger(float a, float b) { return a > b || a != a ? a : b; }

/// out[r][c] = left[row r] · right[row c], over `n` columns: a product with a transposed factor.
__device__ __forceinline__ void dot(float (&out)[ROWS][COLS], const Tile& left, const Tile& right, int n) {
  const Place at;
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
#pragma unroll
    for (int c = 0; c < COLS; c++) out[r][c] = 0.f;
  }
  for (int d = 0; d < n; d++) {
    float x[ROWS], y[COLS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) x[r] = left.at(ROWS * at.i + r, d);
#pragma unroll
    for (int c = 0; c < COLS; c++) y[c] = right.at(at.j + 8 * c, d);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
#pragma unroll
      for (int c = 0; c < COLS; c++) out[r][c] = graft::fma(x[r], y[c], out[r][c]);
    }
  }
}

/// Scores and what is made of them, for all threads: (queries, keys) of a tile.
struct Shares {
  float* data;

  __device__ __forceinline__ void store(const float (&shares)[ROWS][COLS]) const {
    const Place at;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
#pragma unroll
      for (int c = 0; c < COLS; c++) data[(ROWS * at.i + r) * SHARES + at.j + 8 * c] = shares[r][c];
    }
  }
  __device__ __forceinline__ float at(int query, int key) const { return data[query * SHARES + key]; }
};

using Sums = float[ROWS][COLUMNS];

__device__ __forceinline__ void clear(Sums& sums) {
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) sums[r][c] = 0.f;
  }
}

/// sums[r] += Σ over `steps` of factor(row r, step) · right[step].
template <class F> __device__ __forceinline__ void add_product(Sums& sums, int steps, const Tile& right, F factor) {
  const Place at;
  for (int step = 0; step < steps; step++) {
    float x[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) x[r] = factor(ROWS * at.i + r, step);
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) {
      const float y = right.at(step, at.j + 8 * c);
#pragma unroll
      for (int r = 0; r < ROWS; r++) sums[r][c] = graft::fma(x[r], y, sums[r][c]);
    }
  }
}

/// Stores rows of a result with `n` rows of `cols`, times a factor for each.
template <class F> __device__ __forceinline__ void store(Element* to, int first, int n, int cols, const Sums& sums, F factor) {
  const Place at;
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    const int row = first + ROWS * at.i + r;
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) {
      const int col = at.j + 8 * c;
      if (row < n && col < cols) to[static_cast<i64>(row) * cols + col] = from_float<Element>(sums[r][c] * factor(r));
    }
  }
}

/// The scores of a tile: scale·q·kᵀ + bias.
__device__ __forceinline__ void scores(float (&s)[ROWS][COLS], const Tile& q, const Tile& k, const Tensor& bias, const Sizes& n,
                                       int query, int key) {
  const Place at;
  dot(s, q, k, n.size);
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
#pragma unroll
    for (int c = 0; c < COLS; c++) {
      const int row = query + ROWS * at.i + r, col = key + at.j + 8 * c;
      if (row < n.queries && col < n.keys) s[r][c] = s[r][c] * n.scale + bias.at(row, col);
    }
  }
}

/// Whether an element of a tile is of a query and a key that there are.
__device__ __forceinline__ bool is_there(const Sizes& n, int query, int key, int r, int c) {
  const Place at;
  return query + ROWS * at.i + r < n.queries && key + at.j + 8 * c < n.keys;
}

/// What the passes of the gradient have of a tile: its shares, and the gradients by them.
struct Back {
  Tile q, dy, k, v;
  Tensor bias;
  float p[ROWS][COLS], dp[ROWS][COLS];

  __device__ __forceinline__ void compute(const Sizes& n, int query, int key, const float (&lse)[ROWS]) {
    scores(p, q, k, bias, n, query, key);
    dot(dp, dy, v, n.width);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
#pragma unroll
      for (int c = 0; c < COLS; c++) p[r][c] = is_there(n, query, key, r, c) ? quick_exp(p[r][c] - lse[r]) : 0.f;
    }
  }
};

/// This thread's elements of a vector of queries.
template <class T>
__device__ __forceinline__ void take(float (&values)[ROWS], const T* from, int query, int n) {
  const Place at;
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    const int row = query + ROWS * at.i + r;
    values[r] = row < n ? to_float(from[row]) : 0.f;
  }
}

}  // namespace

#define GRAFT_TENSOR(x) const Element *x, i64 x##_batch, i64 x##_head, i64 x##_row, i64 x##_col
#define GRAFT_TENSOR_OF(x) Tensor{x, x##_batch, x##_head, x##_row, x##_col}

/// grid = (tiles of queries, batch · heads); `lse` may be null. Two blocks on a multiprocessor are enough, and their tiles leave no
/// room for more: without that word the assembler makes room for four and spills, here and below.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
attention(GRAFT_TENSOR(q), GRAFT_TENSOR(k), GRAFT_TENSOR(v), GRAFT_TENSOR(bias), Element* y, Element* lse, int heads, int times,
          int queries, int keys, int size, int width, float scale) {
  const Sizes n = {heads, times, queries, keys, size, width, scale};
  const int batch = blockIdx.y / heads, head = blockIdx.y % heads, query = blockIdx.x * QUERIES;
  const Tensor of_k = GRAFT_TENSOR_OF(k).of(batch, head / times), of_v = GRAFT_TENSOR_OF(v).of(batch, head / times);
  const Tensor of_bias = GRAFT_TENSOR_OF(bias).of(batch, head);
  float* const memory = reinterpret_cast<float*>(shared_memory());
  const Tile q_tile = {memory}, k_tile = {memory + QUERIES * STRIDE}, v_tile = {k_tile.data + KEYS * STRIDE};
  const Shares shares = {v_tile.data + KEYS * STRIDE};
  const Place at;
  q_tile.load(GRAFT_TENSOR_OF(q).of(batch, head), query, QUERIES, queries, size);

  // The lowest finite number: where all is hidden, e^(−∞ − level) is 0 and not without a value.
  float level[ROWS], divisor[ROWS];
  Sums sums;
  clear(sums);
#pragma unroll
  for (int r = 0; r < ROWS; r++) level[r] = -3.4028235e38f, divisor[r] = 0.f;
  for (int key = 0; key < keys; key += KEYS) {
    sync_block();  // No thread reads the last tiles any more.
    k_tile.load(of_k, key, KEYS, keys, size);
    v_tile.load(of_v, key, KEYS, keys, width);
    sync_block();
    float s[ROWS][COLS];
    scores(s, q_tile, k_tile, of_bias, n, query, key);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      float largest = level[r], part = 0.f;
#pragma unroll
      for (int c = 0; c < COLS; c++) largest = is_there(n, query, key, r, c) ? larger(largest, s[r][c]) : largest;
      largest = joined(largest, larger);
      const float shrink = quick_exp(level[r] - largest);
      level[r] = largest;
#pragma unroll
      for (int c = 0; c < COLS; c++) {
        s[r][c] = is_there(n, query, key, r, c) ? quick_exp(s[r][c] - largest) : 0.f;
        part += s[r][c];
      }
      divisor[r] = divisor[r] * shrink + joined(part, sum);
#pragma unroll
      for (int c = 0; c < COLUMNS; c++) sums[r][c] *= shrink;
    }
    shares.store(s);
    sync_block();
    add_product(sums, KEYS, v_tile, [&](int row, int step) { return shares.at(row, step); });
  }
  float inverse[ROWS];
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    // At least 1 where a query sees a key: half of it is no change.
    const double whole = divisor[r] < 0.5f ? 0.5f : divisor[r];
    inverse[r] = static_cast<float>(1.0 / whole);
    const int row = query + ROWS * at.i + r;
    if (lse && at.j == 0 && row < queries) {
      const double log = whole < 1e300 ? log64(whole) : whole;
      lse[static_cast<i64>(blockIdx.y) * queries + row] = from_float<Element>(static_cast<float>(level[r] + log));
    }
  }
  store(y + static_cast<i64>(blockIdx.y) * queries * width, query, queries, width, sums, [&](int r) { return inverse[r]; });
}

/// Σ dp·p of each query, which the other pass needs, and dq if it is wanted. grid = (tiles of queries, batch · heads).
extern "C" __global__ void __launch_bounds__(THREADS, 2)
attention_grad_queries(GRAFT_TENSOR(dy), GRAFT_TENSOR(q), GRAFT_TENSOR(k), GRAFT_TENSOR(v), GRAFT_TENSOR(bias),
                       const Element* lse, float* along, Element* dq, int heads, int times, int queries, int keys, int size,
                       int width, float scale) {
  const Sizes n = {heads, times, queries, keys, size, width, scale};
  const int batch = blockIdx.y / heads, head = blockIdx.y % heads, query = blockIdx.x * QUERIES;
  const Tensor of_k = GRAFT_TENSOR_OF(k).of(batch, head / times), of_v = GRAFT_TENSOR_OF(v).of(batch, head / times);
  float* const memory = reinterpret_cast<float*>(shared_memory());
  Back back = {{memory}, {memory + QUERIES * STRIDE}, {memory + 2 * QUERIES * STRIDE},
               {memory + (2 * QUERIES + KEYS) * STRIDE}, GRAFT_TENSOR_OF(bias).of(batch, head), {}, {}};
  const Shares shares = {memory + 2 * (QUERIES + KEYS) * STRIDE};
  const Place at;
  back.q.load(GRAFT_TENSOR_OF(q).of(batch, head), query, QUERIES, queries, size);
  back.dy.load(GRAFT_TENSOR_OF(dy).of(batch, head), query, QUERIES, queries, width);
  float levels[ROWS], whole[ROWS] = {};
  take(levels, lse + static_cast<i64>(blockIdx.y) * queries, query, queries);
  const auto tile = [&](int key) {
    sync_block();  // No thread reads the last tiles any more.
    back.k.load(of_k, key, KEYS, keys, size);
    back.v.load(of_v, key, KEYS, keys, width);
    sync_block();
    back.compute(n, query, key, levels);
  };
  for (int key = 0; key < keys; key += KEYS) {
    tile(key);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      float part = 0.f;
#pragma unroll
      for (int c = 0; c < COLS; c++) part += back.p[r][c] * back.dp[r][c];
      whole[r] += joined(part, sum);
    }
  }
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    const int row = query + ROWS * at.i + r;
    if (at.j == 0 && row < queries) along[static_cast<i64>(blockIdx.y) * queries + row] = whole[r];
  }
  if (!dq) return;
  Sums sums;
  clear(sums);
  for (int key = 0; key < keys; key += KEYS) {
    tile(key);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
#pragma unroll
      for (int c = 0; c < COLS; c++) back.dp[r][c] = back.p[r][c] * (back.dp[r][c] - whole[r]);
    }
    shares.store(back.dp);
    sync_block();
    add_product(sums, KEYS, back.k, [&](int row, int step) { return shares.at(row, step); });
  }
  store(dq + static_cast<i64>(blockIdx.y) * queries * size, query, queries, size, sums, [&](int) { return scale; });
}

/// dk and dv, which either may be null: a block has a tile of keys and goes through the queries of all heads that share it.
/// grid = (tiles of keys, batch · heads / times).
extern "C" __global__ void __launch_bounds__(THREADS, 2)
attention_grad_keys(GRAFT_TENSOR(dy), GRAFT_TENSOR(q), GRAFT_TENSOR(k), GRAFT_TENSOR(v), GRAFT_TENSOR(bias), const Element* lse,
                    const float* along, Element* dk, Element* dv, int heads, int times, int queries, int keys, int size,
                    int width, float scale) {
  const Sizes n = {heads, times, queries, keys, size, width, scale};
  const int shared_heads = heads / times, batch = blockIdx.y / shared_heads, of_keys = blockIdx.y % shared_heads;
  const int key = blockIdx.x * KEYS;
  float* const memory = reinterpret_cast<float*>(shared_memory());
  Back back = {{memory}, {memory + QUERIES * STRIDE}, {memory + 2 * QUERIES * STRIDE},
               {memory + (2 * QUERIES + KEYS) * STRIDE}, {}, {}, {}};
  const Shares p = {memory + 2 * (QUERIES + KEYS) * STRIDE}, ds = {p.data + QUERIES * SHARES};
  back.k.load(GRAFT_TENSOR_OF(k).of(batch, of_keys), key, KEYS, keys, size);
  back.v.load(GRAFT_TENSOR_OF(v).of(batch, of_keys), key, KEYS, keys, width);
  Sums dk_sums, dv_sums;
  clear(dk_sums);
  clear(dv_sums);
  for (int head = of_keys * times; head < (of_keys + 1) * times; head++) {
    const i64 before = (static_cast<i64>(batch) * heads + head) * queries;
    back.bias = GRAFT_TENSOR_OF(bias).of(batch, head);
    for (int query = 0; query < queries; query += QUERIES) {
      sync_block();  // No thread reads the last tiles any more.
      back.q.load(GRAFT_TENSOR_OF(q).of(batch, head), query, QUERIES, queries, size);
      back.dy.load(GRAFT_TENSOR_OF(dy).of(batch, head), query, QUERIES, queries, width);
      sync_block();
      float levels[ROWS], whole[ROWS];
      take(levels, lse + before, query, queries);
      take(whole, along + before, query, queries);
      back.compute(n, query, key, levels);
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
#pragma unroll
        for (int c = 0; c < COLS; c++) back.dp[r][c] = back.p[r][c] * (back.dp[r][c] - whole[r]);
      }
      p.store(back.p);
      ds.store(back.dp);
      sync_block();
      add_product(dv_sums, QUERIES, back.dy, [&](int row, int step) { return p.at(step, row); });
      add_product(dk_sums, QUERIES, back.q, [&](int row, int step) { return ds.at(step, row); });
    }
  }
  const i64 before = static_cast<i64>(blockIdx.y) * keys;
  if (dk) store(dk + before * size, key, keys, size, dk_sums, [&](int) { return scale; });
  if (dv) store(dv + before * width, key, keys, width, dv_sums, [](int) { return 1.f; });
}
