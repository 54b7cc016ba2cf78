//! Elements moved whole, whatever they mean: from any strides to any strides, constants, triangles.
#include "cuda/walk.cuh"

using namespace graft;

namespace {

using Unit = GRAFT_UNIT;

/// The sides of a tile that is turned.
constexpr int TURNED = 32;

}  // namespace

/// to[b + to_at] = from[a + from_at] along a walk with the offsets a and b.
extern "C" __global__ void __launch_bounds__(256)
copy_strided(const Unit* from, i64 from_at, Unit* to, i64 to_at, i64 n, GRAFT_SIZES(w), GRAFT_STRIDES(a), GRAFT_STRIDES(b)) {
  const auto walk = GRAFT_WALK_OF_TWO(w, a, b);
  each(n, [&](i64 i) {
    i64 offsets[2];
    walk.at(i, offsets);
    to[to_at + offsets[1]] = from[from_at + offsets[0]];
  });
}

/// The same where neighbours in `from` are not those in `to`: matrices are turned in tiles, so that both sides are read and
/// written along memory. from (cols, rows) has rows side by side, to (rows, cols) columns; the walk goes over the matrices.
extern "C" __global__ void __launch_bounds__(256)
transpose(const Unit* from, i64 from_at, Unit* to, i64 to_at, int rows, int cols, i64 from_step, i64 to_step, GRAFT_SIZES(w),
          GRAFT_STRIDES(a), GRAFT_STRIDES(b)) {
  const int across = ceil_div(cols, TURNED), down = ceil_div(rows, TURNED);
  const int tile = blockIdx.x % across, rest = blockIdx.x / across, x = threadIdx.x % TURNED;
  const int row = rest % down * TURNED, col = tile * TURNED;
  i64 offsets[2];
  GRAFT_WALK_OF_TWO(w, a, b).at(rest / down, offsets);
  const Unit* const source = from + from_at + offsets[0];
  Unit* const target = to + to_at + offsets[1];
  Unit* const memory = reinterpret_cast<Unit*>(shared_memory());
  // One more element in each row: columns lie in different banks too.
  for (int y = threadIdx.x / TURNED; y < TURNED; y += 256 / TURNED) {
    if (row + x < rows && col + y < cols) memory[y * (TURNED + 1) + x] = source[row + x + (col + y) * from_step];
  }
  sync_block();
  for (int y = threadIdx.x / TURNED; y < TURNED; y += 256 / TURNED) {
    if (row + y < rows && col + x < cols) target[(row + y) * to_step + col + x] = memory[x * (TURNED + 1) + y];
  }
}

/// to[i] = value, the low bits of a word, or where it is given the element at `given`.
extern "C" __global__ void __launch_bounds__(256) fill(Unit* to, i64 n, i64 value, const Unit* given) {
  const Unit element = given ? *given : static_cast<Unit>(value);
  each(n, [&](i64 i) { to[i] = element; });
}

/// to[i] = start + i · delta, whole numbers.
extern "C" __global__ void __launch_bounds__(256) range(const i64* start, const i64* delta, i64* to, i64 n) {
  each(n, [&](i64 i) { to[i] = static_cast<i64>(static_cast<u64>(*start) + static_cast<u64>(*delta) * static_cast<u64>(i)); });
}

/// Matrices (rows, cols) with zeros below (`upper`) or above the diagonal number `k`, which lies in memory or is 0.
extern "C" __global__ void __launch_bounds__(256)
triangle(const Unit* from, Unit* to, i64 n, int rows, int cols, const i64* k, int upper) {
  const i64 diagonal = k ? *k : 0;
  each(n, [&](i64 i) {
    const i64 row = i / cols % rows, ahead = i % cols - row;
    const bool is_kept = upper ? ahead >= diagonal : ahead <= diagonal;
    to[i] = is_kept ? from[i] : Unit{};
  });
}
