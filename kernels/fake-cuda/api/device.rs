//! The device, its primary context, and the names of errors.
use super::exports;
use crate::{
    driver::{CONTEXT, CURRENT, IS_INITIALISED, context, driver, is_initialised},
    pointers::{Handle, Host, Out},
    status::{Status, described, refuse},
};
use graft_ptx::MOST_SHARED;
use std::{ffi::c_char, sync::atomic::Ordering};

/// What the device calls itself; by `emulated` a program knows it for what it is.
const NAME: &[u8] = b"graft emulated sm_80";
/// CUDA 13.0.
const VERSION: i32 = 13_000;

/// An attribute of the device, by its number in `CUdevice_attribute`: those of an A100, where they matter.
fn attribute(number: i32) -> Option<i32> {
    Some(match number {
        // The most threads of a block, and along x, y and z.
        1..=3 => 1024,
        4 => 64,
        // The largest grid.
        5 => i32::MAX,
        6 | 7 => 65_535,
        // Shared memory of a block without asking, and with.
        8 => 48 << 10,
        97 => MOST_SHARED as i32,
        10 => 32,
        // Registers of a block and of a multiprocessor.
        12 | 82 => 65_536,
        // Multiprocessors.
        16 => 108,
        // The level-2 cache.
        38 => 40 << 20,
        39 => 2048,
        // Architecture.
        75 => 8,
        76 => 0,
        81 => (MOST_SHARED + 1024) as i32,
        // Kernels beside each other, unified addresses, streams with priorities: whether there are.
        31 | 41 | 78 => 1,
        0 | 121.. => return None,
        // Everything else it has not, memory pools among it.
        _ => 0,
    })
}

fn check(device: i32) -> Result<(), Status> {
    if device == 0 { Ok(()) } else { Err(Status::INVALID_DEVICE) }
}

exports! {
    /// Starts the driver.
    fn cuInit(flags: u32) {
        if flags != 0 {
            return Err(Status::INVALID_VALUE);
        }
        IS_INITIALISED.store(true, Ordering::Release);
        Ok(())
    }
    /// The version of CUDA that it claims.
    fn cuDriverGetVersion(version: Out<i32>) { version.set(VERSION) }
    /// One.
    fn cuDeviceGetCount(count: Out<i32>) {
        is_initialised()?;
        count.set(1)
    }
    /// The device with a number.
    fn cuDeviceGet(device: Out<i32>, ordinal: i32) {
        is_initialised()?;
        check(ordinal)?;
        device.set(ordinal)
    }
    /// The device's name.
    fn cuDeviceGetName(name: Host, size: i32, device: i32) {
        check(device)?;
        let mut name = name;
        let to = name.bytes_mut(usize::try_from(size).map_err(|_| Status::INVALID_VALUE)?)?;
        let n = NAME.len().min(to.len().saturating_sub(1));
        to.fill(0);
        to[..n].copy_from_slice(&NAME[..n]);
        Ok(())
    }
    /// A property of the device.
    fn cuDeviceGetAttribute(value: Out<i32>, number: i32, device: i32) {
        check(device)?;
        value.set(attribute(number).ok_or(Status::INVALID_VALUE)?)
    }
    /// The device's memory in bytes.
    fn cuDeviceTotalMem_v2(bytes: Out<usize>, device: i32) {
        check(device)?;
        bytes.set(driver()?.room().1)
    }
    /// Sixteen bytes that tell devices apart.
    fn cuDeviceGetUuid_v2(uuid: Out<[u8; 16]>, device: i32) {
        check(device)?;
        uuid.set(*b"graft emulated 0")
    }
    /// Holds the primary context.
    fn cuDevicePrimaryCtxRetain(to: Out<Handle>, device: i32) {
        check(device)?;
        driver()?.retained += 1;
        to.set(Handle::of(CONTEXT))
    }
    /// Lets the primary context go.
    fn cuDevicePrimaryCtxRelease_v2(device: i32) {
        check(device)?;
        driver()?.release()
    }
    /// Makes a context this thread's.
    fn cuCtxSetCurrent(handle: Handle) {
        let number = handle.number();
        if number != 0 && (number != CONTEXT || driver()?.retained == 0) {
            return refuse(Status::INVALID_CONTEXT, format!("{number:#x} is no context"));
        }
        CURRENT.set(number);
        Ok(())
    }
    /// This thread's context.
    fn cuCtxGetCurrent(to: Out<Handle>) { to.set(Handle::of(CURRENT.get())) }
    /// Waits for everything.
    fn cuCtxSynchronize() {
        let mut driver = context()?;
        driver.may_not_record("a wait for the device")?;
        driver.works()
    }
    /// What an error means.
    fn cuGetErrorString(code: u32, text: Out<*const c_char>) {
        text.set(described(code).ok_or(Status::INVALID_VALUE)?.1.as_ptr())
    }
    /// What an error is called.
    fn cuGetErrorName(code: u32, text: Out<*const c_char>) {
        text.set(described(code).ok_or(Status::INVALID_VALUE)?.0.as_ptr())
    }
}
