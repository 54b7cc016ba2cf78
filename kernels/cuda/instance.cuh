//! What a source is compiled for, given on the command line: `GRAFT_ELEMENT`, the type of activations and weights;
//! where a source has them `GRAFT_RANK`, the adapter's rank, rounded up, and `GRAFT_TILE`, the shape of a block's work in
//! a large product. `cuda/stack.cuh` says what `GRAFT_CALLS` is.
#pragma once
#include "cuda/stack.cuh"
#include "gemm/extended.cuh"

namespace graft {

using Element = GRAFT_ELEMENT;
#ifdef GRAFT_TILE
using MainTile = Tile<GRAFT_TILE>;
#endif

/// The tile of a product with few columns for each of the calls that have its left factor in common: what it takes is the
/// time to read that, of which the more is under way the better; panels of single precision, or of many columns, are too
/// large for that.
template <int COLS>
using NarrowTile = Tile<64, CALLS * COLS, 64, 4, 1, sizeof(Element) == 2 && CALLS * COLS <= 96 ? 4 : 2>;

#ifdef GRAFT_RANK
/// The adapter's rank, rounded up to a multiple of 16.
inline constexpr int PADDED_RANK = GRAFT_RANK;

/// The tile of a product with few columns, as many as the rank.
using RankTile = NarrowTile<PADDED_RANK>;

/// A matrix of each call with as many columns as the rank.
template <class T> using RankStack = Stack<T, PADDED_RANK>;
#endif

}  // namespace graft
