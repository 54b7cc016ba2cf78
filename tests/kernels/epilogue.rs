//! Element-wise steps as a product's epilogue, beside the same steps as a kernel of their own: the same bits, in every order
//! of threads, interpreted from NVRTC's PTX and on a GPU; and faults planted in what hands the tiles over.
use crate::{
    device::{Machines, skip},
    draw::Draw,
    gpu,
};
use graft_emulate::{Edit, Job, Sanitizer, Toolchain};
use graft_ir::{Array, DType, Node};
use graft_kernels::{
    Chain, Source,
    cuda::{Plan, Shape, Site, TILES, Target},
    row_major,
};
use graft_ptx::Schedule;
use std::path::Path;

/// A tensor in device memory.
#[derive(Clone, Debug)]
struct Tensor {
    dtype: DType,
    dims: Vec<usize>,
    strides: Vec<usize>,
    bytes: Vec<u8>,
}

impl Tensor {
    fn drawn(dtype: DType, dims: &[usize], draw: &mut Draw) -> Tensor {
        let array = Array { dtype, ..draw.floats(dims, -1.0, 1.0) };
        let bytes = array.to_tensor().expect("floats").data().to_vec();
        Tensor { dtype, dims: dims.into(), strides: row_major(dims), bytes }
    }
    /// The same memory, seen with the last two axes exchanged.
    fn turned(mut self) -> Tensor {
        let n = self.dims.len();
        self.dims.swap(n - 2, n - 1);
        self.strides.swap(n - 2, n - 1);
        self
    }
    fn shape(&self) -> Shape<'_> {
        Shape { dtype: self.dtype, dims: &self.dims, strides: &self.strides, known: None }
    }
}

/// A call whose first result a large product makes.
struct Product {
    function: &'static str,
    operands: Vec<Tensor>,
    /// Of results the sizes; they are of the operands' type, or of single precision where the table says so.
    results: Vec<(DType, Vec<usize>)>,
    plan: Plan,
}

/// The functions whose plans take epilogues: sizes of operands and of results.
fn call(function: &str, draw: &mut Draw, largest: usize) -> [Vec<Vec<usize>>; 2] {
    let mut size = || draw.pick(&[1, 7, 24, 64, 65, 72, 130, 136]).min(largest);
    let (t, i, o) = (size(), size(), size());
    let r = draw.pick(&[1, 8, 16]).min(i).min(o);
    let (x, w, a, b, y) = (vec![t, i], vec![i, o], vec![i, r], vec![r, o], vec![t, o]);
    let (h, scale) = (vec![t, r], vec![]);
    match function {
        "graft.Lora" => [vec![x, w, a, b, scale], vec![y, h]],
        "graft.LoraGrad" => [vec![y, x.clone(), w, a.clone(), b.clone(), scale, h], vec![x, a, b]],
        "graft.Dora" => [vec![x, w, a, b, vec![o], scale], vec![y.clone(), h, y, vec![o]]],
        "graft.Bone" => [vec![x, w, b], vec![y, h]],
        "graft.BoneMini" => [vec![x, w, a.iter().map(|_| r).collect()], vec![y, h]],
        "Gemm" => [vec![x, w, vec![o]], vec![y]],
        _ => [vec![vec![3, t, i], vec![3, i, o]], vec![vec![3, t, o]]],
    }
}

const FUNCTIONS: &[&str] =
    &["graft.Lora", "graft.LoraGrad", "graft.Dora", "graft.Bone", "graft.BoneMini", "Gemm", "MatMul"];

