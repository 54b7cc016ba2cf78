//! Products of matrices, one for each element of a walk over both operands: `y = alpha·a·b + beta·c`. The index of the sum
//! runs along the memory of an operand, or the other one does: `GRAFT_A` and `GRAFT_B` say which, `K` or `MN`.
#include "cuda/walk.cuh"
#include "gemm/extended.cuh"

using namespace graft;

namespace {

using Element = GRAFT_ELEMENT;
using MainTile = Tile<GRAFT_TILE>;
constexpr Major A = Major::GRAFT_A, B = Major::GRAFT_B;

/// alpha·a·b + beta·c, with c repeated along rows or columns by strides of 0; c may be null.
struct Product : Operation<Element, Element, 1, A, B> {
  float alpha, beta;
  const Element* bias;
  i64 bias_row, bias_col;

  __device__ __forceinline__ float finish(int row, int col, float sum) const {
    const float product = alpha * sum;
    return bias ? product + beta * to_float(bias[row * bias_row + col * bias_col]) : product;
  }
};

/// The operand with these sizes, `stride` elements between the starts of what lies along memory.
__device__ __forceinline__ Matrix<const Element> operand(const Element* data, Major along, int other, int k, i64 stride) {
  Matrix<const Element> matrix(data, along == Major::K ? other : k, along == Major::K ? k : other);
  matrix.stride = stride;
  return matrix;
}

}  // namespace

/// A slab's part of a·b, in f32, for products that are too small to fill a device otherwise. grid = (tiles of n, tiles of m,
/// slabs). Without a number of blocks the assembler makes room for seven and spills.
extern "C" __global__ void __launch_bounds__(MainTile::THREADS, 2)
matmul_slabs(const Element* a, i64 a_stride, const Element* b, i64 b_stride, float* parts, int m, int n, int k,
             int steps_per_slab) {
  using Parts = Operation<Element, float, 1, A, B>;
  extended_product<MainTile>(Parts{{operand(a, A, m, k, a_stride)}, {operand(b, B, n, k, b_stride)}, {parts, m, n}},
                             steps_per_slab);
}

/// y = a·b element by element, along a walk over both.
extern "C" __global__ void __launch_bounds__(256)
multiply_strided(const Element* a, const Element* b, Element* y, i64 n, GRAFT_SIZES(w), GRAFT_STRIDES(of_a), GRAFT_STRIDES(of_b)) {
  const i64 i = static_cast<i64>(blockIdx.x) * 256 + threadIdx.x;
  if (i >= n) return;
  i64 offsets[2];
  GRAFT_WALK_OF_TWO(w, of_a, of_b).at(i, offsets);
  y[i] = from_float<Element>(to_float(a[offsets[0]]) * to_float(b[offsets[1]]));
}

/// a (m, k), b (k, n), y (m, n). grid = (tiles of n, tiles of m, products).
extern "C" __global__ void __launch_bounds__(MainTile::THREADS, MainTile::BLOCKS)
matmul(const Element* a, i64 a_stride, const Element* b, i64 b_stride, Element* y, int m, int n, int k, float alpha,
       const Element* bias, i64 bias_row, i64 bias_col, float beta, GRAFT_SIZES(w), GRAFT_STRIDES(of_a), GRAFT_STRIDES(of_b)
       GRAFT_EPILOGUE_PARAMETERS) {
  i64 offsets[2];
  GRAFT_WALK_OF_TWO(w, of_a, of_b).at(blockIdx.z, offsets);
  finished_product<MainTile>(
      Product{{{operand(a + offsets[0], A, m, k, a_stride)}, {operand(b + offsets[1], B, n, k, b_stride)}, {y, m, n}},
              alpha, beta, bias, bias_row, bias_col},
      GRAFT_EPILOGUE);
}
