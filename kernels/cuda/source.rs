//! The sources that make up the device's side of the kernels, and the kernels in them.
use super::{Element, Tile};

/// A file that is compiled, and the kernels it defines.
#[derive(Debug)]
pub struct Source {
    /// Its path below `kernels`.
    pub path: &'static str,
    /// The names of its kernels.
    pub kernels: &'static [&'static str],
    /// The element types that it can be compiled for.
    pub elements: &'static [Element],
}

/// Any element type.
const ALL: &[Element] = &[Element::Bf16, Element::F16, Element::F32];

/// The files that are compiled.
pub const KERNELS: &[Source] = &[
    Source {
        path: "bone/bone.cu",
        kernels: &["bone_fold", "bone_forward", "bone_input_grad", "bone_rank_grad"],
        elements: ALL,
    },
    Source { path: "cuda/slabs.cu", kernels: &["sum_slabs"], elements: &[Element::F32] },
    Source {
        path: "lora/lora.cu",
        kernels: &["lora_down", "lora_down_grad", "lora_forward", "lora_input_grad", "lora_rank_grad"],
        elements: ALL,
    },
];

/// The source that defines a kernel.
pub fn source_of(kernel: &str) -> Option<&'static Source> {
    KERNELS.iter().find(|s| s.kernels.contains(&kernel))
}

/// The tiles of large products that sources are compiled for: small products, and large ones.
pub const TILES: &[Tile] = &[
    Tile { m: 64, n: 64, k: 32, warps: [2, 2], stages: 3 },
    Tile { m: 128, n: 128, k: 32, warps: [2, 4], stages: 3 },
];

/// Every file, with its path below `kernels` and its text.
pub const FILES: &[(&str, &str)] = &[
    ("bone/bone.cu", include_str!("../bone/bone.cu")),
    ("cuda/device.cuh", include_str!("device.cuh")),
    ("cuda/dialect.cuh", include_str!("dialect.cuh")),
    ("cuda/instance.cuh", include_str!("instance.cuh")),
    ("cuda/panel.cuh", include_str!("panel.cuh")),
    ("cuda/product.cuh", include_str!("product.cuh")),
    ("cuda/random.cuh", include_str!("random.cuh")),
    ("cuda/slabs.cu", include_str!("slabs.cu")),
    ("gemm/extended.cuh", include_str!("../gemm/extended.cuh")),
    ("gemm/rank_grad.cuh", include_str!("../gemm/rank_grad.cuh")),
    ("lora/lora.cu", include_str!("../lora/lora.cu")),
];