impl Product {
    fn drawn(
        function: &'static str,
        element: DType,
        draw: &mut Draw,
        (largest, target): (usize, Target),
    ) -> Product {
        let kernel = graft_kernels::all().find(|k| k.name == function).expect("a row of the table");
        let [operands, results] = call(function, draw, largest);
        let (reads, makes) = kernel.device.single;
        let of = |is_single: bool| if is_single { DType::Float } else { element };
        let operands = operands.iter().enumerate();
        let operands: Vec<Tensor> =
            operands.map(|(i, dims)| Tensor::drawn(of(reads.contains(i)), dims, draw)).collect();
        let results: Vec<(DType, Vec<usize>)> =
            results.into_iter().enumerate().map(|(o, dims)| (of(makes.contains(o)), dims)).collect();
        let strides: Vec<_> = results.iter().map(|(_, dims)| row_major(dims)).collect();
        let outputs = results.iter().zip(&strides);
        let outputs =
            outputs.map(|((dtype, dims), strides)| Some(Shape { dtype: *dtype, dims, strides, known: None }));
        let inputs = operands.iter().map(|tensor| Some(tensor.shape())).collect();
        let node = Node::new(function, &[], &[]);
        let site = Site::new((&node, 18), inputs, outputs.collect(), target);
        let plan = kernel.device.plan(&site).unwrap_or_else(|| panic!("{function} is not served"));
        Product { function, operands, results, plan }
    }
    /// The product by itself, or with what becomes of it.
    fn job(&self, plan: Plan, more: &[Tensor], stored: &[(DType, usize)]) -> Job {
        let len = |(dtype, dims): &(DType, Vec<usize>)| dims.iter().product::<usize>() * dtype.bits() / 8;
        let own = self.results.iter().map(len);
        Job {
            plan,
            operands: self.operands.iter().chain(more).map(|tensor| tensor.bytes.clone()).collect(),
            results: own.chain(stored.iter().map(|(dtype, n)| n * dtype.bits() / 8)).collect(),
            in_place: Vec::new(),
        }
    }
}

/// What an op of a tail reads.
#[derive(Clone, Copy, PartialEq)]
enum Read {
    /// The op before it; the product, if it is the first one.
    Last,
    /// The product itself.
    Product,
    /// An element for each column.
    Bias,
    /// One for each row, of single precision.
    Gate,
    /// One for each element.
    Residual,
    /// One for each element, of single precision, along columns in memory.
    Turned,
    /// One for each element of a half of the rows, or of all if they are odd.
    Position,
}

/// Steps behind a product: texts, what they read, and whether their results are stored. The last one's always are.
struct Tail {
    what: &'static str,
    ops: &'static [(&'static str, &'static [Read], bool)],
    /// Whether the product's own result is stored, too.
    is_kept: bool,
}

const ADD: &str = "plus({0}, {1})";

const TAILS: &[Tail] = &[
    Tail { what: "bias", ops: &[(ADD, &[Read::Last, Read::Bias], true)], is_kept: false },
    Tail {
        what: "bias and gelu, both stored",
        ops: &[(ADD, &[Read::Last, Read::Bias], true), ("gelu({0})", &[Read::Last], true)],
        is_kept: false,
    },
    Tail { what: "residual", ops: &[(ADD, &[Read::Residual, Read::Last], true)], is_kept: true },
    Tail {
        what: "bias, silu, gate and residual",
        ops: &[
            (ADD, &[Read::Last, Read::Bias], false),
            ("{0} * sigmoid({0})", &[Read::Last], false),
            ("times({0}, {1})", &[Read::Gate, Read::Last], true),
            (ADD, &[Read::Last, Read::Turned], false),
            (ADD, &[Read::Last, Read::Product], true),
        ],
        is_kept: true,
    },
    Tail {
        what: "positions, and relu",
        ops: &[(ADD, &[Read::Position, Read::Last], false), ("{0} < 0.f ? 0.f : {0}", &[Read::Last], true)],
        is_kept: false,
    },
];

/// The bytes of a job's results, or what is wrong with it.
type Made = Result<Vec<Vec<u8>>, String>;

/// A product and its tail.
struct Case {
    product: Product,
    tail: &'static Tail,
    /// The sizes in which the tail sees the product's result.
    dims: Vec<usize>,
    /// What the tail reads besides, in this order.
    reads: Vec<(Read, Tensor)>,
}

