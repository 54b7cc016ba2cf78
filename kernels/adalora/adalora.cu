//! LoRA whose ranks are scaled, by singular values or by gates: `q = h∘e`, which is a diagonal c in `lora/middle.cuh`.
#include "lora/middle.cuh"

using namespace graft;

namespace {

struct Diagonal {
  const float* e;
  __device__ __forceinline__ float operator()(int i, int j) const { return i == j ? e[i] : 0.f; }
};

/// Only h was saved; q is made of it again.
struct ScaledGrad : MiddleGrad<Diagonal> {
  __device__ __forceinline__ void load_saved(const typename G::Saved& panel, int token) const {
    panel.template fill<G::THREADS>([&](int k, int i) {
      const bool is_there = token + i < h.rows && k < h.cols;
      return is_there ? to_float(h.data[(token + i) * h.stride + k]) * c.e[k] : 0.f;
    });
  }
};

}  // namespace

extern "C" __global__ void __launch_bounds__(RankTile::THREADS, RankTile::BLOCKS)
scaled_down(const Element* x, GRAFT_EACH(const Element*, a), GRAFT_EACH(const float*, e), GRAFT_EACH(Element*, h),
            GRAFT_EACH(Element*, q), int tokens, int n_in, int rank) {
  const Each<const float*> scales = GRAFT_OF_EACH(e);
  middle_down({x, tokens, n_in}, {GRAFT_OF_EACH(a), n_in, rank}, {GRAFT_OF_EACH(h), tokens, rank},
              {GRAFT_OF_EACH(q), tokens, rank}, [&](int call) { return Diagonal{scales[call]}; });
}

/// dh, and a slab's parts of qᵀ·dy and of dc, whose diagonal is Σ dq∘h.
extern "C" __global__ void __launch_bounds__(RankGrad<Element, PADDED_RANK>::THREADS, 2)
scaled_rank_grad(const Element* dy, const Element* b, const float* e, const Element* h, Element* dh, float* db_parts,
                 float* dc_parts, int tokens, int n_out, int rank, const float* scale, int tiles_per_slab) {
  const RankGradOperands<Element, PADDED_RANK> operands = {
      {dy, tokens, n_out}, {b, rank, n_out}, {h, tokens, rank}, {dh, tokens, rank}, slab_part(db_parts, rank, n_out), *scale};
  rank_grad(ScaledGrad{{operands, {h, tokens, rank}, middle_part(dc_parts, rank), {e}}}, tiles_per_slab);
}

/// de, the diagonal of the slabs' parts of dc.
extern "C" __global__ void __launch_bounds__(64) scaled_grad(const float* dc_parts, float* de, int rank, int slabs) {
  const int i = threadIdx.x;
  if (i < rank) de[i] = sum_of_parts(dc_parts, rank, slabs, i * (rank + 1));
}
