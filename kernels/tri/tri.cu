//! What TriAdaptLoRA does in rank space: `c = tril(l) + triu(u)` stands between the projections (`lora/middle.cuh`), and
//! `dl = tril(dc)`, `du = triu(dc)`.
#include "lora/middle.cuh"

using namespace graft;

namespace {

/// c, whose diagonal is the sum of both.
struct Triangles {
  const Element *l, *u;
  int rank;
  __device__ __forceinline__ float operator()(int i, int j) const {
    return (j <= i ? to_float(l[i * rank + j]) : 0.f) + (j >= i ? to_float(u[i * rank + j]) : 0.f);
  }
};

}  // namespace

extern "C" __global__ void __launch_bounds__(RankTile::THREADS, RankTile::BLOCKS)
tri_down(const Element* x, GRAFT_EACH(const Element*, a), GRAFT_EACH(const Element*, l), GRAFT_EACH(const Element*, u),
         GRAFT_EACH(Element*, h), GRAFT_EACH(Element*, q), int tokens, int n_in, int rank) {
  const Each<const Element*> lower = GRAFT_OF_EACH(l), upper = GRAFT_OF_EACH(u);
  middle_down({x, tokens, n_in}, {GRAFT_OF_EACH(a), n_in, rank}, {GRAFT_OF_EACH(h), tokens, rank},
              {GRAFT_OF_EACH(q), tokens, rank}, [&](int call) { return Triangles{lower[call], upper[call], rank}; });
}

/// dh, and a slab's parts of qᵀ·dy and of dc.
extern "C" __global__ void __launch_bounds__(RankGrad<Element, PADDED_RANK>::THREADS, 2)
tri_rank_grad(const Element* dy, const Element* b, const Element* l, const Element* u, const Element* q, const Element* h,
              Element* dh, float* db_parts, float* dc_parts, int tokens, int n_out, int rank, const float* scale,
              int tiles_per_slab) {
  const RankGradOperands<Element, PADDED_RANK> operands = {
      {dy, tokens, n_out}, {b, rank, n_out}, {q, tokens, rank}, {dh, tokens, rank}, slab_part(db_parts, rank, n_out), *scale};
  rank_grad(MiddleGrad<Triangles>{operands, {h, tokens, rank}, middle_part(dc_parts, rank), {l, u, rank}}, tiles_per_slab);
}

/// dl and du, each where it is wanted, of the slabs' parts of dc.
extern "C" __global__ void __launch_bounds__(256)
tri_triangles(const float* dc_parts, float* dl, float* du, int rank, int slabs) {
  const int i = blockIdx.x * 256 + threadIdx.x;
  if (i >= rank * rank) return;
  const float dc = sum_of_parts(dc_parts, rank, slabs, i);
  if (dl) dl[i] = i % rank <= i / rank ? dc : 0.f;
  if (du) du[i] = i % rank >= i / rank ? dc : 0.f;
}
