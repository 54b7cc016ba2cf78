//! Operands of a product: matrices in global memory, and panels of them in shared memory.
#pragma once
#include "cuda/dialect.cuh"

namespace graft {

/// A row-major matrix in global memory; `stride` elements lie between the starts of neighbouring rows.
template <class T> struct Matrix {
  T* data;
  i64 stride;
  int rows, cols;

  __device__ __forceinline__ Matrix(T* data, int rows, int cols) : data(data), stride(cols), rows(rows), cols(cols) {}

  /// Whether every row can be copied 16 bytes at a time.
  __device__ __forceinline__ bool is_aligned() const {
    return (reinterpret_cast<u64>(data) | static_cast<u64>(stride) * sizeof(T)) % 16 == 0;
  }
};

/// Which index of an operand of a product runs along memory: that over which is summed, or the other.
enum class Major { K, MN };

/// `EXTENT` rows (of a left operand) or columns (of a right one) and `DEPTH` steps of the sum, in shared memory, stored
/// as they are in global memory. 16 bytes between the rows shift each by four banks, so that `ldmatrix` meets no
/// conflict.
template <class T, int EXTENT, int DEPTH, Major MAJOR> struct Panel {
  using Element = T;
  static constexpr Major ALONG = MAJOR;
  static constexpr int ROWS = MAJOR == Major::K ? EXTENT : DEPTH, COLS = MAJOR == Major::K ? DEPTH : EXTENT;
  static constexpr int K = DEPTH, STRIDE = COLS + CHUNK<T>, ELEMENTS = ROWS * STRIDE;
  static_assert(COLS % CHUNK<T> == 0, "a row is made of whole chunks");

  T* data;

  /// Where the element of row or column `i` and step `k` lies.
  __device__ __forceinline__ T* at(int i, int k) const {
    return data + (MAJOR == Major::K ? i * STRIDE + k : k * STRIDE + i);
  }

  /// Begins to copy the panel at (`i`, `k`) of `from` with all threads of the block; what lies outside is zero.
  template <int THREADS> __device__ __forceinline__ void load(const Matrix<const T>& from, int i, int k) const {
    constexpr int PER_ROW = COLS / CHUNK<T>;
    const int first_row = MAJOR == Major::K ? i : k, first_col = MAJOR == Major::K ? k : i;
    const bool is_aligned = from.is_aligned();
    for (int chunk = threadIdx.x; chunk < ROWS * PER_ROW; chunk += THREADS) {
      const int row = chunk / PER_ROW, col = chunk % PER_ROW * CHUNK<T>;
      load_chunk(data + row * STRIDE + col, from, first_row + row, first_col + col, is_aligned);
    }
  }

  /// Fills the panel with the elements `f(i, k)`, rounded, with all threads of the block.
  template <int THREADS, class F> __device__ __forceinline__ void fill(const F& f) const {
    for (int e = threadIdx.x; e < ROWS * COLS; e += THREADS) {
      const int row = e / COLS, col = e % COLS;
      data[row * STRIDE + col] = from_float<T>(MAJOR == Major::K ? f(row, col) : f(col, row));
    }
  }

 private:
  static __device__ __forceinline__ void load_chunk(T* to, const Matrix<const T>& from, int row, int col, bool is_aligned) {
    const int left = row < from.rows ? from.cols - col : 0;
    const int n = left < 0 ? 0 : left < CHUNK<T> ? left : CHUNK<T>;
    const T* source = n > 0 ? from.data + row * from.stride + col : from.data;
    if (is_aligned) {
      copy_async(to, source, n * static_cast<int>(sizeof(T)));
    } else {
#pragma unroll
      for (int i = 0; i < CHUNK<T>; i++) to[i] = i < n ? source[i] : T{};
    }
  }
};

}  // namespace graft
