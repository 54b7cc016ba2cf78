//! What plans say of their costs: `kernels/ROOFLINE.md`, which `BLESS=1` writes, and the study's figures.
use graft_ir::{DType, Node};
use graft_kernels::{
    Chain, Source,
    cuda::{Call, Plan, Shape, Site, Target, Traffic, together},
    row_major,
};
use std::{fmt::Write, fs, path::Path};

/// Tokens, inputs and outputs.
const SIZES: [usize; 3] = [8192, 4096, 4096];
const HEADS: usize = 4;

/// A tensor: its sizes, and whether it stays `float`.
type Tensor = (Vec<usize>, bool);

/// Megabytes of a kernel for each op and of those that are fused, which the study behind the kernels expects.
type Study = Option<(u32, u32)>;

/// An adapted linear: what its function takes after x and w, which of these are trained, what it saves, and what the study
/// says of both passes.
struct Method {
    function: &'static str,
    rank: usize,
    operands: Vec<Tensor>,
    trained: &'static [usize],
    saved: Vec<Tensor>,
    study: [Study; 2],
}

fn wide(dims: &[usize]) -> Tensor {
    (dims.to_vec(), false)
}

fn float(dims: &[usize]) -> Tensor {
    (dims.to_vec(), true)
}

/// What is saved of a projection to so many columns.
fn h(cols: usize) -> Tensor {
    wide(&[SIZES[0], cols])
}

/// LoRA and what has its projections.
fn projected() -> Vec<Method> {
    let [tokens, n_in, n_out] = SIZES;
    let of = |function, others: &[Tensor], trained, saved| {
        let pair = [wide(&[n_in, 16]), wide(&[16, n_out])];
        let operands = [&pair, others, &[float(&[])]].concat();
        Method { function, rank: 16, operands, trained, saved, study: [None; 2] }
    };
    let (gates, square) = (float(&[16]), wide(&[16, 16]));
    let lora = of("graft.Lora", &[], &[0, 1], vec![h(16)]);
    let saved = vec![h(16), wide(&[tokens, n_out]), float(&[n_out])];
    vec![
        Method { study: [Some((638, 236)), Some((941, 304))], ..lora },
        of("graft.Dora", &[float(&[n_out])], &[0, 1, 2], saved),
        of("graft.AdaLora", &[float(&[1, 16])], &[0, 1, 2], vec![h(16)]),
        of("graft.Tri", &[square.clone(), square], &[0, 1, 2, 3], vec![h(16), h(16)]),
        of("graft.Salora", &[gates.clone(), gates.clone()], &[0, 1, 2], vec![h(16), gates.clone(), gates]),
        Method {
            function: "graft.Hydra",
            rank: 8,
            operands: vec![wide(&[n_in, 8]), wide(&[HEADS, 8, n_out]), wide(&[n_in, HEADS]), float(&[])],
            trained: &[0, 1, 2],
            saved: vec![h(8), float(&[tokens, HEADS])],
            study: [Some((1914, 236)), Some((1913, 304))],
        },
    ]
}

/// Bone and Bat, which have one weight.
fn folded() -> Vec<Method> {
    let [tokens, n_in, n_out] = SIZES;
    let of = |function, rank, d: &[usize], saved, study| Method {
        function,
        rank,
        operands: vec![wide(d)],
        trained: &[0],
        saved,
        study,
    };
    let (bone, col) = ([Some((506, 238)), Some((574, 239))], [Some((437, 235)), Some((470, 336))]);
    let u = wide(&[n_out / 16, tokens, 16]);
    vec![
        of("graft.Bone", 64, &[64, n_out], vec![h(64)], bone),
        of("graft.BoneMini", 64, &[64, 64], vec![h(64)], [None; 2]),
        of("graft.BatCol", 16, &[n_out / 16, 16, 16], vec![], col),
        of("graft.BatRow", 16, &[n_in / 16, 16, 16], vec![], [None; 2]),
        of("graft.BatLeft", 16, &[n_out / 16, 16, 16], vec![u], [None; 2]),
    ]
}

/// The adapted linears of the table.
fn methods() -> impl Iterator<Item = Method> {
    projected().into_iter().chain(folded())
}

/// The launches of a function in bf16.
fn plan(function: &str, operands: &[Tensor], results: &[Tensor]) -> Plan {
    let strides: Vec<_> = operands.iter().chain(results).map(|(dims, _)| row_major(dims)).collect();
    let shapes = operands.iter().chain(results).zip(&strides).map(|((dims, is_float), strides)| {
        let dtype = if *is_float { DType::Float } else { DType::Bfloat16 };
        Some(Shape { dtype, dims, strides, known: None })
    });
    let mut inputs: Vec<_> = shapes.collect();
    let outputs = inputs.split_off(operands.len());
    let node = Node::new(function, &[], &[]);
    let kernel = graft_kernels::all().find(|k| k.name == function).expect("the function has a kernel");
    let site = Site::new((&node, 1), inputs, outputs, Target::default());
    kernel.device.plan(&site).unwrap_or_else(|| panic!("{function} is not served"))
}

