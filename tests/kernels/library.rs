//! Products that plans leave to a library: what they say is done by plain loops and judged like a kernel's results, and, where
//! there is a GPU and cuBLASLt, by the library itself.
use crate::{
    adapters::rounded,
    case::{Bound, Case},
    device::{How, Machines, Prepared, skip},
    draw::Draw,
    gpu, row,
};
use graft_emulate::{Edit, Job, Sanitizer, Toolchain};
use graft_ir::{Array, Attr, DType, Node};
use graft_kernels::{
    Kernel,
    cuda::{Argument, Buffer, Element, Gpu, Library, LibraryProduct, Matrix, Plan, Shape, Site, Target},
    row_major,
};
use graft_ptx::Schedule;
use half::{bf16, f16};
use std::path::Path;

const DTYPES: [DType; 3] = [DType::Float, DType::Bfloat16, DType::Float16];

/// Where a library does all products that it serves.
fn target(of: Target) -> Target {
    Target { library: Library::Always, ..of }
}

/// The numbers of a buffer.
fn decode(element: Element, bytes: &[u8]) -> Vec<f64> {
    let halves = || bytes.as_chunks::<2>().0.iter();
    match element {
        Element::Bf16 => halves().map(|&b| bf16::from_ne_bytes(b).to_f64()).collect(),
        Element::F16 => halves().map(|&b| f16::from_ne_bytes(b).to_f64()).collect(),
        Element::F32 => bytes.as_chunks::<4>().0.iter().map(|&b| f64::from(f32::from_ne_bytes(b))).collect(),
    }
}

fn encode(element: Element, x: f64) -> Vec<u8> {
    match element {
        Element::Bf16 => bf16::from_f64(x).to_ne_bytes().to_vec(),
        Element::F16 => f16::from_f64(x).to_ne_bytes().to_vec(),
        Element::F32 => (x as f32).to_ne_bytes().to_vec(),
    }
}

/// The numbers of a factor with so many rows and columns, from where it lies, row after row of the product's.
fn factor(job: &Job, element: Element, matrix: Matrix, [rows, cols]: [usize; 2]) -> Vec<f64> {
    let (buffer, at) = job.place(matrix.memory).expect("a factor lies somewhere");
    let numbers = decode(element, &job.buffers()[buffer][at..]);
    let place =
        |i: usize, j: usize| if matrix.is_turned { j * matrix.stride + i } else { i * matrix.stride + j };
    (0..rows).flat_map(|i| (0..cols).map(move |j| (i, j))).map(|(i, j)| numbers[place(i, j)]).collect()
}

/// What a product means, from operands into the only result, whose rows have no gaps.
fn computed(job: &Job, product: &LibraryProduct) -> Vec<u8> {
    let LibraryProduct { element, sizes: [m, n, k], left, right, result, alpha } = *product;
    assert_eq!((result.memory, result.stride, result.is_turned), (Buffer::Result(0), n, false));
    let (left, right) = (factor(job, element, left, [m, k]), factor(job, element, right, [k, n]));
    let element_of = |i: usize, j: usize| {
        let sum: f64 = (0..k).map(|l| left[i * k + l] * right[l * n + j]).sum();
        encode(element, f64::from(alpha) * sum)
    };
    (0..m).flat_map(|i| (0..n).map(move |j| (i, j))).flat_map(|(i, j)| element_of(i, j)).collect()
}

fn kernel(name: &str) -> &'static Kernel {
    graft_kernels::all().find(|k| k.name == name).expect("the op has a kernel")
}

/// A product that the library may be given: a MatMul with one factor for a batch, or a Gemm, all sizes being multiples of 8.
fn case(d: &mut Draw, largest: usize) -> (&'static str, Case) {
    let [m, n, k] = [0; 3].map(|_| 8 * (1 + d.below(largest / 8)));
    let bound = Bound::Terms(k as f64 + 4.0);
    let floats = |d: &mut Draw, dims: &[usize]| -> Array { d.floats(dims, -1.0, 1.0) };
    if d.flip() {
        let batch = d.pick(&[&[][..], &[3], &[2, 2]]);
        let a = floats(d, &[batch, &[m, k]].concat());
        return ("MatMul", Case::new(bound, [a, floats(d, &[k, n])]));
    }
    let [turn_a, turn_b] = [d.flip(), d.flip()];
    let a = floats(d, &if turn_a { [k, m] } else { [m, k] });
    let b = floats(d, &if turn_b { [n, k] } else { [k, n] });
    let alpha = Attr::Float(d.pick(&[1.0, -0.5, 1.5]));
    let case = Case::new(bound, [a, b]).int("transA", i64::from(turn_a)).int("transB", i64::from(turn_b));
    ("Gemm", case.attr("alpha", alpha))
}