impl Case {
    fn new(product: Product, tail: &'static Tail, draw: &mut Draw) -> Case {
        let (element, dims) = product.results[0].clone();
        let (cols, rows) = (dims[dims.len() - 1], dims.iter().rev().skip(1).product::<usize>());
        let parts = if rows.is_multiple_of(2) { 2 } else { 1 };
        // Columns, too, may be seen along two axes.
        let across = if cols.is_multiple_of(3) { vec![3, cols / 3] } else { vec![cols] };
        let dims = [&[parts, rows / parts], across.as_slice()].concat();
        let ones = vec![1; across.len()];
        let mut reads: Vec<(Read, Tensor)> = Vec::new();
        for &read in tail.ops.iter().flat_map(|(_, reads, _)| *reads) {
            let tensor = match read {
                Read::Last | Read::Product => continue,
                Read::Bias => Tensor::drawn(element, &across, draw),
                Read::Gate => Tensor::drawn(DType::Float, &[&dims[..2], &ones].concat(), draw),
                Read::Residual => Tensor::drawn(element, &dims, draw),
                Read::Turned => {
                    let mut dims = dims.clone();
                    let n = dims.len();
                    dims.swap(n - 2, n - 1);
                    Tensor::drawn(DType::Float, &dims, draw).turned()
                }
                Read::Position => Tensor::drawn(element, &dims[1..], draw),
            };
            reads.push((read, tensor));
        }
        Case { product, tail, dims, reads }
    }
    fn more(&self) -> Vec<Tensor> {
        self.reads.iter().map(|(_, tensor)| tensor.clone()).collect()
    }
    /// The tail behind what `product` is, with operands from `first` on: the ops that are stored.
    fn write<'a>(&'a self, chain: &mut Chain<'a>, product: Source, first: usize) -> Vec<usize> {
        let inputs: Vec<usize> = self
            .reads
            .iter()
            .enumerate()
            .map(|(i, (_, tensor))| chain.input(tensor.shape(), first + i))
            .collect();
        let (mut last, mut stored) = (product, Vec::new());
        for (text, reads, is_stored) in self.tail.ops {
            let source = |read: &Read| match read {
                Read::Last => last,
                Read::Product => product,
                read => {
                    let at = self.reads.iter().position(|(other, _)| other == read).expect("an operand");
                    Source::Input(inputs[at])
                }
            };
            let sources: Vec<Source> = reads.iter().map(source).collect();
            let op = chain.op(text, &sources, self.product.results[0].0);
            stored.extend(is_stored.then_some(op));
            last = Source::Made(op);
        }
        stored
    }
    /// One job: the tail as an epilogue.
    fn together(&self) -> Job {
        let (operands, results) = (self.product.operands.len(), self.product.results.len());
        let element = self.product.results[0].0;
        let mut chain = Chain::new(&self.dims);
        let product = chain.product(element);
        let stored = self.write(&mut chain, Source::Made(product), operands);
        let own = self.tail.is_kept.then_some((product, 0));
        let others = stored.iter().enumerate().map(|(i, &op)| (op, results + i));
        let plan = chain.follow(&self.product.plan, 0, &own.into_iter().chain(others).collect::<Vec<_>>());
        let plan = plan.unwrap_or_else(|| panic!("{}: no epilogue", self.described()));
        assert_eq!(plan.launches.len(), self.product.plan.launches.len());
        let n = self.dims.iter().product::<usize>();
        self.product.job(plan, &self.more(), &vec![(element, n); stored.len()])
    }
    /// The results of two jobs, one after the other, in the same order: `run` does a job.
    fn apart(&self, run: &mut dyn FnMut(&Job) -> Made) -> Made {
        let mut made = run(&self.product.job(self.product.plan.clone(), &[], &[]))?;
        let (dtype, element) = (self.product.results[0].0, self.product.results[0].0.bits() / 8);
        let (mut chain, strides) = (Chain::new(&self.dims), row_major(&self.dims));
        let shape = Shape { dtype, dims: &self.dims, strides: &strides, known: None };
        let product = Source::Input(chain.input(shape, 0));
        let stored = self.write(&mut chain, product, 1);
        let plan = chain.plan(&stored, Target::default()).expect("a kernel");
        let operands =
            [made[0].clone()].into_iter().chain(self.more().into_iter().map(|t| t.bytes)).collect();
        let results = vec![self.dims.iter().product::<usize>() * element; stored.len()];
        made.extend(run(&Job { plan, operands, results, in_place: Vec::new() })?);
        Ok(made)
    }
    fn described(&self) -> String {
        let Product { function, operands, .. } = &self.product;
        let sizes: Vec<_> = operands.iter().map(|tensor| &tensor.dims).collect();
        format!("{function} {sizes:?} and {} of {:?}", self.tail.what, self.dims)
    }
    /// What is wrong with the epilogue's results.
    fn judge(&self, together: &[Vec<u8>], apart: &[Vec<u8>]) -> Result<(), String> {
        let differs = |i: &usize| (*i > 0 || self.tail.is_kept) && together[*i] != apart[*i];
        match (0..apart.len()).find(differs) {
            Some(i) => Err(format!("other bits of result {i}: {}", self.described())),
            None => Ok(()),
        }
    }
    fn check(&self, machines: &mut Machines, schedule: Option<Schedule>) -> Result<(), String> {
        let described = |e: String| format!("{e}: {}", self.described());
        let job = self.together();
        // Floats of any type, none of which is NaN.
        let dtypes = vec![DType::Int32; job.results.len()];
        let together = machines.run(&job, &dtypes, schedule).map_err(described)?;
        let apart = self.apart(&mut |job| machines.once(job))?;
        self.judge(&together, &apart)
    }
}

