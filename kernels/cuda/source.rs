//! The sources that make up the device's side of the kernels, and the kernels in them.
use super::{Element, Module, TILES, split};
use crate::{
    adalora, attention, bat, bone, dora, gather, gemm, hydra, layer_norm, lora, loss, matmul, movement,
    optimizer, random, reduce, rotary, salora, softmax, tri,
};

/// A file that is compiled, and the kernels that it defines.
#[derive(Debug)]
pub struct Source {
    /// Its path below `kernels`.
    pub path: &'static str,
    /// What it holds.
    pub text: &'static str,
    /// The names of its kernels.
    pub kernels: &'static [&'static str],
    /// Those of them that multiply matrices: with 16-bit elements they have to use tensor cores.
    pub products: &'static [&'static str],
    /// Examples of what it is compiled for, among them whatever takes the most registers.
    pub modules: fn(Module) -> Vec<Module>,
}

/// The sources, by family.
const FAMILIES: &[&[Source]] = &[
    adalora::cuda::SOURCES,
    attention::cuda::SOURCES,
    bat::cuda::SOURCES,
    bone::cuda::SOURCES,
    dora::cuda::SOURCES,
    gather::cuda::SOURCES,
    gemm::cuda::SOURCES,
    hydra::cuda::SOURCES,
    layer_norm::cuda::SOURCES,
    lora::cuda::SOURCES,
    loss::cuda::SOURCES,
    matmul::cuda::SOURCES,
    movement::cuda::SOURCES,
    optimizer::cuda::SOURCES,
    random::cuda::SOURCES,
    reduce::cuda::SOURCES,
    rotary::cuda::SOURCES,
    salora::cuda::SOURCES,
    softmax::cuda::SOURCES,
    tri::cuda::SOURCES,
    split::SOURCES,
];

/// Every source.
pub fn sources() -> impl Iterator<Item = &'static Source> {
    FAMILIES.iter().copied().flatten()
}

/// What a source holds.
pub(crate) fn text_of(path: &str) -> Option<&'static str> {
    sources().find(|s| s.path == path).map(|s| s.text)
}

/// What the sources of adapted linears are compiled for: all elements with the small tile; the large ones with 16-bit
/// elements, as f32 is there for correctness.
pub(crate) fn linears(module: Module) -> Vec<Module> {
    let of = |element, tile: usize, rank| module.clone().element(element).tile(TILES[tile]).rank(rank);
    vec![
        of(Element::Bf16, 0, 16),
        of(Element::Bf16, 0, 64),
        of(Element::Bf16, 1, 16),
        of(Element::Bf16, 2, 16),
        of(Element::F16, 0, 16),
        of(Element::F32, 0, 16),
        of(Element::F32, 0, 64),
    ]
}

/// The same for sources of linears without a rank.
pub(crate) fn linear_modules(module: Module) -> Vec<Module> {
    let of = |element, tile: usize| module.clone().element(element).tile(TILES[tile]);
    vec![
        of(Element::Bf16, 0),
        of(Element::Bf16, 1),
        of(Element::Bf16, 2),
        of(Element::F16, 0),
        of(Element::F32, 0),
    ]
}

/// The same for sources without large products.
pub(crate) fn ranks(module: Module) -> Vec<Module> {
    let of = |element, rank| module.clone().element(element).rank(rank);
    vec![of(Element::Bf16, 16), of(Element::Bf16, 64), of(Element::F16, 16), of(Element::F32, 64)]
}

/// The same for sources without large products, whose launches serve up to three calls, as many as read the same x in an
/// attention: the widest stacks, and those of one call.
pub(crate) fn stacks(module: Module) -> Vec<Module> {
    let of = |element, rank| module.clone().element(element).rank(rank);
    vec![
        of(Element::Bf16, 16),
        of(Element::Bf16, 16).calls(3),
        of(Element::Bf16, 64).calls(3),
        of(Element::F16, 16).calls(2),
        of(Element::F32, 32).calls(3),
        of(Element::F32, 64),
    ]
}

/// What the sources include, with paths below `kernels`.
pub const HEADERS: &[(&str, &str)] = &[
    ("cuda/device.cuh", include_str!("device.cuh")),
    ("cuda/dialect.cuh", include_str!("dialect.cuh")),
    ("cuda/index.cuh", include_str!("index.cuh")),
    ("cuda/instance.cuh", include_str!("instance.cuh")),
    ("cuda/math.cuh", include_str!("math.cuh")),
    ("cuda/panel.cuh", include_str!("panel.cuh")),
    ("cuda/product.cuh", include_str!("product.cuh")),
    ("cuda/quick.cuh", include_str!("quick.cuh")),
    ("cuda/random.cuh", include_str!("random.cuh")),
    ("cuda/stack.cuh", include_str!("stack.cuh")),
    ("cuda/team.cuh", include_str!("team.cuh")),
    ("cuda/walk.cuh", include_str!("walk.cuh")),
    ("elementwise/elementwise.cuh", include_str!("../elementwise/elementwise.cuh")),
    ("gemm/epilogue.cuh", include_str!("../gemm/epilogue.cuh")),
    ("gemm/extended.cuh", include_str!("../gemm/extended.cuh")),
    ("gemm/rank_grad.cuh", include_str!("../gemm/rank_grad.cuh")),
    ("lora/middle.cuh", include_str!("../lora/middle.cuh")),
];