/// So many cases with this element type whose only launch a library may do.
fn prepared(dtype: DType, of: Target, (n, largest): (u64, usize)) -> Vec<Prepared> {
    let one = |seed: u64| {
        let mut draw = Draw::new(seed, largest);
        let (op, case) = case(&mut draw, largest);
        let how = How { target: target(of), ..How::narrowed(dtype) };
        let prepared = Prepared::of(kernel(op), (rounded(case, dtype), how), &mut draw);
        let prepared = prepared.expect("the case can be laid out").expect("the device serves it");
        // Operands are strided now and then; with rows that begin anywhere they are left to the kernel.
        (prepared.job.plan.launches.len() == 1 && prepared.job.plan.uses_library()).then_some(prepared)
    };
    let served: Vec<_> = (0..n).filter_map(one).collect();
    assert!(served.len() as u64 > n / 3, "a library serves {} of {n} cases only", served.len());
    served
}

#[test]
fn products_for_a_library_mean_what_ops_do() {
    for dtype in DTYPES {
        for prepared in prepared(dtype, Target::default(), (24, 40)) {
            let product = prepared.job.plan.launches[0].library.expect("a library serves it");
            prepared.judge(Ok(vec![computed(&prepared.job, &product)])).unwrap_or_else(|e| panic!("{e}"));
        }
    }
}

#[test]
fn what_a_library_does_not_serve_is_left_to_kernels() {
    let uses = |op: &str, case: Case, library| {
        let how = How { target: Target { library, ..Target::default() }, ..How::narrowed(DType::Bfloat16) };
        let prepared = Prepared::of(kernel(op), (case, how), &mut Draw::new(3, 64));
        prepared.expect("it can be laid out").expect("the device serves it").job.plan.uses_library()
    };
    let mut d = Draw::new(0, 64);
    let mut floats = |dims: &[usize]| d.floats(dims, -1.0, 1.0);
    let bound = Bound::Terms(8.0);
    let gemm = |a: Array, b: Array| Case::new(bound, [a, b]).opset(13);
    let plain = gemm(floats(&[16, 24]), floats(&[24, 8]));
    assert!(uses("Gemm", plain.clone(), Library::Always));
    // Nobody has measured it, or there is no library.
    assert!(!uses("Gemm", plain.clone(), Library::Measured) && !uses("Gemm", plain, Library::Absent));
    // Rows that begin at odd places, a bias, a batch of pairs of matrices.
    assert!(!uses("Gemm", gemm(floats(&[16, 24]), floats(&[24, 9])), Library::Always));
    let biased = Case::new(bound, [floats(&[16, 24]), floats(&[24, 8]), floats(&[8])]).opset(13);
    assert!(!uses("Gemm", biased, Library::Always));
    assert!(!uses("MatMul", Case::new(bound, [floats(&[2, 8, 8]), floats(&[2, 8, 8])]), Library::Always));
}

/// The product that the arguments of a kernel of `linear.cu` are for.
fn linear(arguments: &[Argument], element: Element, is_turned: bool) -> LibraryProduct {
    let [
        Argument::Buffer(from),
        Argument::Buffer(w),
        Argument::Buffer(Buffer::Null),
        Argument::Buffer(to),
        sizes @ ..,
    ] = arguments
    else {
        panic!("{arguments:?} are no arguments of a linear without repeated columns")
    };
    let [tokens, n_in, n_out] = [0, 1, 2].map(|i| match sizes[i] {
        Argument::Int(n) => n as usize,
        _ => panic!("{sizes:?} are no sizes"),
    });
    let (n, k) = if is_turned { (n_in, n_out) } else { (n_out, n_in) };
    let right = Matrix { is_turned, ..Matrix::new(*w, n_out) };
    let (left, result) = (Matrix::new(*from, k), Matrix::new(*to, n));
    LibraryProduct { element, sizes: [tokens, n, k], left, right, result, alpha: 1.0 }
}

#[test]
fn the_products_of_linears_are_what_their_kernels_are_told() {
    let mut found = 0;
    for (op, seed) in
        ["graft.BatCol", "graft.BatColGrad"].into_iter().flat_map(|op| (0..20).map(move |i| (op, i)))
    {
        let (mut draw, kernel) = (Draw::new(seed, 64), kernel(op));
        let (_, generate) = row(kernel).expect("the kernel has a generator");
        let how = How { target: target(Target::default()), ..How::narrowed(DType::Bfloat16) };
        let prepared = Prepared::of(kernel, (rounded(generate(&mut draw), DType::Bfloat16), how), &mut draw);
        let Some(prepared) = prepared.expect("the case can be laid out") else { continue };
        for launch in prepared.job.plan.launches.iter().filter(|launch| launch.library.is_some()) {
            let is_turned = launch.kernel == "linear_input_grad";
            assert_eq!(launch.library, Some(linear(&launch.arguments, Element::Bf16, is_turned)));
            found += 1;
        }
    }
    assert!(found > 0, "no linear was left to a library");
}

