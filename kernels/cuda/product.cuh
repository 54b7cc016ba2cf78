//! The product of two panels by one warp, with accumulators in registers: tensor cores for 16-bit elements, FFMA for f32
//! (never TF32). Both keep the accumulators where `mma.m16n8k16` has them, so that one epilogue serves them.
#pragma once
#include "cuda/panel.cuh"

namespace graft {

/// The sums of a warp: `M` × `N` tiles of 16 × 8, four elements of each for every lane.
template <int M, int N> struct Accumulators {
  static constexpr int ROWS = 16 * M, COLS = 8 * N;
  float sum[M][N][4];

  __device__ __forceinline__ void clear() {
    each([](int, int, float& x) { x = 0.f; });
  }

  /// The `WIDTH` columns from `first` on, which is known at compile time once loops are unrolled.
  template <int WIDTH> __device__ __forceinline__ Accumulators<M, WIDTH / 8> columns(int first) const {
    Accumulators<M, WIDTH / 8> part;
#pragma unroll
    for (int i = 0; i < M; i++) {
#pragma unroll
      for (int j = 0; j < WIDTH / 8; j++) {
#pragma unroll
        for (int e = 0; e < 4; e++) part.sum[i][j][e] = sum[i][first / 8 + j][e];
      }
    }
    return part;
  }

  /// Calls `f(row, col, element)` for this lane's elements.
  template <class F> __device__ __forceinline__ void each(F f) {
    pairs([&](int row, int col, float& x, float& next) {
      f(row, col, x);
      f(row, col + 1, next);
    });
  }

  /// Calls `f(row, col, element, next)` for this lane's pairs of neighbours in a row ("Matrix Fragments for
  /// mma.m16n8k16": C).
  template <class F> __device__ __forceinline__ void pairs(F f) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < M; i++) {
#pragma unroll
      for (int j = 0; j < N; j++) {
#pragma unroll
        for (int e = 0; e < 4; e += 2) {
          f(16 * i + lane / 4 + e / 2 * 8, 8 * j + lane % 4 * 2, sum[i][j][e], sum[i][j][e + 1]);
        }
      }
    }
  }
};

/// No element of the left operand is masked.
struct KeepAll {
  static constexpr bool IS_MASK = false;
  __device__ __forceinline__ bool operator()(int, int) const { return true; }
};

/// The 16 × 16 fragment of a left operand at (`i`, `k`): lane l addresses row l % 8 of matrix l / 8, and the four
/// matrices are (rows 0-7, k 0-7), (rows 8-15, k 0-7), (rows 0-7, k 8-15), (rows 8-15, k 8-15).
template <class P> __device__ __forceinline__ void load_left(u32 (&r)[4], const P& panel, int i, int k) {
  const int lane = threadIdx.x % 32;
  if constexpr (P::ALONG == Major::K) {
    load_matrices(r, panel.at(i + lane % 16, k + lane / 16 * 8));
  } else {
    load_matrices_transposed(r, panel.at(i + lane / 8 % 2 * 8, k + lane / 16 * 8 + lane % 8));
  }
}

/// Two 16 × 8 fragments of a right operand, beside each other, at (`k`, `j`): (k 0-7), (k 8-15) of the first, then of the
/// second.
template <class P> __device__ __forceinline__ void load_right(u32 (&r)[4], const P& panel, int j, int k) {
  const int lane = threadIdx.x % 32;
  if constexpr (P::ALONG == Major::K) {
    load_matrices(r, panel.at(j + lane / 16 * 8 + lane % 8, k + lane / 8 % 2 * 8));
  } else {
    load_matrices_transposed(r, panel.at(j, k + lane % 16) + lane / 16 * 8);
  }
}

/// Zeroes what the mask does not keep in the fragment at (`i`, `k`); register q holds the pair at row
/// lane/4 + 8·(q%2), steps 2·(lane%4) + 8·(q/2) and the one after it.
template <class Mask> __device__ __forceinline__ void mask_left(u32 (&r)[4], int i, int k, const Mask& keeps) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int q = 0; q < 4; q++) {
    const int row = i + lane / 4 + q % 2 * 8, step = k + lane % 4 * 2 + q / 2 * 8;
    r[q] &= (keeps(row, step) ? 0x0000ffffu : 0u) | (keeps(row, step + 1) ? 0xffff0000u : 0u);
  }
}

