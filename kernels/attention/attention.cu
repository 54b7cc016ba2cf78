//! Attention by tiles of queries and keys, of which no more than one pair is ever held: `y = p·v` with
//! `p = exp(scale·q·kᵀ + bias − lse)`, and its gradient: with `dp = dy·vᵀ` and `ds = p·(dp − Σ dp·p)`, `dq = scale·ds·k`,
//! `dk = scale·dsᵀ·q`, `dv = pᵀ·dy`.
//!
//! q, dy (batch, heads, queries, …), k and v (batch, heads / times, keys, …), bias any strides; heads are at most `GRAFT_WIDTH`
//! wide. A block owns `OWN` rows of one side, 16 for each warp, and goes through those of the other side in a fixed order,
//! `OTHER` at a time; of 16-bit elements the next ones come while those before are multiplied. Sums are in f32; shares are
//! rounded to the element before they are multiplied.
#include "cuda/math.cuh"
#include "cuda/product.cuh"

using namespace graft;

namespace {

using Element = GRAFT_ELEMENT;
/// Wide rows leave room in shared memory for two warps' only.
constexpr int WIDTH = GRAFT_WIDTH, WARPS = sizeof(Element) * WIDTH > 256 ? 2 : 4, THREADS = 32 * WARPS;
constexpr int OWN = 16 * WARPS, OTHER = 32;

/// Rows of the block's own side, and of the other one: as the right factor of scores, and the same memory as that of a product
/// with shares.
using Own = Panel<Element, OWN, WIDTH, Major::K>;
using Other = Panel<Element, OTHER, WIDTH, Major::K>;
using OtherTurned = Panel<Element, WIDTH, OTHER, Major::MN>;
static_assert(Other::STRIDE == OtherTurned::STRIDE, "one panel, seen twice");
using Shares = Panel<Element, OWN, OTHER, Major::K>;
/// Shares of 16-bit elements go from a warp's registers to its registers.
constexpr bool IS_SHORT = sizeof(Element) == 2;
/// Pairs of panels of the other side. Of single precision there is room for one only.
constexpr int STAGES = IS_SHORT ? 2 : 1;
using Scores = Accumulators<1, OTHER / 8>;
using Sums = Accumulators<1, WIDTH / 8>;

/// The matrix of a head.
struct Head {
  const Element* data;
  i64 row, col;

  /// Begins to copy a panel of its `rows` rows of `cols`, from row `first` on; what lies outside is zero.
  template <class P> __device__ __forceinline__ void load(const P& panel, int first, int rows, int cols) const {
    if (col == 1) {
      Matrix<const Element> matrix(data, rows, cols);
      matrix.stride = row;
      panel.template load<THREADS>(matrix, first, 0);
      return;
    }
    for (int e = threadIdx.x; e < P::ROWS * WIDTH; e += THREADS) {
      const int i = e / WIDTH, j = e % WIDTH;
      *panel.at(i, j) = first + i < rows && j < cols ? data[(first + i) * row + j * col] : Element{};
    }
  }
};

/// What is known when a kernel is compiled.
template <bool...> struct Flags {};

/// A tensor of rank 4.
struct Tensor {
  const Element* data;
  i64 batch, head, row, col;

