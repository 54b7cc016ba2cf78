//! Cases of LoRA's kernels.
use crate::{
    convert::{bytes, rounded},
    program::{Case, draw_sizes, expected},
    reference::{add, call, draw, magnitudes, map},
};
use graft_emulate::Job;
use graft_ir::{Array, DType, random};
use graft_kernels::{
    cuda::{Buffer, Dropout, Element, Linear, Sizes, Tile},
    lora::cuda::{lora, lora_grad},
};

/// Seed and step of dropout.
const COUNTERS: [u64; 2] = [1234, 5];

/// x, w, a, b, scale and their gradients' dy and h, rounded to the element type.
struct Drawn {
    sizes: Sizes,
    element: Element,
    x: Array,
    w: Array,
    a: Array,
    b: Array,
    scale: Array,
    dy: Array,
    h: Array,
    dropout: Option<(u32, f32)>,
}

/// The forward and the backward call for one draw of sizes and values.
pub(crate) fn cases(element: Element, tile: Tile, seed: u64, rank: usize, among: &[usize]) -> Vec<Case> {
    of_sizes(element, tile, seed, draw_sizes(seed, rank, among))
}

/// The forward and the backward call for one draw of values.
pub(crate) fn of_sizes(element: Element, tile: Tile, seed: u64, sizes: Sizes) -> Vec<Case> {
    let drawn = Drawn::new(element, seed, sizes);
    vec![drawn.forward(tile), drawn.backward(tile)]
}

impl Drawn {
    fn new(element: Element, seed: u64, sizes: Sizes) -> Drawn {
        let Sizes { tokens, n_in, n_out, rank } = sizes;
        let of = |dims: &[usize], tensor: u64| rounded(element, draw(dims, seed, tensor));
        Drawn {
            sizes,
            element,
            x: of(&[tokens, n_in], 10),
            w: of(&[n_in, n_out], 11),
            a: of(&[n_in, rank], 12),
            b: of(&[rank, n_out], 13),
            scale: rounded(Element::F32, draw(&[], seed, 14)),
            dy: of(&[tokens, n_out], 15),
            h: of(&[tokens, rank], 16),
            // Every second case drops three in ten.
            dropout: (seed % 2 == 1).then_some(((0.3 * 4294967296.0) as u32, 1.0 / 0.7)),
        }
    }

    /// What dropout makes of a tensor of x's sizes.
    fn dropped(&self, x: &Array) -> Array {
        let Some((threshold, scale)) = self.dropout else { return x.clone() };
        let stream = random::Stream::new(COUNTERS[0], COUNTERS[1], TENSOR.into());
        map(x, |i, x| if stream.bits(i as u64) >= threshold { x * f64::from(scale) } else { 0.0 })
    }

    /// The linear, whose dropout's counters are the operand with this number.
    fn linear(&self, tile: Tile, counters: usize) -> Linear {
        let linear = Linear::new(self.sizes, self.element, tile);
        let Some((threshold, scale)) = self.dropout else { return linear };
        let dropout = Dropout { counters: Buffer::Operand(counters), tensor: TENSOR, threshold, scale };
        Linear { dropout, ..linear }
    }

    fn describe(&self, what: &str) -> String {
        format!("{what} {:?} {:?}, dropout {:?}", self.element, self.sizes, self.dropout.is_some())
    }

    fn forward(&self, tile: Tile) -> Case {
        let Drawn { x, w, a, b, scale, .. } = self;
        let (xd, none) = (self.dropped(x), map(w, |_, _| 0.0));
        let operands = self.operands(&[x, w, a, b], scale, &[]);
        let sizes = [x.dims[0] * w.dims[1], x.dims[0] * a.dims[1]].map(|n| n * self.element.bytes());
        let plan = lora(&self.linear(tile, 5), [true; 2]);
        let adapter = |of: &dyn Fn(&Array) -> Array| {
            call("graft.Lora", &[&of(&xd), &none, &of(a), &of(b), &of(scale)], 2)
        };
        let base = |of: &dyn Fn(&Array) -> Array| {
            call("graft.Lora", &[&of(x), &of(w), &map(a, |_, _| 0.0), b, scale], 1).remove(0)
        };
        let [exact, terms] = [&Array::clone as &dyn Fn(&Array) -> Array, &magnitudes].map(|of| {
            let mut results = adapter(of);
            results[0] = add(&results[0], &base(of));
            results
        });
        let mut rounded = adapter(&magnitudes);
        // h itself is rounded once only.
        rounded[1] = map(&rounded[1], |_, _| 0.0);
        let expected = expected(
            self.sizes,
            self.element,
            [("y", self.element), ("h", self.element)],
            [exact, rounded, terms],
        );
        Case {
            what: self.describe("lora"),
            job: Job { plan, operands, results: sizes.to_vec(), ..Job::default() },
            expected,
        }
    }

    fn backward(&self, tile: Tile) -> Case {
        let Drawn { x, w, a, b, scale, dy, h, .. } = self;
        let (xd, none) = (self.dropped(x), map(w, |_, _| 0.0));
        let operands = self.operands(&[dy, x, w, a, b], scale, &[h]);
        let sizes = vec![x.len() * self.element.bytes(), 4 * a.len(), 4 * b.len()];
        let plan = lora_grad(&self.linear(tile, 7), [true; 3]);
        let adapter = |of: &dyn Fn(&Array) -> Array| {
            let mut results =
                call("graft.LoraGrad", &[&of(dy), &of(&xd), &none, &of(a), &of(b), &of(scale), &of(h)], 3);
            results[0] = self.dropped(&results[0]);
            results
        };
        let base = |of: &dyn Fn(&Array) -> Array| {
            call("graft.LoraGrad", &[&of(dy), x, &of(w), &map(a, |_, _| 0.0), b, scale, h], 1).remove(0)
        };
        let [exact, terms] = [&Array::clone as &dyn Fn(&Array) -> Array, &magnitudes].map(|of| {
            let mut results = adapter(of);
            results[0] = add(&results[0], &base(of));
            results
        });
        let results = [("dx", self.element), ("da", Element::F32), ("db", Element::F32)];
        let mut rounded = adapter(&magnitudes);
        // Nothing that db is made of is rounded before it.
        rounded[2] = map(&rounded[2], |_, _| 0.0);
        let expected = expected(self.sizes, self.element, results, [exact, rounded, terms]);
        Case {
            what: self.describe("lora_grad"),
            job: Job { plan, operands, results: sizes, ..Job::default() },
            expected,
        }
    }

    /// The operands' bytes, the counters of dropout last.
    fn operands(&self, given: &[&Array], scale: &Array, saved: &[&Array]) -> Vec<Vec<u8>> {
        let mut operands: Vec<_> = given.iter().map(|a| bytes(self.element, a)).collect();
        operands.push(bytes(Element::F32, scale));
        operands.extend(saved.iter().map(|a| bytes(self.element, a)));
        let counters = COUNTERS.map(u64::cast_signed).to_vec();
        operands.push(bytes(self.element, &Array::int(DType::Int64, vec![2], counters)));
        operands
    }
}

/// The tensor whose draws dropout takes.
const TENSOR: u32 = 3;
