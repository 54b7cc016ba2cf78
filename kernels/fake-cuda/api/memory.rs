//! Allocations, copies and fills. Copies between host and device happen at once, whatever the stream.
use super::exports;
use crate::{
    driver::{Driver, context},
    objects::Task,
    pointers::{Handle, Host, Out},
    status::{Outcome, Status, refuse},
};
use std::alloc::{Layout, alloc_zeroed, dealloc};

fn to_device(driver: &mut Driver, to: u64, from: &Host, bytes: usize) -> Outcome {
    driver.works()?;
    driver.may_not_record("a copy from the host")?;
    if bytes == 0 {
        return Ok(());
    }
    let written = driver.memory.write(to, from.bytes(bytes)?);
    written.or_else(|v| refuse(Status::INVALID_VALUE, format!("a copy of {bytes} bytes to {to:#x}: {v}")))
}

fn to_host(driver: &mut Driver, mut to: Host, from: u64, bytes: usize) -> Outcome {
    driver.works()?;
    driver.may_not_record("a copy to the host")?;
    if bytes == 0 {
        return Ok(());
    }
    let read = driver.memory.read(from, to.bytes_mut(bytes)?);
    read.or_else(|v| refuse(Status::INVALID_VALUE, format!("a copy of {bytes} bytes from {from:#x}: {v}")))
}

fn fill(stream: u64, to: u64, pattern: [u8; 4], bytes: usize) -> Outcome {
    context()?.submit(stream, Task::Fill { to, pattern, bytes })
}

/// How pinned memory lies.
fn layout(bytes: usize) -> Outcome<Layout> {
    Layout::from_size_align(bytes, 4096).map_err(|_| Status::INVALID_VALUE)
}

fn pin(to: &Out<Host>, bytes: usize) -> Outcome {
    if bytes == 0 {
        return Err(Status::INVALID_VALUE);
    }
    let mut driver = context()?;
    // SAFETY: the size is not zero.
    let memory = unsafe { alloc_zeroed(layout(bytes)?) };
    if memory.is_null() {
        return Err(Status::OUT_OF_MEMORY);
    }
    driver.pinned.insert(memory.addr(), bytes);
    to.set(Host::of(memory))
}

exports! {
    /// Allocates; the memory holds NaN.
    fn cuMemAlloc_v2(to: Out<u64>, bytes: usize) { to.set(context()?.allocate(bytes)?) }
    /// The same, in the order of a stream.
    fn cuMemAllocAsync(to: Out<u64>, bytes: usize, stream: Handle) {
        let mut driver = context()?;
        driver.knows_stream(stream.number())?;
        to.set(driver.allocate(bytes)?)
    }
    /// Frees.
    fn cuMemFree_v2(address: u64) { context()?.free(address) }
    /// The same, in the order of a stream.
    fn cuMemFreeAsync(address: u64, stream: Handle) {
        let mut driver = context()?;
        driver.knows_stream(stream.number())?;
        driver.free(address)
    }
    /// Bytes of memory: free, and all.
    fn cuMemGetInfo_v2(free: Out<usize>, all: Out<usize>) {
        let room = context()?.room();
        free.set(room.0)?;
        all.set(room.1)
    }
    /// Pinned memory of the host.
    fn cuMemHostAlloc(to: Out<Host>, bytes: usize, _flags: u32) { pin(&to, bytes) }
    /// Pinned memory of the host.
    fn cuMemAllocHost_v2(to: Out<Host>, bytes: usize) { pin(&to, bytes) }
    /// Frees pinned memory.
    fn cuMemFreeHost(memory: Host) {
        let Some(bytes) = context()?.pinned.remove(&memory.pointer().addr()) else {
            return refuse(Status::INVALID_VALUE, "memory of the host is freed that is not pinned");
        };
        // SAFETY: it was allocated by `pin` with this layout, and is forgotten now.
        unsafe { dealloc(memory.pointer(), layout(bytes)?) };
        Ok(())
    }
    /// Copies to the device.
    fn cuMemcpyHtoD_v2(to: u64, from: Host, bytes: usize) { to_device(&mut *context()?, to, &from, bytes) }
    /// The same, in the order of a stream.
    fn cuMemcpyHtoDAsync_v2(to: u64, from: Host, bytes: usize, stream: Handle) {
        let mut driver = context()?;
        driver.knows_stream(stream.number())?;
        to_device(&mut driver, to, &from, bytes)
    }
    /// Copies to the host.
    fn cuMemcpyDtoH_v2(to: Host, from: u64, bytes: usize) { to_host(&mut *context()?, to, from, bytes) }
    /// The same, in the order of a stream.
    fn cuMemcpyDtoHAsync_v2(to: Host, from: u64, bytes: usize, stream: Handle) {
        let mut driver = context()?;
        driver.knows_stream(stream.number())?;
        to_host(&mut driver, to, from, bytes)
    }
    /// Copies within the device.
    fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) {
        context()?.submit(0, Task::Copy { from, to, bytes })
    }
    /// The same, in the order of a stream.
    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: Handle) {
        context()?.submit(stream.number(), Task::Copy { from, to, bytes })
    }
    /// Fills with a byte.
    fn cuMemsetD8_v2(to: u64, byte: u8, n: usize) { fill(0, to, [byte; 4], n) }
    /// The same, in the order of a stream.
    fn cuMemsetD8Async(to: u64, byte: u8, n: usize, stream: Handle) { fill(stream.number(), to, [byte; 4], n) }
    /// Fills with words of 32 bits.
    fn cuMemsetD32_v2(to: u64, word: u32, n: usize) { fill(0, to, word.to_le_bytes(), 4 * n) }
    /// The same, in the order of a stream.
    fn cuMemsetD32Async(to: u64, word: u32, n: usize, stream: Handle) {
        fill(stream.number(), to, word.to_le_bytes(), 4 * n)
    }
}
