//! A warp between the arrival of its lanes at a collective instruction and its execution.
#pragma once
#include "emulate/emulate.h"

namespace graft::emulate {

struct Warp {
  Lane lanes[32];
  Instruction instruction = nullptr;
  At at;
  unsigned arrived = 0;
};

}  // namespace graft::emulate