impl Method {
    /// The launches forward and backward.
    fn plans(&self) -> [Plan; 2] {
        let [tokens, n_in, n_out] = SIZES;
        let [x, w, y] = [[tokens, n_in], [n_in, n_out], [tokens, n_out]].map(|dims| (dims.to_vec(), false));
        let operands = [&[x.clone(), w][..], &self.operands].concat();
        let results = [&[y.clone()][..], &self.saved].concat();
        let gradients = self.trained.iter().map(|&i| (self.operands[i].0.clone(), true));
        let backward = [&[y][..], &operands, &self.saved].concat();
        let gradients: Vec<_> = [x].into_iter().chain(gradients).collect();
        let name = format!("{}Grad", self.function);
        [plan(self.function, &operands, &results), plan(&name, &backward, &gradients)]
    }
}

/// The calls of a plan on the same operand `x`, and on others of their own: as one.
fn in_one_step(plan: &Plan, n: usize, x: usize) -> Plan {
    // More than a function has.
    let many = 16;
    let number = |call: usize, i: usize| if i == x { x } else { call * many + i };
    let operands: Vec<Vec<usize>> = (0..n).map(|call| (0..many).map(|i| number(call, i)).collect()).collect();
    let calls = operands.iter().enumerate();
    let calls: Vec<Call<'_>> =
        calls.map(|(call, operands)| Call { plan, operands, results: call * many }).collect();
    together(&calls).expect("a launch serves them all")
}

/// The same in a step for each.
fn in_own_steps(plan: &Plan, n: usize) -> Plan {
    let launches = (0..n).flat_map(|_| plan.launches.clone()).collect();
    Plan { launches, workspace: plan.workspace }
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Of both passes of a method.
fn both(function: &str) -> Traffic {
    let method = methods().find(|m| m.function == function).expect("a method of the table");
    let [forward, backward] = method.plans().map(|plan| plan.traffic());
    forward + backward
}

/// What a linear moves, forward or backward, in elements: each operand and result once.
fn dense() -> usize {
    let [tokens, n_in, n_out] = SIZES;
    tokens * n_in + n_in * n_out + tokens * n_out
}

/// Bytes of a LoRA forward of a kernel for each op: base, x·a, h·b, the product with the scale, and the sum.
fn unfused_lora(rank: usize) -> usize {
    let [tokens, n_in, n_out] = SIZES;
    let (down, up) =
        (tokens * n_in + n_in * rank + tokens * rank, tokens * rank + rank * n_out + tokens * n_out);
    2 * (dense() + down + up + 5 * tokens * n_out)
}

/// Bytes of a Hydra of a kernel for each op: forward x·a and x·router, and for each head h·b, the product with its
/// probabilities and the sum; backward for each head dy∘p and both products with it, the products of the projection's and
/// the router's gradients with their sums, and those of a and router.
fn unfused_hydra(rank: usize) -> usize {
    let [tokens, n_in, n_out] = SIZES;
    let (x, y) = (tokens * n_in, tokens * n_out);
    let down = x + (n_in + tokens) * (rank + HEADS) + x;
    let forward = dense() + down + HEADS * (tokens * rank + rank * n_out + y + 2 * y + 3 * y);
    let backward = dense() + HEADS * (2 * y + y + y) + 2 * (x + 3 * x) + 2 * x;
    2 * (forward + backward)
}

/// 8192 tokens, 4096 × 4096, rank 16, in bf16: forward 236 MB and backward 304 MB are what a reading and a writing of
/// everything once takes; the partial sums of the weights' gradients come on top.
#[test]
fn lora_moves_what_it_must() {
    let cost = both("graft.Lora");
    assert!((megabytes(cost.ideal) - 540.0).abs() < 54.0, "{} MB", megabytes(cost.ideal));
    let overhead = cost.flops as f64 / (2.0 * 2.0 * SIZES.iter().product::<usize>() as f64);
    assert!((1.0..1.02).contains(&overhead), "{overhead} of the dense products' operations");
    assert_eq!(unfused_lora(16) / 1_000_000, 638);
}

/// Four heads of rank 8 move hardly more, for nothing of the size tokens × heads × out is made.
#[test]
fn hydra_moves_what_lora_does() {
    let cost = both("graft.Hydra");
    assert!((megabytes(cost.ideal) - 540.0).abs() < 54.0, "{} MB", megabytes(cost.ideal));
    let unfused = unfused_hydra(8) as f64 / 1e6;
    assert!((unfused - 3827.0).abs() < 38.0, "{unfused} MB unfused");
}

/// LoRA's forward with a bias and a GELU behind it, the bias' sum being stored for the gradient: apart and together.
fn activated() -> [Plan; 2] {
    let (dims, strides, dtype) = ([SIZES[0], SIZES[2]], [SIZES[2], 1], DType::Bfloat16);
    let lora = methods().find(|m| m.function == "graft.Lora").expect("a method of the table");
    let [forward, _] = lora.plans();
    let bias = Shape { dtype, dims: &dims[1..], strides: &strides[1..], known: None };
    let tail = |chain: &mut Chain<'_>, y: Source, bias: usize| {
        let sum = chain.op("plus({0}, {1})", &[y, Source::Input(bias)], dtype);
        [sum, chain.op("gelu({0})", &[Source::Made(sum)], dtype)]
    };
    let mut own = Chain::new(&dims);
    let y = Source::Input(own.input(Shape { dtype, dims: &dims, strides: &strides, known: None }, 5));
    let x = own.input(bias, 6);
    let stored = tail(&mut own, y, x);
    let own = own.plan(&stored, Target::default()).expect("a kernel of its own");
    let mut epilogue = Chain::new(&dims);
    let y = Source::Made(epilogue.product(dtype));
    let x = epilogue.input(bias, 5);
    let [sum, z] = tail(&mut epilogue, y, x);
    let together = epilogue.follow(&forward, 0, &[(sum, 2), (z, 3)]).expect("an epilogue");
    let apart = Plan { launches: [forward.launches, own.launches].concat(), ..forward };
    [apart, together]
}

