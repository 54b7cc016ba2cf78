//! What becomes of a large product's elements before they are stored: nothing. Where a plan has element-wise steps right
//! behind the product, a text that `elementwise/epilogue.rs` makes of them takes this file's place.
//!
//! Either has these names: `GRAFT_EPILOGUE_PARAMETERS`, further parameters of the kernel, with a comma before each;
//! `GRAFT_EPILOGUE`, the epilogue made of them; and the type `Epilogue`, of which `IS_ANY` says whether it has the members
//! `Operands`, `load(i, row, col)`, what it reads for the element in this place, and `store(operands, sum, i)`.
#pragma once

#define GRAFT_EPILOGUE_PARAMETERS
#define GRAFT_EPILOGUE \
  graft::Epilogue {}

namespace graft {

struct Epilogue {
  static constexpr bool IS_ANY = false;
};

}  // namespace graft