/// The product that the arguments of `matmul` are for.
fn matmul(arguments: &[Argument], element: Element, turned: [bool; 2]) -> LibraryProduct {
    use Argument::{Float, Int, Long};
    let [
        Argument::Buffer(left),
        Long(of_left),
        Argument::Buffer(right),
        Long(of_right),
        Argument::Buffer(to),
        Int(m),
        Int(n),
        Int(k),
        Float(alpha),
        Argument::Buffer(Buffer::Null),
        ..,
    ] = arguments
    else {
        panic!("{arguments:?} are no arguments of a product that nothing is added to")
    };
    let factor = |memory: &Buffer, stride: &i64, is_turned| Matrix {
        is_turned,
        ..Matrix::new(*memory, *stride as usize)
    };
    let (left, right) = (factor(left, of_left, turned[0]), factor(right, of_right, turned[1]));
    let sizes = [m, n, k].map(|&n| n as usize);
    LibraryProduct { element, sizes, left, right, result: Matrix::new(*to, sizes[1]), alpha: *alpha }
}

/// Cases of LoRA for which a library does the large product, and how many of them are asked for.
fn adapted(dtype: DType, of: Target, largest: usize, seeds: u64) -> Vec<Prepared> {
    let mut found = Vec::new();
    for (op, seed) in
        ["graft.Lora", "graft.LoraGrad"].into_iter().flat_map(|op| (0..seeds).map(move |i| (op, i)))
    {
        let (mut draw, kernel) = (Draw::new(seed, largest), kernel(op));
        let case = rounded(lora(&mut draw, largest, op == "graft.LoraGrad"), dtype);
        let how = How { target: target(of), ..How::narrowed(dtype) };
        let prepared = Prepared::of(kernel, (case, how), &mut draw).expect("the case can be laid out");
        found.extend(prepared.filter(|prepared| prepared.job.plan.uses_library()));
    }
    assert!(found.len() as u64 > seeds / 2, "a library serves {} cases only", found.len());
    found
}

/// A `graft.Lora`, or its gradient, whose inputs and outputs are multiples of 8.
fn lora(d: &mut Draw, largest: usize, is_gradient: bool) -> Case {
    let [n_in, n_out] = [0; 2].map(|_| 8 * (1 + d.below(largest / 8)));
    let (tokens, rank) = (1 + d.below(largest), 1 + d.below(20));
    let sizes = [[tokens, n_in], [n_in, n_out], [n_in, rank], [rank, n_out]];
    let mut operands: Vec<Array> = sizes.iter().map(|dims| d.floats(dims, -1.0, 1.0)).collect();
    operands.push(d.floats(&[], -2.0, 2.0));
    if is_gradient {
        operands.insert(0, d.floats(&[tokens, n_out], -1.0, 1.0));
        operands.push(d.floats(&[tokens, rank], -1.0, 1.0));
    }
    let largest = [tokens, n_in, n_out, rank].into_iter().max().unwrap_or(1);
    Case::new(Bound::Terms(largest as f64 + 16.0), operands).results(if is_gradient { 3 } else { 2 })
}

#[test]
fn beside_one_another_the_factors_of_an_adapter_make_one_product() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let Some(mut machines) = Machines::find(folder, Sanitizer::None) else { return };
    machines = machines.with_interpreter(folder);
    for dtype in DTYPES {
        for (i, prepared) in adapted(dtype, Target::default(), 136, 4).iter().enumerate() {
            // The kernel in the library's place computes what the library is told to.
            let launches = prepared.job.plan.launches.iter();
            let (launch, product) = launches
                .filter_map(|launch| Some((launch, launch.library?)))
                .next()
                .expect("one product is left to a library");
            let turned = [product.left.is_turned, product.right.is_turned];
            assert_eq!(product, matmul(&launch.arguments, product.element, turned));
            let wanted = [true, turned[1]].map(|along| if along { "K" } else { "MN" });
            let macros =
                |name: &str| launch.module.defines.iter().find(|(n, _)| *n == name).map(|(_, v)| &v[..]);
            assert_eq!(["GRAFT_A", "GRAFT_B"].map(macros), wanted.map(Some));
            let schedule = (i % 3 == 0).then_some(Schedule::ALL[i % Schedule::ALL.len()]);
            prepared.check(&mut machines, schedule).unwrap_or_else(|e| panic!("{dtype:?}: {e}"));
        }
    }
}

