//! A linear layer, and the gradient of its input, with the columns of a narrow matrix q (tokens, cols) repeated over
//! those of the result: `y = x·w + repeat(q)`, `dx = dy·wᵀ + repeat(q)`. A null q is nothing.
//!
//! x (tokens, in), w (in, out), dy (tokens, out).
#include "cuda/instance.cuh"

using namespace graft;

namespace {

/// What is repeated is added to the sums as they are stored.
template <Major B> struct Linear : Operation<Element, Element, 1, Major::K, B> {
  Matrix<const Element> q;
  __device__ __forceinline__ float finish(int row, int col, float sum) const {
    return q.data ? sum + to_float(q.data[row * q.stride + col % q.cols]) : sum;
  }
};

}  // namespace

extern "C" __global__ void __launch_bounds__(MainTile::THREADS, MainTile::BLOCKS)
linear_forward(const Element* x, const Element* w, const Element* q, Element* y, int tokens, int n_in, int n_out, int cols
               GRAFT_EPILOGUE_PARAMETERS) {
  finished_product<MainTile>(
      Linear<Major::MN>{{{{x, tokens, n_in}}, {{w, n_in, n_out}}, {y, tokens, n_out}}, {q, tokens, cols}}, GRAFT_EPILOGUE);
}

extern "C" __global__ void __launch_bounds__(MainTile::THREADS, MainTile::BLOCKS)
linear_input_grad(const Element* dy, const Element* w, const Element* q, Element* dx, int tokens, int n_in, int n_out, int cols
               GRAFT_EPILOGUE_PARAMETERS) {
  finished_product<MainTile>(
      Linear<Major::K>{{{{dy, tokens, n_out}}, {{w, n_in, n_out}}, {dx, tokens, n_in}}, {q, tokens, cols}}, GRAFT_EPILOGUE);
}
