//! What a kernel is handed: views of its operands, the memory for its results, and the threads it may use.
use crate::Threads;
use bytemuck::Pod;
use graft_ir::{Code, DType, Error, Node, Result};

/// Memory that is read: a tensor with a stride, in elements, for each axis (0 where the axis is broadcast).
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The element type.
    pub dtype: DType,
    /// The sizes, outermost first.
    pub dims: &'a [usize],
    /// How many elements apart neighbours along each axis are.
    pub strides: &'a [usize],
    /// The memory, from the first element on, aligned for the element type.
    pub data: &'a [u8],
}

/// Memory that is written: always row-major and as long as `dims` asks for.
#[derive(Debug)]
pub struct ViewMut<'a> {
    /// The element type.
    pub dtype: DType,
    /// The sizes, outermost first.
    pub dims: &'a [usize],
    /// The memory, aligned for the element type.
    pub data: &'a mut [u8],
}

/// One operand of a call.
#[derive(Clone, Copy, Debug)]
pub enum Operand<'a> {
    /// Left out by the node.
    Absent,
    /// To be read.
    View(View<'a>),
    /// Its elements lie, row-major, in the memory of the result with this index, which is to be overwritten.
    InPlace(usize),
}

/// One application of a kernel.
pub struct Call<'a> {
    /// The node, for its attributes.
    pub node: &'a Node,
    /// The opset version of the node's domain.
    pub opset: i64,
    /// The operands, in the node's order.
    pub inputs: Vec<Operand<'a>>,
    /// Memory for the results, in the node's order; `None` where one is not wanted.
    pub outputs: Vec<Option<ViewMut<'a>>>,
    /// As many bytes as the kernel's `scratch` asked for, 64-byte aligned, with any content.
    pub scratch: &'a mut [u8],
    /// The threads that the kernel may use.
    pub threads: Threads,
}

impl<'a> View<'a> {
    /// The number of elements.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }
    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Whether the elements lie in row-major order without gaps.
    pub fn is_row_major(&self) -> bool {
        is_row_major(self.dims, self.strides)
    }
    /// The elements in memory: for a row-major view exactly its elements in order.
    pub fn elements<T: Pod>(&self) -> &'a [T] {
        let extent = extent(self.dims, self.strides) * size_of::<T>();
        // The address of an empty slice need not be aligned.
        if extent == 0 { &[] } else { bytemuck::cast_slice(&self.data[..extent]) }
    }
    /// The number of elements of the last `n` axes.
    pub fn row_len(&self, n: usize) -> usize {
        self.dims[self.dims.len() - n.min(self.dims.len())..].iter().product()
    }
}

impl<'a> ViewMut<'a> {
    /// The elements.
    pub fn elements<T: Pod>(self) -> &'a mut [T] {
        if self.data.is_empty() { &mut [] } else { bytemuck::cast_slice_mut(self.data) }
    }
}

impl<'a> Call<'a> {
    /// Operand `i`, which must be given and not be in place.
    pub fn input(&self, i: usize) -> Result<View<'a>> {
        self.get(i).ok_or_else(|| Error::new(Code::TYPES, format!("operand {i} is missing")))
    }
    /// Operand `i`, if it is given and not in place.
    pub fn get(&self, i: usize) -> Option<View<'a>> {
        match self.inputs.get(i) {
            Some(Operand::View(view)) => Some(*view),
            _ => None,
        }
    }
    /// Whether operand `i` lies in the memory of a result.
    pub fn in_place(&self, i: usize) -> bool {
        matches!(self.inputs.get(i), Some(Operand::InPlace(_)))
    }
    /// The memory of result `i`, which must be wanted; can be taken once.
    pub fn output(&mut self, i: usize) -> Result<ViewMut<'a>> {
        self.wanted(i).ok_or_else(|| Error::new(Code::TYPES, format!("result {i} is not wanted by anyone")))
    }
    /// The memory of result `i`, if anyone wants it; can be taken once.
    pub fn wanted(&mut self, i: usize) -> Option<ViewMut<'a>> {
        self.outputs.get_mut(i)?.take()
    }
    /// The memory of result `result`, wanted, holding the `float` elements of operand `operand`: copied there, unless they
    /// lie there already. For kernels that work in place.
    pub fn seeded(&mut self, operand: usize, result: usize) -> Result<&'a mut [f32]> {
        let given = self.get(operand);
        let out = self.output(result)?.elements::<f32>();
        if let Some(given) = given {
            out.copy_from_slice(given.elements());
        } else if !self.in_place(operand) {
            self.input(operand)?;
        }
        Ok(out)
    }
    /// The sizes of result `i`, while it is not taken.
    pub fn output_dims(&self, i: usize) -> &'a [usize] {
        self.outputs.get(i).and_then(|o| o.as_ref()).map_or(&[], |o| o.dims)
    }
    /// The scratch memory; can be taken once.
    pub fn scratch<T: Pod>(&mut self) -> &'a mut [T] {
        let bytes = std::mem::take(&mut self.scratch);
        let whole = bytes.len() / size_of::<T>() * size_of::<T>();
        if whole == 0 { &mut [] } else { bytemuck::cast_slice_mut(&mut bytes[..whole]) }
    }
    /// The elements of an integer operand that may also be an attribute in older opsets (`axes`, `split`, …).
    pub fn ints_at(&self, i: usize, attr: &str) -> Result<Option<Vec<i64>>> {
        match self.get(i) {
            Some(view) if view.dtype == DType::Int64 && view.is_row_major() => {
                Ok(Some(view.elements::<i64>().to_vec()))
            }
            Some(view) => {
                Err(Error::new(Code::TYPES, format!("`{attr}` must be int64, found {}", view.dtype)))
            }
            None => Ok(self.node.ints(attr)?.map(<[i64]>::to_vec)),
        }
    }
    /// A scalar operand of type `float`.
    pub fn scalar(&self, i: usize) -> Result<f32> {
        let view = self.input(i)?;
        let wrong = || Error::new(Code::TYPES, format!("operand {i} must be a single float"));
        match view.dtype {
            DType::Float if view.len() == 1 => Ok(view.elements::<f32>()[0]),
            _ => Err(wrong()),
        }
    }
}

/// The strides of a row-major tensor, in elements.
pub fn row_major(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for i in (1..dims.len()).rev() {
        strides[i - 1] = strides[i] * dims[i];
    }
    strides
}

/// Whether `strides` are those of a row-major tensor, where it matters.
pub fn is_row_major(dims: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    dims.contains(&0)
        || dims.iter().zip(strides).rev().all(|(&d, &s)| {
            let fits = d == 1 || s == expected;
            expected *= d;
            fits
        })
}

/// How many elements of memory a strided tensor spans.
pub fn extent(dims: &[usize], strides: &[usize]) -> usize {
    if dims.contains(&0) {
        return 0;
    }
    1 + dims.iter().zip(strides).map(|(&d, &s)| (d - 1) * s).sum::<usize>()
}

/// A non-negative axis from one that may count from the end; an error outside of `-rank..rank`.
pub fn axis(axis: i64, rank: usize) -> Result<usize> {
    let resolved = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(resolved)
        .ok()
        .filter(|&a| a < rank.max(1))
        .ok_or_else(|| Error::new(Code::VALUE, format!("axis {axis} is outside of a tensor of rank {rank}")))
}
