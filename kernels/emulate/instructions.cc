//! What the collective instructions of a warp compute, from the tables of the PTX ISA.
#include "emulate/warp.h"

namespace graft::emulate {

namespace {

struct Place {
  int row, col;
};

/// "Matrix Fragments for mma.m16n8k16 with floating point type": where element i of a lane's a, b and c lies.
Place place_a(int lane, int i) { return {lane / 4 + (i / 2 % 2) * 8, lane % 4 * 2 + i % 2 + i / 4 * 8}; }
Place place_b(int lane, int i) { return {lane % 4 * 2 + i % 2 + i / 2 * 8, lane / 4}; }
Place place_c(int lane, int i) { return {lane / 4 + i / 2 * 8, lane % 4 * 2 + i % 2}; }

u16 half(const u32* words, int i) { return static_cast<u16>(words[i / 2] >> 16 * (i % 2)); }

/// Products are exact in f32; sums are taken in the order of k and rounded after each. A GPU may take another order.
template <class T> void mma_m16n8k16(Warp& warp) {
  float a[16][16], b[16][8], c[16][8];
  for (int lane = 0; lane < 32; lane++) {
    const u32* in = warp.lanes[lane].in;
    for (int i = 0; i < 8; i++) a[place_a(lane, i).row][place_a(lane, i).col] = to_float(T{half(in, i)});
    for (int i = 0; i < 4; i++) b[place_b(lane, i).row][place_b(lane, i).col] = to_float(T{half(in + 4, i)});
    for (int i = 0; i < 4; i++) c[place_c(lane, i).row][place_c(lane, i).col] = as_float(in[6 + i]);
  }
  for (int k = 0; k < 16; k++) {
    for (int row = 0; row < 16; row++) {
      for (int col = 0; col < 8; col++) c[row][col] += a[row][k] * b[k][col];
    }
  }
  for (int lane = 0; lane < 32; lane++) {
    for (int i = 0; i < 4; i++) warp.lanes[lane].out[i] = as_bits(c[place_c(lane, i).row][place_c(lane, i).col]);
  }
  statistics.mma++;
}

/// Row `row` of matrix `m` is what lane 8·m + row has read. Each matrix is one access to shared memory, whose 32 banks
/// of 4 bytes serve eight rows of 16 bytes at once if these lie in different groups of four banks.
void count_matrices(const Warp& warp) {
  statistics.ldmatrix++;
  for (int m = 0; m < 4; m++) {
    unsigned seen = 0;
    for (int row = 0; row < 8; row++) {
      const unsigned group = 1u << warp.lanes[8 * m + row].in[4] / 16 % 8;
      if (seen & group) statistics.bank_conflicts++;
      seen |= group;
    }
  }
}

}  // namespace

void matrices(Warp& warp) {
  count_matrices(warp);
  for (int lane = 0; lane < 32; lane++) {
    for (int m = 0; m < 4; m++) warp.lanes[lane].out[m] = warp.lanes[8 * m + lane / 4].in[lane % 4];
  }
}

void matrices_transposed(Warp& warp) {
  count_matrices(warp);
  for (int lane = 0; lane < 32; lane++) {
    for (int m = 0; m < 4; m++) {
      const int row = 8 * m + lane % 4 * 2, col = lane / 4;
      const u32 low = half(warp.lanes[row].in, col), high = half(warp.lanes[row + 1].in, col);
      warp.lanes[lane].out[m] = low | high << 16;
    }
  }
}

void mma_bf16(Warp& warp) { mma_m16n8k16<bf16>(warp); }
void mma_f16(Warp& warp) { mma_m16n8k16<f16>(warp); }

/// Each lane reads what the lane with the number in its second operand gave ("shfl.sync").
void exchange(Warp& warp) {
  for (Lane& lane : warp.lanes) lane.out[0] = warp.lanes[lane.in[1] % 32].in[0];
}

}  // namespace graft::emulate