  __device__ __forceinline__ Head of(int b, int h) const { return {data + b * batch + h * head, row, col}; }
};

/// Shared memory: `OWNS` panels of the own side, two of the other one for each stage, and of shares of single precision as
/// many as are needed.
template <int OWNS> struct Memory {
  Element* data;

  __device__ __forceinline__ Memory() : data(reinterpret_cast<Element*>(shared_memory())) {}
  __device__ __forceinline__ Own own(int i) const { return {data + i * Own::ELEMENTS}; }
  __device__ __forceinline__ Element* other(int i) const { return data + OWNS * Own::ELEMENTS + i * Other::ELEMENTS; }
  __device__ __forceinline__ Shares shares(int i) const { return {other(2 * STAGES) + i * Shares::ELEMENTS}; }
};

/// Brings two matrices of the other side, tile by tile.
template <class Memory> class Others {
  const Memory& memory;
  Head a, b;
  int a_cols, b_cols, rows, stage;

  __device__ __forceinline__ void load(int row) {
    a.load(Other{memory.other(2 * stage)}, row, rows, a_cols);
    b.load(Other{memory.other(2 * stage + 1)}, row, rows, b_cols);
    copy_commit();
  }

 public:
  /// `rows` rows of `a_cols` and `b_cols`, of which the first ones begin to come.
  __device__ __forceinline__ Others(const Memory& memory, const Head& a, int a_cols, const Head& b, int b_cols, int rows)
      : memory(memory), a(a), b(b), a_cols(a_cols), b_cols(b_cols), rows(rows), stage(0) {
    sync_block();  // No thread reads panels of others any more.
    load(0);
  }

  /// Waits for the tile from row `row` on.
  __device__ __forceinline__ void take(int row) {
    if (STAGES == 1 && row > 0) {
      sync_block();  // No thread reads the last tile any more.
      load(row);
    }
    copy_wait<0>();
    // The tile is there for all threads, and no thread reads the one before it any more.
    sync_block();
    if (STAGES == 1) return;
    stage = 1 - stage;
    if (row + OTHER < rows) load(row + OTHER);
  }
  /// The tile's panels.
  __device__ __forceinline__ Element* first() const { return memory.other(STAGES == 1 ? 0 : 2 - 2 * stage); }
  __device__ __forceinline__ Element* second() const { return first() + Other::ELEMENTS; }
};

/// This warp's first row of the block's, and the first of the two rows of a lane, eight apart.
__device__ __forceinline__ int warp_row() { return 16 * (threadIdx.x / 32); }
__device__ __forceinline__ int lane_row() { return warp_row() + threadIdx.x % 32 / 4; }

/// Calls `f(half, col, element)` for this lane's elements; `half` says which of its two rows, known when it is compiled.
template <int N, class F> __device__ __forceinline__ void each(Accumulators<1, N>& sums, F f) {
#pragma unroll
  for (int j = 0; j < N; j++) {
#pragma unroll
    for (int e = 0; e < 4; e++) f(e / 2, 8 * j + static_cast<int>(threadIdx.x) % 4 * 2 + e % 2, sums.sum[0][j][e]);
  }
}

/// What `join` makes of the parts of the four lanes that share a row.
template <class Join> __device__ __forceinline__ float joined(float part, Join join) {
  part = join(part, shuffle_xor(part, 1));
  return join(part, shuffle_xor(part, 2));
}

__device__ __forceinline__ float sum(float a, float b) { return a + b; }
/// The larger one; NaN if either is.
__device__ __forceinline__ float larger(float a, float b) { return a > b || a != a ? a : b; }

/// scores = own · otherᵀ.
__device__ __forceinline__ void dot(Scores& scores, const Own& own, Element* other) {
  scores.clear();
  multiply(scores, own, warp_row(), Other{other}, 0, KeepAll{});
}


/// dp becomes ds = p·(dp − mean), where `mean(half, col)` is the query's.
template <class F> __device__ __forceinline__ void through_softmax(Scores& dp, const Scores& p, F mean) {
#pragma unroll
  for (int j = 0; j < OTHER / 8; j++) {
#pragma unroll
    for (int e = 0; e < 4; e++) {
      float& x = dp.sum[0][j][e];
      x = p.sum[0][j][e] * (x - mean(e / 2, 8 * j + static_cast<int>(threadIdx.x) % 4 * 2 + e % 2));
    }
  }
}

/// sums += shares · other, the shares rounded to elements.
__device__ __forceinline__ void add_product(Sums& sums, Scores& shares, const Shares& memory, Element* other) {
  if constexpr (IS_SHORT) {
    multiply_sums(sums, shares, OtherTurned{other}, 0);
  } else {
    // A warp's rows are read by its own lanes only, but these wait for each other at barriers of the block only.
    put(memory, warp_row(), 0, shares);
    sync_block();
    multiply(sums, memory, warp_row(), OtherTurned{other}, 0, KeepAll{});
  }
}

/// Stores rows of a result with `rows` rows of `cols`, from `first` on, times a factor for each half.
template <class F> __device__ __forceinline__ void store(Element* to, int first, int rows, int cols, Sums& sums, F factor) {
  each(sums, [&](int half, int col, float x) {
    const int row = first + lane_row() + 8 * half;
    if (row < rows && col < cols) to[static_cast<i64>(row) * cols + col] = from_float<Element>(x * factor(half));
  });
}

/// A lane's rows of a bias (or of its transpose), of which each begins so far from the other.
struct Bias {
  const Element* row[2];
  i64 apart;

  __device__ __forceinline__ Bias(const Element* data, i64 row_apart, i64 apart, int first, int rows) : apart(apart) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int i = first + lane_row() + 8 * half;
      row[half] = data + (i < rows ? i : 0) * row_apart;
    }
  }
  __device__ __forceinline__ float at(int half, int col) const { return to_float(row[half][col * apart]); }
};

/// Of a lane's rows: their numbers in a vector, zero beyond the last one.
__device__ __forceinline__ void take(float (&values)[2], const float* from, int first, int rows) {
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int row = first + lane_row() + 8 * half;
    values[half] = row < rows ? from[row] : 0.f;
  }
}

}  // namespace

