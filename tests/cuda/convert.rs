//! Numbers as the device holds them.
use graft_ir::{Array, Data};
use graft_kernels::cuda::Element;
use half::{bf16, f16};

/// The bytes of `values`, rounded to `element`.
pub(crate) fn encode(element: Element, values: &[f64]) -> Vec<u8> {
    match element {
        Element::Bf16 => values.iter().flat_map(|&x| bf16::from_f64(x).to_ne_bytes()).collect(),
        Element::F16 => values.iter().flat_map(|&x| f16::from_f64(x).to_ne_bytes()).collect(),
        Element::F32 => values.iter().flat_map(|&x| (x as f32).to_ne_bytes()).collect(),
    }
}

/// The numbers that `bytes` hold.
pub(crate) fn decode(element: Element, bytes: &[u8]) -> Vec<f64> {
    let halves = || bytes.as_chunks::<2>().0.iter();
    match element {
        Element::Bf16 => halves().map(|&b| bf16::from_ne_bytes(b).to_f64()).collect(),
        Element::F16 => halves().map(|&b| f16::from_ne_bytes(b).to_f64()).collect(),
        Element::F32 => bytes.as_chunks::<4>().0.iter().map(|&b| f64::from(f32::from_ne_bytes(b))).collect(),
    }
}

/// `array` with every element rounded to `element`.
pub(crate) fn rounded(element: Element, mut array: Array) -> Array {
    if let Data::Float(values) = &mut array.data {
        *values = decode(element, &encode(element, values));
    }
    array
}

/// The bytes of an array's elements in `element`.
pub(crate) fn bytes(element: Element, array: &Array) -> Vec<u8> {
    match &array.data {
        Data::Float(values) => encode(element, values),
        Data::Int(values) => values.iter().flat_map(|n| n.to_ne_bytes()).collect(),
    }
}