/// Every function with every tail, of this type, with sizes up to `largest`.
fn cases(element: DType, seed: u64, largest: usize, target: Target) -> impl Iterator<Item = Case> {
    FUNCTIONS.iter().enumerate().flat_map(move |(f, function)| {
        TAILS.iter().enumerate().map(move |(t, tail)| {
            let mut draw = Draw::new(seed * 1000 + (f * TAILS.len() + t) as u64, largest);
            let product = Product::drawn(function, element, &mut draw, (largest, target));
            Case::new(product, tail, &mut draw)
        })
    })
}

/// All cases in a sweep, else one in `n`, with functions and tails of all kinds among them.
fn some(n: usize, cases: impl Iterator<Item = Case>) -> impl Iterator<Item = Case> {
    cases.step_by(if crate::is_sweep() { 1 } else { n })
}

#[test]
fn epilogues_have_the_bits_of_kernels_of_their_own() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let Some(machines) = Machines::find(folder, Sanitizer::None) else { return };
    let mut machines = machines.with_interpreter(folder);
    let [small, large] = [0, 1].map(|i| Target { tile: Some(TILES[i]), ..Target::default() });
    let kinds = [
        (DType::Bfloat16, small, 6),
        (DType::Bfloat16, large, 13),
        (DType::Float16, small, 17),
        (DType::Float, small, 9),
    ];
    for (element, target, n) in kinds {
        for (i, case) in some(n, cases(element, 1, 200, target)).enumerate() {
            let schedule = i.is_multiple_of(2).then(|| Schedule::ALL[i / 2 % 3]);
            case.check(&mut machines, schedule).unwrap_or_else(|e| panic!("{e}"));
        }
    }
}

#[test]
fn sanitizers_find_nothing_in_epilogues() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for (sanitizer, largest) in [(Sanitizer::Address, 136), (Sanitizer::Thread, 72)] {
        let Some(mut machines) = Machines::find(folder, sanitizer) else { return };
        for element in [DType::Bfloat16, DType::Float] {
            for case in some(19, cases(element, 2, largest, Target::default())) {
                case.check(&mut machines, None).unwrap_or_else(|e| panic!("{e}"));
            }
        }
    }
}