#define GRAFT_TENSOR(x) const Element *x, i64 x##_batch, i64 x##_head, i64 x##_row, i64 x##_col
#define GRAFT_TENSOR_OF(x) Tensor{x, x##_batch, x##_head, x##_row, x##_col}

/// grid = (tiles of queries, batch · heads); `lse` may be null. Two blocks on a multiprocessor are enough: without that word the
/// assembler may make room for four and spill, here and below.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
attention(GRAFT_TENSOR(q), GRAFT_TENSOR(k), GRAFT_TENSOR(v), GRAFT_TENSOR(bias), Element* y, float* lse, int heads, int times,
          int queries, int keys, int size, int width, float scale) {
  const int batch = blockIdx.y / heads, head = blockIdx.y % heads, query = blockIdx.x * OWN;
  const Head of_k = GRAFT_TENSOR_OF(k).of(batch, head / times), of_v = GRAFT_TENSOR_OF(v).of(batch, head / times);
  const Bias of_bias(GRAFT_TENSOR_OF(bias).of(batch, head).data, bias_row, bias_col, query, queries);
  const Memory<1> memory;
  GRAFT_TENSOR_OF(q).of(batch, head).load(memory.own(0), query, queries, size);
  Others others(memory, of_k, size, of_v, width, keys);

  // The lowest finite number: where all is hidden, e^(−∞ − level) is 0 and not without a value.
  float level[2] = {-3.4028235e38f, -3.4028235e38f}, divisor[2] = {0.f, 0.f};
  Sums sums;
  sums.clear();
  for (int key = 0; key < keys; key += OTHER) {
    others.take(key);
    Scores s;
    dot(s, memory.own(0), others.first());
    float largest[2] = {level[0], level[1]}, part[2] = {0.f, 0.f}, shrink[2];
    each(s, [&](int half, int col, float& x) {
      const int row = query + lane_row() + 8 * half;
      if (row >= queries || key + col >= keys) return;
      x = x * scale + of_bias.at(half, key + col);
      largest[half] = larger(largest[half], x);
    });
#pragma unroll
    for (int half = 0; half < 2; half++) {
      largest[half] = joined(largest[half], larger);
      shrink[half] = quick_exp(level[half] - largest[half]);
      level[half] = largest[half];
    }
    each(s, [&](int half, int col, float& x) {
      const float share = quick_exp(x - level[half]);
      x = key + col < keys ? share : 0.f;
      part[half] += x;
    });
#pragma unroll
    for (int half = 0; half < 2; half++) divisor[half] = divisor[half] * shrink[half] + joined(part[half], sum);
    each(sums, [&](int half, int, float& x) { x *= shrink[half]; });
    add_product(sums, s, memory.shares(0), others.second());
  }
  float inverse[2];
#pragma unroll
  for (int half = 0; half < 2; half++) {
    // At least 1 where a query sees a key: half of it is no change.
    const double whole = divisor[half] < 0.5f ? 0.5f : divisor[half];
    inverse[half] = static_cast<float>(1.0 / whole);
    const int row = query + lane_row() + 8 * half;
    if (lse && threadIdx.x % 4 == 0 && row < queries) {
      const double log = whole < 1e300 ? log64(whole) : whole;
      lse[static_cast<i64>(blockIdx.y) * queries + row] = static_cast<float>(level[half] + log);
    }
  }
  store(y + static_cast<i64>(blockIdx.y) * queries * width, query, queries, width, sums, [&](int half) { return inverse[half]; });
}

