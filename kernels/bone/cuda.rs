//! Launch plans of Bone: which kernels of `bone.cu` a call takes.
use crate::cuda::{
    Argument,
    Buffer::{self, Operand, Result},
    Element, Launch, Plan, Product, RankGrad, Sizes, Slabs, Tile, Traffic, arguments, sum_slabs,
};

/// `graft.Bone (x, w, d) => (y, s)`, all of `element`.
pub fn bone(sizes: Sizes, element: Element, tile: Tile) -> Plan {
    let Sizes { tokens, n_in, n_out, rank } = sizes;
    let instance = sizes.instance(element, tile);
    let ([x, w, d], (y, s)) = ([0, 1, 2].map(Operand), (Result(0), Result(1)));
    let bytes = ((tokens * n_in + tokens * rank) * element.bytes()) as u64;
    let fold = Launch {
        kernel: "bone_fold",
        instance,
        grid: [(tokens * rank).div_ceil(256), 1, 1],
        block: 256,
        shared: 0,
        arguments: arguments(&[x, s], &[tokens, n_in, rank], &[]),
        traffic: Traffic { flops: (tokens * n_in) as u64, ideal: bytes, issued: bytes },
    };
    let product = Product { sizes: [tokens, n_out, n_in + rank], tile, along_k: [true, false], slabs: 1 };
    let operands = arguments(&[x, w, s, d, y], &[tokens, n_in, n_out, rank], &[]);
    let forward = product.launch("bone_forward", instance, operands, element.bytes());
    Plan { launches: vec![fold, forward], workspace: 0 }
}

/// `graft.BoneGrad (dy, x, w, d, s) => (dx, dd)`; dd is of floats.
pub fn bone_grad(sizes: Sizes, element: Element, tile: Tile) -> Plan {
    let Sizes { tokens, n_in, n_out, rank } = sizes;
    let instance = sizes.instance(element, tile);
    let ([dy, w, d, s], [dx, dd]) = ([0, 2, 3, 4].map(Operand), [0, 1].map(Result));
    let mut plan = Plan::default();
    let ds = plan.reserve(tokens * rank * element.bytes());
    let slabs = Slabs::of_tokens(tokens);
    let parts = plan.reserve(4 * slabs.n * rank * n_out);
    let operands: Vec<Argument> = arguments(&[dy, d, s, ds, parts], &[tokens, n_out, rank], &[]);
    plan.launches.push(RankGrad { sizes, slabs }.launch("bone_rank_grad", instance, operands));
    plan.launches.push(sum_slabs(instance, slabs, rank * n_out, parts, dd, Buffer::Null));
    let product = Product { sizes: [tokens, n_in, n_out], tile, along_k: [true, true], slabs: 1 };
    let operands = arguments(&[dy, w, ds, dx], &[tokens, n_in, n_out, rank], &[]);
    plan.launches.push(product.launch("bone_input_grad", instance, operands, element.bytes()));
    plan
}
