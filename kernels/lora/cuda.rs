//! Launch plans of LoRA: which kernels of `lora.cu` a call takes.
use crate::cuda::{
    Argument::{self, Int},
    Buffer::{self, Operand, Result},
    Dropout, Element, Plan, Product, RankGrad, Sizes, Slabs, Tile, arguments, rank_tile, sum_slabs,
};

/// `graft.Lora (x, w, a, b, scale) => (y, h)`, where the adapter reads x with `dropout`. x, w, a, b, y and h are of
/// `element`, scale is a float.
pub fn lora(sizes: Sizes, element: Element, tile: Tile, dropout: Dropout) -> Plan {
    let Sizes { tokens, n_in, n_out, rank } = sizes;
    let instance = sizes.instance(element, tile);
    let [x, w, a, b, scale] = [0, 1, 2, 3, 4].map(Operand);
    let (y, h) = (Result(0), Result(1));
    let down = Product {
        sizes: [tokens, rank, n_in],
        tile: rank_tile(instance.rank),
        along_k: [true, false],
        slabs: 1,
    };
    let forward = Product { sizes: [tokens, n_out, n_in + rank], tile, along_k: [true, false], slabs: 1 };
    let down = down.launch(
        "lora_down",
        instance,
        arguments(&[x, a, h], &[tokens, n_in, rank], &dropout.arguments()),
        element.bytes(),
    );
    let forward = forward.launch(
        "lora_forward",
        instance,
        arguments(&[x, w, h, b, y], &[tokens, n_in, n_out, rank], &[Argument::Buffer(scale)]),
        element.bytes(),
    );
    Plan { launches: vec![down, forward], workspace: 0 }
}

/// `graft.LoraGrad (dy, x, w, a, b, scale, h) => (dx, da, db)`; da and db are floats.
pub fn lora_grad(sizes: Sizes, element: Element, tile: Tile, dropout: Dropout) -> Plan {
    let Sizes { tokens, n_in, n_out, rank } = sizes;
    let instance = sizes.instance(element, tile);
    let [dy, x, w, a, b, scale, h] = [0, 1, 2, 3, 4, 5, 6].map(Operand);
    let [dx, da, db] = [0, 1, 2].map(Result);
    let mut plan = Plan::default();
    let dh = plan.reserve(tokens * rank * element.bytes());

    let slabs = Slabs::of_tokens(tokens);
    let db_parts = plan.reserve(4 * slabs.n * rank * n_out);
    let operands = arguments(&[dy, b, h, dh, db_parts], &[tokens, n_out, rank], &[Argument::Buffer(scale)]);
    plan.launches.push(RankGrad { sizes, slabs }.launch("lora_rank_grad", instance, operands));
    plan.launches.push(sum_slabs(instance, slabs, rank * n_out, db_parts, db, scale));

    let product = Product { sizes: [tokens, n_in, n_out + rank], tile, along_k: [true, true], slabs: 1 };
    let operands = arguments(&[dy, w, dh, a, dx], &[tokens, n_in, n_out, rank], &dropout.arguments());
    plan.launches.push(product.launch("lora_input_grad", instance, operands, element.bytes()));

    let tile = rank_tile(instance.rank);
    let slabs = Slabs::cut(tokens.div_ceil(tile.k));
    let da_parts = plan.reserve(4 * slabs.n * n_in * rank);
    let product = Product { sizes: [n_in, rank, tokens], tile, along_k: [false, false], slabs: slabs.n };
    let mut operands = arguments(&[x, dh, da_parts], &[tokens, n_in, rank], &dropout.arguments());
    operands.push(Int(slabs.steps_per_slab as i32));
    plan.launches.push(product.launch("lora_down_grad", instance, operands, 4));
    plan.launches.push(sum_slabs(instance, slabs, n_in * rank, da_parts, da, Buffer::Null));
    plan
}
