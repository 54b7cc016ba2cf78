//! Constants that all plans of a session share: weights where they lie, and what is computed from them once.
use bytes::Bytes;
use graft_ir::{Code, Error, Result, Tensor};
use graft_kernels::Memory;
use std::{collections::HashMap, sync::Arc};

/// Bytes that never change, aligned for their elements.
pub(crate) enum Constant {
    /// A tensor's own bytes: a part of the model's file or of the caller's memory.
    Shared(Bytes),
    /// Bytes of ours: copied for alignment, laid out anew, or computed.
    Owned(Memory),
}

impl Constant {
    /// The bytes of a tensor, copied only if they are not aligned for their elements.
    pub(crate) fn of_tensor(tensor: &Tensor) -> Result<Constant> {
        let bits = tensor.dtype().bits();
        if bits == 0 || !bits.is_multiple_of(8) {
            let message = format!("tensors of {} cannot be computed with", tensor.dtype());
            return Err(Error::new(Code::NO_EVAL, message));
        }
        let bytes = tensor.data();
        let aligned = (bytes.as_ptr() as usize).is_multiple_of(bits / 8);
        Ok(if aligned { Constant::Shared(bytes.clone()) } else { Constant::Owned(Memory::copy_of(bytes)) })
    }
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Constant::Shared(bytes) => bytes,
            Constant::Owned(memory) => memory.bytes(),
        }
    }
    /// The bytes that it adds to what the model holds already.
    fn own_bytes(&self) -> usize {
        match self {
            Constant::Shared(_) => 0,
            Constant::Owned(memory) => memory.len(),
        }
    }
}

/// Constants by name: that of the value, or of what was made of it.
#[derive(Default)]
pub(crate) struct Constants(HashMap<String, Arc<Constant>>);

impl Constants {
    pub(crate) fn get(&self, key: &str) -> Option<Arc<Constant>> {
        self.0.get(key).cloned()
    }
    pub(crate) fn insert(&mut self, key: String, constant: Arc<Constant>) {
        self.0.insert(key, constant);
    }
    /// The bytes that they take beyond the model's own.
    pub(crate) fn own_bytes(&self) -> usize {
        self.0.values().map(|constant| constant.own_bytes()).sum()
    }
}
