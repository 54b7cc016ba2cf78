//! The pointers of the driver's interface. Whoever calls it promises, as to the driver itself, that they are null or valid for
//! what the call reads or writes; here alone they are followed.
use crate::status::{Outcome, Status};
use std::{
    ffi::{CStr, c_char, c_void},
    slice,
};

/// Where a result goes.
#[repr(transparent)]
pub struct Out<T>(*mut T);

impl<T> Out<T> {
    /// Writes the result.
    pub(crate) fn set(&self, value: T) -> Outcome {
        if self.0.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: the caller promises that a pointer for a result is valid for a write.
        unsafe { self.0.write_unaligned(value) };
        Ok(())
    }
}

/// A handle: a number that looks like a pointer and is never followed.
#[repr(transparent)]
pub struct Handle(*mut c_void);

impl Handle {
    pub(crate) fn of(number: u64) -> Handle {
        Handle(std::ptr::without_provenance_mut(number as usize))
    }
    pub(crate) fn number(&self) -> u64 {
        self.0.addr() as u64
    }
}

/// Memory of the host.
#[repr(transparent)]
pub struct Host(*mut c_void);

impl Host {
    pub(crate) fn of(pointer: *mut u8) -> Host {
        Host(pointer.cast())
    }
    pub(crate) fn pointer(&self) -> *mut u8 {
        self.0.cast()
    }
    /// So many bytes that are read.
    pub(crate) fn bytes(&self, n: usize) -> Outcome<&[u8]> {
        if self.0.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: the caller promises that as many bytes as it says can be read, and does not change them meanwhile.
        Ok(unsafe { slice::from_raw_parts(self.0.cast(), n) })
    }
    /// So many bytes that are written.
    pub(crate) fn bytes_mut(&mut self, n: usize) -> Outcome<&mut [u8]> {
        if self.0.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: the caller promises that as many bytes as it says can be written, and nobody uses them meanwhile.
        Ok(unsafe { slice::from_raw_parts_mut(self.0.cast(), n) })
    }
    /// A text that ends in zero.
    pub(crate) fn text(&self) -> Outcome<&CStr> {
        if self.0.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: the caller promises that a text ends in zero and stays as it is during the call.
        Ok(unsafe { CStr::from_ptr(self.0.cast::<c_char>()) })
    }
}

/// Pointers to a kernel's arguments.
#[repr(transparent)]
pub struct Arguments(*mut *mut c_void);

impl Arguments {
    pub(crate) fn is_null(&self) -> bool {
        self.0.is_null()
    }
    /// The bytes of each argument.
    pub(crate) fn read(&self, sizes: &[usize]) -> Outcome<Vec<Vec<u8>>> {
        if self.0.is_null() && !sizes.is_empty() {
            return Err(Status::INVALID_VALUE);
        }
        let one = |(i, &n): (usize, &usize)| {
            // SAFETY: the caller promises that there are as many pointers as the kernel has parameters.
            let pointer = unsafe { self.0.add(i).read() };
            Host(pointer).bytes(n).map(<[u8]>::to_vec)
        };
        sizes.iter().enumerate().map(one).collect()
    }
}
