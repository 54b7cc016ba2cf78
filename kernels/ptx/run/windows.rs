//! Where things lie in the address space. A generic address tells its space by the window it lies in; addresses in shared and
//! local memory begin above zero, so that a null pointer is none of them.

/// The first address of a block's shared memory, and of a thread's local memory, in its space.
pub(crate) const SPACE: u64 = 1024;

/// What is added to an address in shared memory to make it generic.
pub(crate) const SHARED: u64 = 0x7f01_0000_0000;

/// The same for local memory.
pub(crate) const LOCAL: u64 = 0x7f02_0000_0000;

/// The module's variables, which kernels may only read.
pub(crate) const STATICS: u64 = 0x7f03_0000_0000;

/// The bytes of a window.
pub(crate) const EXTENT: u64 = 1 << 32;