/// A fault, the function whose epilogue finds it, what watches, and words of what is said.
type Fault = (&'static str, [&'static str; 2], (&'static str, Sanitizer, &'static str));

const FAULTS: &[Fault] = &[
    (
        "no barrier between the panels' last use and the tile",
        ["    sync_block();  // No thread reads the panels any more.\n", ""],
        ("graft.Bone", Sanitizer::Thread, "data race"),
    ),
    (
        "no barrier between the tile's writing and its reading",
        ["    sync_block();\n    finish_tile", "    finish_tile"],
        ("graft.Bone", Sanitizer::Thread, "data race"),
    ),
    (
        "no barrier between the tile's writing and its reading",
        ["    sync_block();\n    finish_tile", "    finish_tile"],
        ("graft.Bone", Sanitizer::None, "other bits"),
    ),
    (
        "an epilogue one row too far",
        [
            "each([&](auto& of, int row, int col, i64 i) { of = epilogue.load(i, first + m + row",
            "each([&](auto& of, int row, int col, i64 i) { of = epilogue.load(i + cols, first + m + row + 1",
        ],
        ("graft.Bone", Sanitizer::Address, "heap-buffer-overflow"),
    ),
    (
        "an epilogue of rows that are not there",
        ["if (row < tile.rows && col < tile.cols) f(", "if (col < tile.cols) f("],
        ("graft.Bone", Sanitizer::None, "behind the end"),
    ),
    (
        "the products of a batch not told apart",
        ["const i64 first = static_cast<i64>(blockIdx.z) * op.c.rows;", "const i64 first = 0;"],
        ("MatMul", Sanitizer::None, "other bits"),
    ),
    (
        "elements that no thread comes to",
        ["begin += AT_ONCE * T::THREADS", "begin += 2 * AT_ONCE * T::THREADS"],
        ("graft.Bone", Sanitizer::None, "other bits"),
    ),
];

#[test]
fn every_planted_fault_is_found() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulate");
    let mut missed = Vec::new();
    for (what, [from, to], (function, sanitizer, says)) in FAULTS {
        let Some(toolchain) = Toolchain::find(&folder, *sanitizer) else {
            return skip("no C++ compiler for x86-64 Linux: no faults are planted");
        };
        let edits = vec![Edit { file: "gemm/extended.cuh", from, to }];
        let mut machines = Machines::of(Toolchain { edits, ..toolchain });
        let wanted = |case: &Case| case.product.function == *function && case.tail.what == "residual";
        let drawn = (3..6).flat_map(|seed| cases(DType::Bfloat16, seed, 136, Target::default()));
        let found = drawn.filter(wanted).find_map(|case| case.check(&mut machines, None).err());
        if !found.as_ref().is_some_and(|said| said.contains(says)) {
            missed.push(format!("{what} ({sanitizer:?}): {found:?}"));
        }
    }
    assert!(missed.is_empty(), "\n{}", missed.join("\n"));
}

#[test]
fn epilogues_on_a_gpu() {
    let Some(mut gpu) = gpu::device("epilogue::epilogues_on_a_gpu") else { return };
    let step = if gpu.is_emulated() { 17 } else { 1 };
    for element in [DType::Bfloat16, DType::Float16, DType::Float] {
        for case in cases(element, 4, 136, gpu.target()).step_by(step) {
            let mut run = |job: &Job| {
                let made = gpu.prepare([&job.plan]).and_then(|()| gpu::run(&gpu, job));
                made.map_err(|e| e.to_string())
            };
            let together = run(&case.together());
            let judged = together.and_then(|together| case.judge(&together, &case.apart(&mut run)?));
            judged.unwrap_or_else(|e| panic!("{e}"));
        }
    }
}
