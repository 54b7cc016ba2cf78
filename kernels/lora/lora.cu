//! A linear layer with a LoRA adapter: `h = D(x)·a`, `y = x·w + s·(h·b)`, where D is dropout, and its gradient: with
//! `dh = s·(dy·bᵀ)`, `dx = dy·wᵀ + D(dh·aᵀ)`, `da = D(x)ᵀ·dh`, `db = s·(hᵀ·dy)`. h and da are made in `down.cu`.
//!
//! x (tokens, in), w (in, out), a (in, rank), b (rank, out); the scale s and the counters of dropout lie in device memory.
//! The mask of dropout is drawn again wherever it is needed and never stored; `GRAFT_DROPOUT` says whether there is one.
#include "cuda/instance.cuh"
#include "cuda/random.cuh"
#include "gemm/rank_grad.cuh"

using namespace graft;

namespace {

inline constexpr bool DROPS = GRAFT_DROPOUT;

/// y = s·(h·b) + x·w: the adapter's segment comes first and is scaled when it ends.
struct Forward : Operation<Element, Element, 2, Major::K, Major::MN> {
  float scale;
  __device__ __forceinline__ float between(int segment, int, int, float sum) const { return segment == 0 ? sum * scale : sum; }
};

/// dx = D(dh·aᵀ) + dy·wᵀ: dropout acts on the sums when the adapter's segment ends.
struct InputGrad : Operation<Element, Element, 2, Major::K, Major::K> {
  Dropout dropout;
  __device__ __forceinline__ float between(int segment, int row, int col, float sum) const {
    if (!DROPS || segment != 0) return sum;
    return dropout.keeps(row, col) ? sum * dropout.scale : 0.f;
  }
};

}  // namespace

extern "C" __global__ void __launch_bounds__(MainTile::THREADS, MainTile::BLOCKS)
lora_forward(const Element* x, const Element* w, const Element* h, const Element* b, Element* y, int tokens, int n_in,
             int n_out, int rank, const float* scale GRAFT_EPILOGUE_PARAMETERS) {
  finished_product<MainTile>(
      Forward{{{{h, tokens, rank}, {x, tokens, n_in}}, {{b, rank, n_out}, {w, n_in, n_out}}, {y, tokens, n_out}}, *scale},
      GRAFT_EPILOGUE);
}

extern "C" __global__ void __launch_bounds__(MainTile::THREADS, MainTile::BLOCKS)
lora_input_grad(const Element* dy, const Element* w, const Element* dh, const Element* a, Element* dx, int tokens, int n_in,
                int n_out, int rank, const i64* counters, u32 tensor, u32 threshold, float keep_scale
                GRAFT_EPILOGUE_PARAMETERS) {
  const Dropout dropout(counters, tensor, n_in, threshold, keep_scale);
  finished_product<MainTile>(
      InputGrad{{{{dh, tokens, rank}, {dy, tokens, n_out}}, {{a, n_in, rank}, {w, n_in, n_out}}, {dx, tokens, n_in}}, dropout},
      GRAFT_EPILOGUE);
}

/// dh, and a slab's part of hᵀ·dy, in one pass over dy. Two blocks on a multiprocessor are enough: without that word the
/// assembler makes room for four and spills.
extern "C" __global__ void __launch_bounds__(RankGrad<Element, PADDED_RANK>::THREADS, 2)
lora_rank_grad(const Element* dy, const Element* b, const Element* h, Element* dh, float* db_parts, int tokens, int n_out,
               int rank, const float* scale, int tiles_per_slab) {
  using Op = RankGradOperands<Element, PADDED_RANK>;
  rank_grad(Op{{dy, tokens, n_out}, {b, rank, n_out}, {h, tokens, rank}, {dh, tokens, rank}, slab_part(db_parts, rank, n_out), *scale},
            tiles_per_slab);
}
