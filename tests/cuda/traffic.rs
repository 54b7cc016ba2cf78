//! What plans say of their costs, against the study's figures.
use graft_kernels::{
    cuda::{Element, Linear, Sizes, TILES},
    lora::cuda::{lora, lora_grad},
};

/// 8192 tokens, 4096 × 4096, rank 16, in bf16: forward 236 MB and backward 304 MB are what a reading and a writing of
/// everything once takes; the partial sums of the weights' gradients come on top.
#[test]
fn lora_moves_what_it_must() {
    let sizes = Sizes { tokens: 8192, n_in: 4096, n_out: 4096, rank: 16 };
    let linear = Linear::new(sizes, Element::Bf16, TILES[1]);
    let (forward, backward) = (lora(&linear, [true; 2]).traffic(), lora_grad(&linear, [true; 3]).traffic());
    let both = (forward + backward).ideal as f64 / 1e6;
    assert!((both - 540.0).abs() < 54.0, "{both} MB");
    let dense = 2.0 * 2.0 * 8192.0 * 4096.0 * 4096.0;
    let overhead = (forward + backward).flops as f64 / dense;
    assert!((1.0..1.02).contains(&overhead), "{overhead} of the dense products' operations");
}