/// Σ dp·p of each query, which the other pass needs, and dq if it is wanted. grid = (tiles of queries, batch · heads).
extern "C" __global__ void __launch_bounds__(THREADS, 2)
attention_grad_queries(GRAFT_TENSOR(dy), GRAFT_TENSOR(q), GRAFT_TENSOR(k), GRAFT_TENSOR(v), GRAFT_TENSOR(bias),
                       const float* lse, float* along, Element* dq, int heads, int times, int queries, int keys, int size,
                       int width, float scale) {
  const int batch = blockIdx.y / heads, head = blockIdx.y % heads, query = blockIdx.x * OWN;
  const i64 before = static_cast<i64>(blockIdx.y) * queries;
  const Head of_k = GRAFT_TENSOR_OF(k).of(batch, head / times), of_v = GRAFT_TENSOR_OF(v).of(batch, head / times);
  const Bias of_bias(GRAFT_TENSOR_OF(bias).of(batch, head).data, bias_row, bias_col, query, queries);
  const Memory<2> memory;
  GRAFT_TENSOR_OF(q).of(batch, head).load(memory.own(0), query, queries, size);
  GRAFT_TENSOR_OF(dy).of(batch, head).load(memory.own(1), query, queries, width);
  float levels[2], whole[2] = {0.f, 0.f};
  take(levels, lse + before, query, queries);
  Scores p, dp;
  const auto tile = [&](auto& others, int key) {
    others.take(key);
    dot(p, memory.own(0), others.first());
    dot(dp, memory.own(1), others.second());
    each(p, [&](int half, int col, float& x) {
      const int row = query + lane_row() + 8 * half;
      const bool is_there = row < queries && key + col < keys;
      x = is_there ? quick_exp(x * scale + of_bias.at(half, key + col) - levels[half]) : 0.f;
    });
  };
  Others once(memory, of_k, size, of_v, width, keys);
  for (int key = 0; key < keys; key += OTHER) {
    tile(once, key);
#pragma unroll
    for (int j = 0; j < OTHER / 8; j++) {
#pragma unroll
      for (int e = 0; e < 4; e++) whole[e / 2] += p.sum[0][j][e] * dp.sum[0][j][e];
    }
  }
#pragma unroll
  for (int half = 0; half < 2; half++) {
    whole[half] = joined(whole[half], sum);
    const int row = query + lane_row() + 8 * half;
    if (threadIdx.x % 4 == 0 && row < queries) along[before + row] = whole[half];
  }
  if (!dq) return;
  Sums sums;
  sums.clear();
  Others again(memory, of_k, size, of_v, width, keys);
  for (int key = 0; key < keys; key += OTHER) {
    tile(again, key);
    through_softmax(dp, p, [&](int half, int) { return whole[half]; });
    add_product(sums, dp, memory.shares(0), again.first());
  }
  store(dq + before * size, query, queries, size, sums, [&](int) { return scale; });
}

/// dk and dv, either of which may be null: a block has keys and goes through the queries of all heads that share them. The sums of
/// both do not fit into registers where rows are wide: there it goes through them twice.
/// grid = (tiles of keys, batch · heads / times).
extern "C" __global__ void __launch_bounds__(THREADS, 2)
attention_grad_keys(GRAFT_TENSOR(dy), GRAFT_TENSOR(q), GRAFT_TENSOR(k), GRAFT_TENSOR(v), GRAFT_TENSOR(bias), const float* lse,
                    const float* along, Element* dk, Element* dv, int heads, int times, int queries, int keys, int size,
                    int width, float scale) {
  const int batch = blockIdx.y / (heads / times), of_keys = blockIdx.y % (heads / times), key = blockIdx.x * OWN;
  const Memory<2> memory;
  GRAFT_TENSOR_OF(k).of(batch, of_keys).load(memory.own(0), key, keys, size);
  GRAFT_TENSOR_OF(v).of(batch, of_keys).load(memory.own(1), key, keys, width);
  const auto go = [&]<bool DK, bool DV>(Flags<DK, DV>) {
    Sums dk_sums, dv_sums;
    dk_sums.clear();
    dv_sums.clear();
    for (int head = of_keys * times; head < (of_keys + 1) * times; head++) {
      const i64 before = (static_cast<i64>(batch) * heads + head) * queries;
      const Head of_q = GRAFT_TENSOR_OF(q).of(batch, head), of_dy = GRAFT_TENSOR_OF(dy).of(batch, head);
      const Bias of_bias(GRAFT_TENSOR_OF(bias).of(batch, head).data, bias_col, bias_row, key, keys);
      Others others(memory, of_q, size, of_dy, width, queries);
      for (int query = 0; query < queries; query += OTHER) {
        others.take(query);
        Scores p, dp;
        dot(p, memory.own(0), others.first());
        each(p, [&](int half, int col, float& x) {
          const int row = key + lane_row() + 8 * half, of = query + col;
          const bool is_there = row < keys && of < queries;
          x = is_there ? quick_exp(x * scale + of_bias.at(half, of) - lse[before + of]) : 0.f;
        });
        if constexpr (DV) add_product(dv_sums, p, memory.shares(0), others.second());
        if constexpr (DK) {
          dot(dp, memory.own(1), others.second());
          through_softmax(dp, p, [&](int, int col) { return query + col < queries ? along[before + query + col] : 0.f; });
          add_product(dk_sums, dp, memory.shares(1), others.first());
        }
      }
    }
    const i64 before = static_cast<i64>(blockIdx.y) * keys;
    if constexpr (DK) store(dk + before * size, key, keys, size, dk_sums, [&](int) { return scale; });
    if constexpr (DV) store(dv + before * width, key, keys, width, dv_sums, [](int) { return 1.f; });
  };
  if constexpr (WIDTH <= 64) {
    if (dk && dv) return go(Flags<true, true>{});
  }
  if (dv) go(Flags<false, true>{});
  if (dk) go(Flags<true, false>{});
}