/// Faults in the passes beside x and dy, each of which a case has to find.
const FAULTS: &[(&str, &str)] = &[
    ("beside.copy<RankTile::THREADS>(panel, row, k);", "(void)panel, (void)row, (void)k;"),
    ("beside.copy<Shape::THREADS>(panel, token, col);", "(void)panel, (void)token, (void)col;"),
    ("copied.stride = behind.stride = cols + PADDED_RANK;", "copied.stride = behind.stride = cols;"),
    ("col < rank ? sum * s : 0.f", "col < rank ? sum : 0.f"),
    ("col < dq.cols ? sum * scale : 0.f", "col < dq.cols ? sum : 0.f"),
    ("if (h) store_tile", "if (!h) store_tile"),
    (
        "  store_tile<RankTile>(sums, op.beside.behind",
        "  if (m > 0) store_tile<RankTile>(sums, op.beside.behind",
    ),
];

#[test]
fn faults_beside_one_another_are_found() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulate");
    let cases = adapted(DType::Float, Target::default(), 136, 4);
    let mut missed = Vec::new();
    for &(from, to) in FAULTS {
        let Some(toolchain) = Toolchain::find(&folder, Sanitizer::None) else { return };
        let edits = vec![Edit { file: "lora/beside.cu", from, to }];
        let mut machines = Machines::of(Toolchain { edits, ..toolchain });
        let is_found = cases.iter().any(|case| {
            let wrong = case.check(&mut machines, None).is_err();
            if wrong {
                machines.restart();
            }
            wrong
        });
        if !is_found {
            missed.push(to);
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}

/// What a `graft.Lora` launches, of 16 tokens, 24 inputs, 32 outputs and rank 8.
fn planned(library: Library, frozen: &[usize]) -> Plan {
    let dims: [&[usize]; 7] = [&[16, 24], &[24, 32], &[24, 8], &[8, 32], &[], &[16, 32], &[16, 8]];
    let strides = dims.map(row_major);
    let shapes = dims
        .iter()
        .zip(&strides)
        .map(|(dims, strides)| Some(Shape { dtype: DType::Float, dims, strides, known: None }));
    let mut inputs: Vec<_> = shapes.collect();
    let outputs = inputs.split_off(5);
    let (node, target) = (Node::new("graft.Lora", &[], &[]), Target { library, ..Target::default() });
    let site = Site::new((&node, 1), inputs, outputs, target).with_frozen(frozen.to_vec());
    kernel("graft.Lora").device.plan(&site).expect("the device serves it")
}

#[test]
fn without_a_library_and_with_weights_that_change_adapters_keep_their_kernels() {
    let plan = planned(Library::Always, &[1]);
    assert!(plan.uses_library() && plan.frames().len() == 1);
    // The frame is there instead of the weight.
    assert!(!plan.reads(1) && plan.reads(0));
    for plan in [planned(Library::Absent, &[1]), planned(Library::Always, &[])] {
        assert!(!plan.uses_library() && plan.frames().is_empty() && plan.reads(1));
    }
}

/// A GPU with cuBLASLt; none, and said so, without them.
fn with_library(test: &str) -> Option<Gpu> {
    let found = Gpu::open().and_then(|mut gpu| gpu.find_library().map(|()| gpu));
    found.map_err(|e| skip(&format!("{test}: needs a GPU with cuBLASLt: {}", e.message))).ok()
}

#[test]
#[expect(clippy::print_stderr, reason = "figures of a run")]
fn the_library_computes_what_ops_mean_and_the_same_bits_again() {
    let Some(mut gpu) = with_library("the_library_computes_what_ops_mean") else { return };
    let mut n = 0;
    for dtype in DTYPES {
        let adapted = adapted(dtype, gpu.target(), 520, 12);
        gpu.prepare(adapted.iter().map(|prepared| &prepared.job.plan)).unwrap_or_else(|e| panic!("{e}"));
        for prepared in prepared(dtype, gpu.target(), (60, 520)).into_iter().chain(adapted) {
            let made = gpu::run(&gpu, &prepared.job).unwrap_or_else(|e| panic!("{e}"));
            let again = gpu::run(&gpu, &prepared.job).unwrap_or_else(|e| panic!("{e}"));
            assert!(made == again, "other bits the second time");
            prepared.judge(Ok(made)).unwrap_or_else(|e| panic!("{dtype:?}: {e}"));
            n += 1;
        }
    }
    eprintln!("{n} products by cuBLASLt on {}", gpu.name());
}
