//! Operands in memory: row-major or strided, with gaps that hold what nobody may read.
use crate::draw::Draw;
use graft_ir::{Array, DType, Data, Error};
use graft_kernels::{Memory, View, extent, row_major};

/// What lies between the elements: NaN, or -1.
const POISON: u8 = 0xff;

/// An operand in memory.
pub(crate) struct Laid {
    pub(crate) dtype: DType,
    pub(crate) dims: Vec<usize>,
    pub(crate) strides: Vec<usize>,
    pub(crate) memory: Memory,
}

impl Laid {
    pub(crate) fn view(&self) -> View<'_> {
        View { dtype: self.dtype, dims: &self.dims, strides: &self.strides, data: self.memory.bytes() }
    }
    /// The bytes from the first element to the last one.
    pub(crate) fn bytes(&self) -> usize {
        extent(&self.dims, &self.strides) * self.dtype.bits() / 8
    }
}

/// Lays an operand out. Where it is strided, axes may be repeated: the operand is then made to have the same elements
/// all along them.
pub(crate) fn lay(array: &mut Array, strided: bool, draw: &mut Draw) -> Result<Laid, Error> {
    let strides = if strided && draw.flip() { strides(&array.dims, draw) } else { row_major(&array.dims) };
    repeat(array, &strides);
    let tensor = array.to_tensor()?;
    let size = array.dtype.bits() / 8;
    let mut memory = Memory::zeroed(extent(&array.dims, &strides) * size);
    memory.bytes_mut().fill(POISON);
    for (i, element) in tensor.data().chunks(size).enumerate() {
        let at = offset(i, &array.dims, &strides) * size;
        memory.bytes_mut()[at..at + size].copy_from_slice(element);
    }
    Ok(Laid { dtype: array.dtype, dims: array.dims.clone(), strides, memory })
}

/// Strides of axes in any order, some with gaps, some 0.
fn strides(dims: &[usize], draw: &mut Draw) -> Vec<usize> {
    let mut rest: Vec<usize> = (0..dims.len()).collect();
    let mut strides = vec![0; dims.len()];
    let mut step = 1;
    while !rest.is_empty() {
        let last = rest.len() - 1;
        let axis = rest.remove(if draw.flip() { last } else { draw.below(rest.len()) });
        if draw.one_in(8) {
            continue;
        }
        step *= if draw.one_in(4) { 2 } else { 1 };
        strides[axis] = step;
        step *= dims[axis].max(1);
    }
    strides
}

fn offset(index: usize, dims: &[usize], strides: &[usize]) -> usize {
    let (mut rest, mut at) = (index, 0);
    for (&d, &s) in dims.iter().zip(strides).rev() {
        at += rest % d * s;
        rest /= d;
    }
    at
}

/// Gives every element the value of the first one that lies where it does.
fn repeat(array: &mut Array, strides: &[usize]) {
    let whole = row_major(&array.dims);
    let kept: Vec<usize> = whole.iter().zip(strides).map(|(&w, &s)| if s == 0 { 0 } else { w }).collect();
    let source: Vec<usize> = (0..array.len()).map(|i| offset(i, &array.dims, &kept)).collect();
    match &mut array.data {
        Data::Float(v) => *v = source.iter().map(|&i| v[i]).collect(),
        Data::Int(v) => *v = source.iter().map(|&i| v[i]).collect(),
    }
}
