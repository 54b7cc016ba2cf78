//! What a source is compiled for, given on the command line: `GRAFT_ELEMENT`, the type of activations and weights;
//! where a source has them `GRAFT_RANK`, the adapter's rank, rounded up, and `GRAFT_TILE`, the shape of a block's work in
//! a large product.
#pragma once
#include "gemm/extended.cuh"

namespace graft {

using Element = GRAFT_ELEMENT;
#ifdef GRAFT_TILE
using MainTile = Tile<GRAFT_TILE>;
#endif

/// The tile of a product with few columns: what it takes is the time to read its left factor, of which the more is under
/// way the better; panels of single precision are too large for that.
template <int COLS> using NarrowTile = Tile<64, COLS, 64, 4, 1, sizeof(Element) == 2 ? 4 : 2>;

#ifdef GRAFT_RANK
/// The adapter's rank, rounded up to a multiple of 16.
inline constexpr int PADDED_RANK = GRAFT_RANK;

/// The tile of a product with few columns, as many as the rank.
using RankTile = NarrowTile<PADDED_RANK>;
#endif

}  // namespace graft
