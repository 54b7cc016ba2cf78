//! What reads the x of a linear layer for its LoRA adapter: `h = D(x)·a`, where D is dropout, and `da = D(x)ᵀ·dh`. Adapters
//! of several layers that read the same x, as those of q, k and v do, are served by one pass over it: their a stand side by
//! side, and so do their dh.
//!
//! x (tokens, in), and of each adapter a (in, rank), h and dh (tokens, rank). The mask of dropout is drawn again wherever it
//! is needed and never stored; `GRAFT_DROPOUT` says whether there is one.
#include "cuda/instance.cuh"
#include "cuda/random.cuh"

using namespace graft;

namespace {

/// The mask of dropout on a left operand that is x, or xᵀ.
template <bool TRANSPOSED> struct DropoutMask {
  static constexpr bool IS_MASK = GRAFT_DROPOUT;
  Dropout dropout;
  __device__ __forceinline__ bool operator()(int i, int k) const {
    return TRANSPOSED ? dropout.keeps(k, i) : dropout.keeps(i, k);
  }
};

/// h = D(x)·a.
struct Down : Operation<Element, Element, 1, Major::K, Major::MN, RankStack<const Element>, RankStack<Element>> {
  Dropout dropout;
  __device__ __forceinline__ DropoutMask<false> mask(int) const { return {dropout}; }
  __device__ __forceinline__ float finish(int, int, float sum) const { return sum * dropout.scale; }
};

/// A slab's part of da = D(x)ᵀ·dh.
struct DownGrad : Operation<Element, float, 1, Major::MN, Major::MN, RankStack<const Element>, RankStack<float>> {
  Dropout dropout;
  __device__ __forceinline__ DropoutMask<true> mask(int) const { return {dropout}; }
  __device__ __forceinline__ float finish(int, int, float sum) const { return sum * dropout.scale; }
};

}  // namespace

extern "C" __global__ void __launch_bounds__(RankTile::THREADS, RankTile::BLOCKS)
lora_down(const Element* x, GRAFT_EACH(const Element*, a), GRAFT_EACH(Element*, h), int tokens, int n_in, int rank,
          const i64* counters, u32 tensor, u32 threshold, float keep_scale) {
  const Dropout dropout(counters, tensor, n_in, threshold, keep_scale);
  extended_product<RankTile>(
      Down{{{{x, tokens, n_in}}, {{GRAFT_OF_EACH(a), n_in, rank}}, {GRAFT_OF_EACH(h), tokens, rank}}, dropout}, ALL_STEPS);
}

extern "C" __global__ void __launch_bounds__(RankTile::THREADS, RankTile::BLOCKS)
lora_down_grad(const Element* x, GRAFT_EACH(const Element*, dh), GRAFT_EACH(float*, da_parts), int tokens, int n_in, int rank,
               const i64* counters, u32 tensor, u32 threshold, float keep_scale, int steps_per_slab) {
  const Dropout dropout(counters, tensor, n_in, threshold, keep_scale);
  extended_product<RankTile>(
      DownGrad{{{{x, tokens, n_in}}, {{GRAFT_OF_EACH(dh), tokens, rank}}, {GRAFT_OF_EACH(da_parts), n_in, rank}}, dropout},
      steps_per_slab);
}
