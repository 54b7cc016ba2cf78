//! Operands of a product: matrices in global memory, and panels of them in shared memory.
#pragma once
#include "cuda/dialect.cuh"

namespace graft {

/// A row-major matrix in global memory; `stride` elements lie between the starts of neighbouring rows.
template <class T> struct Matrix {
  using Element = T;

  T* data;
  i64 stride;
  int rows, cols;

  __device__ __forceinline__ Matrix(T* data, int rows, int cols) : data(data), stride(cols), rows(rows), cols(cols) {}

  /// Whether every row can be copied 16 bytes at a time.
  __device__ __forceinline__ bool is_aligned() const {
    return (reinterpret_cast<u64>(data) | static_cast<u64>(stride) * sizeof(T)) % 16 == 0;
  }
  /// The matrix that has column `col`, which becomes the number of the column in it.
  __device__ __forceinline__ Matrix of_column(int&) const { return *this; }
  /// The one that lies behind so many of these sizes.
  __device__ __forceinline__ Matrix after(int n) const {
    Matrix next = *this;
    next.data += stride * rows * n;
    return next;
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
  template <int THREADS> __device__ __forceinline__ void load(const Matrix<const T>& from, int i, int k) const;

  /// Fills the panel with the elements `f(i, k)`, rounded, with all threads of the block.
  template <int THREADS, class F> __device__ __forceinline__ void fill(const F& f) const {
    for (int e = threadIdx.x; e < ROWS * COLS; e += THREADS) {
      const int row = e / COLS, col = e % COLS;
      data[row * STRIDE + col] = from_float<T>(MAJOR == Major::K ? f(row, col) : f(col, row));
    }
  }
};

/// The panels of an operand, of which `Of` is the type.
template <class Of, class T, int EXTENT, int DEPTH, Major MAJOR> struct PanelOf {
  using Type = Panel<T, EXTENT, DEPTH, MAJOR>;
};

/// Brings panels of a matrix into shared memory, one after the other along the sum, with all threads of the block. What is
/// the same for all panels is computed once: a thread has the same chunks of each.
template <class P, int THREADS> class Loader {
  using T = typename P::Element;
  static constexpr bool IS_ALONG_K = P::ALONG == Major::K;
  static constexpr int PER_ROW = P::COLS / CHUNK<T>, APART = THREADS / PER_ROW, CHUNKS = ceil_div(P::ROWS, APART);
  static_assert(THREADS % PER_ROW == 0, "a thread's chunks lie below one another");

  /// The thread's first chunk in the next panel.
  const T* source;
  i64 stride;
  /// Where the next panel begins in the matrix, and what the matrix has.
  int row, col, rows, cols;
  bool is_aligned;

 public:
  /// Makes the panel at (`i`, `k`) of `from` the next one.
  __device__ __forceinline__ void begin(const Matrix<const T>& from, int i, int k) {
    row = IS_ALONG_K ? i : k, col = IS_ALONG_K ? k : i;
    rows = from.rows, cols = from.cols, stride = from.stride;
    source = from.data + (row + first_row()) * stride + col + first_col();
    is_aligned = from.is_aligned();
  }

  /// Begins to copy the next panel; what lies outside of the matrix is zero.
  __device__ __forceinline__ void load(const P& panel) {
    T* const to = panel.data + first_row() * P::STRIDE + first_col();
    if (is_aligned && row + P::ROWS <= rows && col + P::COLS <= cols) {
#pragma unroll
      for (int c = 0; c < CHUNKS; c++) {
        if (has(c)) copy_async(to + c * APART * P::STRIDE, source + c * APART * stride);
      }
    } else {
      load_edge(to);
    }
    (IS_ALONG_K ? col : row) += P::K;
    source += IS_ALONG_K ? P::K : P::K * stride;
  }

 private:
  static __device__ __forceinline__ int first_row() { return static_cast<int>(threadIdx.x) / PER_ROW; }
  static __device__ __forceinline__ int first_col() { return static_cast<int>(threadIdx.x) % PER_ROW * CHUNK<T>; }
  /// Whether the panel has the thread's chunk `c`.
  static __device__ __forceinline__ bool has(int c) {
    return P::ROWS % APART == 0 || first_row() + c * APART < P::ROWS;
  }
  /// The same of a panel that reaches over the matrix's edge, or lies in memory unevenly.
  __device__ __forceinline__ void load_edge(T* to) const {
    const int left = cols - col - first_col(), most = left < 0 ? 0 : left < CHUNK<T> ? left : CHUNK<T>;
#pragma unroll 1
    for (int c = 0; c < CHUNKS; c++) {
      if (!has(c)) return;
      const int n = row + first_row() + c * APART < rows ? most : 0;
      const T* const from = source + c * APART * stride;
      T* const at = to + c * APART * P::STRIDE;
      if (is_aligned) {
        copy_async(at, from, n * static_cast<int>(sizeof(T)));
        continue;
      }
#pragma unroll
      for (int i = 0; i < CHUNK<T>; i++) at[i] = i < n ? from[i] : T{};
    }
  }
};

template <class T, int EXTENT, int DEPTH, Major MAJOR>
template <int THREADS>
__device__ __forceinline__ void Panel<T, EXTENT, DEPTH, MAJOR>::load(const Matrix<const T>& from, int i, int k) const {
  Loader<Panel, THREADS> loader;
  loader.begin(from, i, k);
  loader.load(*this);
}

}  // namespace graft