/// What the product makes is neither written nor read again.
#[test]
fn an_epilogue_saves_what_lies_between() {
    let [apart, together] = activated().map(|plan| plan.traffic());
    let between = 2 * (SIZES[0] * SIZES[2] * 2) as u64;
    assert_eq!(apart.ideal - together.ideal, between);
    assert_eq!(apart.flops, together.flops);
}

/// q, k and v of one x in one step read it once where they project it, and once for the gradients of these projections;
/// what each does by itself it does as before.
#[test]
fn what_several_calls_project_is_read_once() {
    let [tokens, n_in, _] = SIZES;
    let method = methods().find(|m| m.function == "graft.Lora").expect("a method of the table");
    for (x, plan) in method.plans().iter().enumerate() {
        let [apart, together] = [in_own_steps(plan, 3), in_one_step(plan, 3, x)];
        assert_eq!(apart.launches.len() - together.launches.len(), 2);
        let [apart, together] = [apart.traffic(), together.traffic()];
        let twice = (2 * tokens * n_in * 2) as u64;
        assert_eq!([apart.ideal - together.ideal, apart.issued - together.issued], [twice; 2]);
        assert_eq!(apart.flops, together.flops);
    }
}

/// What parts the table's head from its lines.
const RULE: &str = "|---|---|---|---|---|---|---|---|---|\n";

/// Of these the table has q, k and v of one x.
const THREE_TIMES: [&str; 2] = ["graft.Lora", "graft.Hydra"];

/// The table's lines.
fn table() -> String {
    let mut lines = String::new();
    for method in methods() {
        let passes = ["forward", "backward"].into_iter().zip(method.plans()).zip(method.study);
        for ((pass, plan), study) in passes {
            line(&mut lines, (method.function, method.rank, pass), &plan, study);
        }
    }
    for method in methods().filter(|m| THREE_TIMES.contains(&m.function)) {
        for (x, (pass, plan)) in ["forward", "backward"].into_iter().zip(method.plans()).enumerate() {
            for (how, plan) in [("apart", in_own_steps(&plan, 3)), ("together", in_one_step(&plan, 3, x))] {
                let what = format!("3 × {}, {how}", method.function);
                line(&mut lines, (&what, method.rank, pass), &plan, None);
            }
        }
    }
    for (how, plan) in ["+Add+Gelu, apart", "+Add+Gelu"].into_iter().zip(activated()) {
        line(&mut lines, (&format!("graft.Lora{how}"), 16, "forward"), &plan, None);
    }
    lines
}

/// One line of the table.
fn line(lines: &mut String, (what, rank, pass): (&str, usize, &str), plan: &Plan, study: Study) {
    let Traffic { flops, ideal, issued } = plan.traffic();
    let (launches, gflop) = (plan.launches.len(), flops as f64 / 1e9);
    let (ideal, issued) = (megabytes(ideal), megabytes(issued));
    let study = study.map_or("– | –".into(), |(unfused, fused)| format!("{unfused} | {fused}"));
    let costs = format!("{launches} | {gflop:.1} | {ideal:.0} | {issued:.0} | {study}");
    writeln!(lines, "| {what} | {rank} | {pass} | {costs} |").expect("a string can be written to");
}

#[test]
fn the_table_of_costs_is_what_the_plans_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels/ROOFLINE.md");
    let text = fs::read_to_string(&path).expect("the table is there");
    let (head, rest) = text.split_once(RULE).expect("it has a head");
    let tail = rest.split_once("\n\n").map_or("", |(_, tail)| tail);
    let expected = format!("{head}{RULE}{}\n{tail}", table());
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &expected).expect("the table is written");
    }
    assert!(
        text == expected || std::env::var_os("BLESS").is_some(),
        "not as the plans say (BLESS=1 writes it)"
    );
}