/// acc += left·right over the whole depth of the panels, from row `i` and column `j` on; 16-bit elements.
template <int M, int N, class Left, class Right, class Mask>
__device__ __forceinline__ void multiply_mma(Accumulators<M, N>& acc, const Left& left, int i, const Right& right, int j,
                                             const Mask& keeps) {
  static_assert(N % 2 == 0 && Left::K % 16 == 0 && Left::K == Right::K, "whole fragments");
#pragma unroll
  for (int k = 0; k < Left::K; k += 16) {
    u32 a[M][4];
#pragma unroll
    for (int m = 0; m < M; m++) {
      load_left(a[m], left, i + 16 * m, k);
      if constexpr (Mask::IS_MASK) mask_left(a[m], i + 16 * m, k, keeps);
    }
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      u32 b[4];
      load_right(b, right, j + 8 * n, k);
#pragma unroll
      for (int m = 0; m < M; m++) {
        mma<typename Left::Element>(acc.sum[m][n], a[m], b[0], b[1]);
        mma<typename Left::Element>(acc.sum[m][n + 1], a[m], b[2], b[3]);
      }
    }
  }
}

/// The same for f32, one step of the sum after the other.
template <int M, int N, class Left, class Right, class Mask>
__device__ __forceinline__ void multiply_fma(Accumulators<M, N>& acc, const Left& left, int i, const Right& right, int j,
                                             const Mask& keeps) {
  const int lane = threadIdx.x % 32, row = i + lane / 4, col = j + lane % 4 * 2;
#pragma unroll 2
  for (int k = 0; k < Left::K; k++) {
    float a[M][2], b[N][2];
#pragma unroll
    for (int m = 0; m < 2 * M; m++) {
      const float x = *left.at(row + 8 * m, k);
      a[m / 2][m % 2] = !Mask::IS_MASK || keeps(row + 8 * m, k) ? x : 0.f;
    }
#pragma unroll
    for (int n = 0; n < 2 * N; n++) b[n / 2][n % 2] = *right.at(col + n / 2 * 8 + n % 2, k);
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
      for (int n = 0; n < N; n++) {
#pragma unroll
        for (int e = 0; e < 4; e++) acc.sum[m][n][e] = fma(a[m][e / 2], b[n][e % 2], acc.sum[m][n][e]);
      }
    }
  }
}

/// acc += left·right, where `keeps(i, k)` says which elements of the left operand count.
template <int M, int N, class Left, class Right, class Mask>
__device__ __forceinline__ void multiply(Accumulators<M, N>& acc, const Left& left, int i, const Right& right, int j,
                                         const Mask& keeps) {
  if constexpr (SAME<typename Left::Element, float>) {
    multiply_fma(acc, left, i, right, j, keeps);
  } else {
    multiply_mma(acc, left, i, right, j, keeps);
  }
}

/// Two elements, rounded, as fragments have them: the first one in the low bits.
template <class T> __device__ __forceinline__ u32 pack(float first, float second) {
  return from_float<T>(first).bits | static_cast<u32>(from_float<T>(second).bits) << 16;
}

/// acc += left·right, where the left factor is what this warp has as sums, rounded to 16-bit elements: their fragments as C
/// of `mma.m16n8k16`, two beside each other, are its fragments as A.
template <int M, int N, int DEPTH, class Right>
__device__ __forceinline__ void multiply_sums(Accumulators<M, N>& acc, const Accumulators<M, DEPTH>& left, const Right& right, int j) {
  using T = typename Right::Element;
  static_assert(N % 2 == 0 && Right::K == 8 * DEPTH && DEPTH % 2 == 0, "whole fragments");
#pragma unroll
  for (int k = 0; k < DEPTH; k += 2) {
    u32 a[M][4];
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
      for (int q = 0; q < 4; q++) {
        const float* const pair = left.sum[m][k + q / 2] + q % 2 * 2;
        a[m][q] = pack<T>(pair[0], pair[1]);
      }
    }
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      u32 b[4];
      load_right(b, right, j + 8 * n, 8 * k);
#pragma unroll
      for (int m = 0; m < M; m++) {
        mma<T>(acc.sum[m][n], a[m], b[0], b[1]);
        mma<T>(acc.sum[m][n + 1], a[m], b[2], b[3]);
      }
    }
  }
}

/// Puts a warp's sums, rounded, into a panel whose steps run along memory, from (`row`, `col`) on.
template <class P, class Sums> __device__ __forceinline__ void put(const P& panel, int row, int col, Sums& sums) {
  using T = typename P::Element;
  static_assert(P::ALONG == Major::K, "neighbours in a row are neighbours in memory");
  sums.pairs([&](int i, int j, float x, float y) {
    *reinterpret_cast<Pair<T>*>(panel.at(row + i, col + j)) = {from_float<T>(x), from_float<T>(y)};
  });
}

}  // namespace graft
