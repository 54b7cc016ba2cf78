//! Cases of Bone's kernels.
use crate::{
    convert::{bytes, rounded},
    program::{Case, draw_sizes, expected},
    reference::{call_with, draw, magnitudes, map},
};
use graft_emulate::Job;
use graft_ir::{Array, Attr};
use graft_kernels::{
    bone::cuda::{bone, bone_grad},
    cuda::{Element, Linear, Sizes, Tile},
};

/// The forward and the backward call for one draw of sizes and values.
pub(crate) fn cases(element: Element, tile: Tile, seed: u64, rank: usize, among: &[usize]) -> Vec<Case> {
    let mut sizes = draw_sizes(seed + 100, rank, among);
    sizes.n_in = sizes.n_in.max(sizes.rank);
    let Sizes { tokens, n_in, n_out, rank } = sizes;
    let of = |dims: &[usize], tensor: u64| rounded(element, draw(dims, seed, tensor));
    let (x, w, d) = (of(&[tokens, n_in], 20), of(&[n_in, n_out], 21), of(&[rank, n_out], 22));
    let (dy, s) = (of(&[tokens, n_out], 23), of(&[tokens, rank], 24));
    let drawn = Drawn { sizes, element, tile };
    vec![drawn.forward([&x, &w, &d]), drawn.backward([&dy, &x, &w, &d, &s])]
}

struct Drawn {
    sizes: Sizes,
    element: Element,
    tile: Tile,
}

impl Drawn {
    fn linear(&self) -> Linear {
        Linear::new(self.sizes, self.element, self.tile)
    }

    /// The function's results for operands as they are, for magnitudes without the base weight, and for magnitudes.
    fn results(&self, op: &str, operands: &[&Array], w: usize) -> [Vec<Array>; 3] {
        let Sizes { n_in, rank, .. } = self.sizes;
        let pad = n_in.next_multiple_of(rank) - n_in;
        let attrs = [
            ("pads", Attr::Ints(vec![0, 0, 0, pad as i64])),
            ("blocks", Attr::Ints(vec![0, -1, rank as i64])),
        ];
        let all: Vec<Array> = operands.iter().map(|a| magnitudes(a)).collect();
        let mut adapter = all.clone();
        adapter[w] = map(&all[w], |_, _| 0.0);
        let call = |operands: Vec<&Array>| call_with(op, &attrs, &operands, 2);
        [call(operands.to_vec()), call(adapter.iter().collect()), call(all.iter().collect())]
    }

    fn case(
        &self,
        what: &str,
        job: Job,
        results: [(&'static str, Element); 2],
        arrays: [Vec<Array>; 3],
    ) -> Case {
        let [exact, mut rounded, terms] = arrays;
        // The second result is made of operands only.
        rounded[1] = map(&rounded[1], |_, _| 0.0);
        let what = format!("{what} {:?} {:?}", self.element, self.sizes);
        Case { what, job, expected: expected(self.sizes, self.element, results, [exact, rounded, terms]) }
    }

    fn bytes(&self, arrays: &[&Array]) -> Vec<Vec<u8>> {
        arrays.iter().map(|a| bytes(self.element, a)).collect()
    }

    fn forward(&self, operands: [&Array; 3]) -> Case {
        let Sizes { tokens, n_out, rank, .. } = self.sizes;
        let results = [n_out, rank].map(|n| tokens * n * self.element.bytes()).to_vec();
        let plan = bone(&self.linear(), [true; 2]);
        let job = Job { plan, operands: self.bytes(&operands), results, ..Job::default() };
        let arrays = self.results("graft.Bone", &operands, 1);
        self.case("bone", job, [("y", self.element), ("s", self.element)], arrays)
    }

    fn backward(&self, operands: [&Array; 5]) -> Case {
        let Sizes { tokens, n_in, n_out, rank } = self.sizes;
        let results = vec![tokens * n_in * self.element.bytes(), 4 * rank * n_out];
        let plan = bone_grad(&self.linear(), [true; 2]);
        let job = Job { plan, operands: self.bytes(&operands), results, ..Job::default() };
        let arrays = self.results("graft.BoneGrad", &operands, 2);
        self.case("bone_grad", job, [("dx", self.element), ("dd", Element::F32)], arrays)
    }
}
