//! The elementary functions of `math.cuh` against the CPU's kernels: over their whole range and where they end; those of `quick.cuh` but for
//! what 16 bits do not show.
use crate::{
    convert::{decode, encode},
    program::toolchain,
};
use graft_emulate::{Emulator, Job, Sanitizer};
use graft_ir::{DType, Node};
use graft_kernels::{
    Call, Memory, Operand, Threads, View, ViewMut, all,
    cuda::{Argument, Buffer, Element, Launch, Module, Plan, Traffic},
};

/// A function of the sources, the op that it is, and by how much it may differ from the CPU's.
struct Function {
    expression: &'static str,
    op: &'static str,
    may: Differ,
    n: usize,
}

/// By how much results may differ.
enum Differ {
    /// By so many units in the last place: the CPU takes those with a 1 from the platform's library.
    Units(u64),
    /// Relative to the result, and to the first operand of two, with which a derivative is multiplied.
    Relative(f64, f64),
}

impl Differ {
    fn allows(&self, found: f64, expected: f64, factor: f64) -> bool {
        match *self {
            Differ::Units(n) => apart(found, expected) <= n,
            // The CPU's Φ is a sum with 1, whose last place is 1e-16.
            Differ::Relative(own, of_factor) => {
                let allowed = own * expected.abs() + of_factor * factor.abs() + 1e-14;
                // An infinite factor times what only rounding makes no zero says nothing.
                apart(found, expected) == 0
                    || (of_factor > 0.0 && factor.is_infinite())
                    || (found - expected).abs() <= allowed
            }
        }
    }
}

const fn function(expression: &'static str, op: &'static str, units: u64, n: usize) -> Function {
    Function { expression, op, may: Differ::Units(units), n }
}

/// One of `quick.cuh`, of one operand or, a derivative, of two.
const fn quick(expression: &'static str, op: &'static str, n: usize) -> Function {
    let of_factor = if n == 1 { 0.0 } else { 1.0 / 1_048_576.0 };
    Function { expression, op, may: Differ::Relative(1.0 / 32_768.0, of_factor), n }
}

const FUNCTIONS: &[Function] = &[
    function("exp(a)", "Exp", 0, 1),
    function("sigmoid(a)", "Sigmoid", 0, 1),
    function("silu(a)", "graft.Silu", 0, 1),
    function("tanh(a)", "Tanh", 0, 1),
    function("erf(a)", "Erf", 0, 1),
    function("gelu(a)", "graft.Gelu", 0, 1),
    function("gelu_tanh(a)", "graft.GeluTanh", 0, 1),
    function("gelu_grad(a, b)", "graft.GeluGrad", 0, 2),
    function("gelu_tanh_grad(a, b)", "graft.GeluTanhGrad", 0, 2),
    function("sqrt(a)", "Sqrt", 0, 1),
    function("log(a)", "Log", 1, 1),
    function("softplus(a)", "Softplus", 1, 1),
    function("sin(a)", "Sin", 1, 1),
    function("cos(a)", "Cos", 1, 1),
    function("pow(a, b)", "Pow", 1, 2),
    quick("quick::sigmoid(a)", "Sigmoid", 1),
    quick("quick::silu(a)", "graft.Silu", 1),
    quick("quick::tanh(a)", "Tanh", 1),
    quick("quick::gelu(a)", "graft.Gelu", 1),
    quick("quick::gelu_tanh(a)", "graft.GeluTanh", 1),
    quick("quick::gelu_grad(a, b)", "graft.GeluGrad", 2),
    quick("quick::gelu_tanh_grad(a, b)", "graft.GeluTanhGrad", 2),
];

/// Where functions end, change their formula or have no value.
const SPECIAL: [f32; 26] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    2.0,
    3.0,
    -3.0,
    0.5,
    -2.5,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    f32::MAX,
    f32::MIN,
    f32::MIN_POSITIVE,
    1e-45,
    -1e-40,
    88.8,
    -87.5,
    -103.5,
    0.02,
    16_777_216.0,
    16_777_217.0,
    65_535.9,
    -1.0e22,
    0.707_106_77,
];

/// Two lists of operands: all pairs of special ones, then numbers over the whole range of exponents and the usual one.
fn operands() -> [Vec<f64>; 2] {
    let pairs = SPECIAL.iter().flat_map(|&a| SPECIAL.iter().map(move |&b| (a, b)));
    let drawn = (0..6000u64).map(|i| {
        let [a, b] = [0, 1].map(|tensor| graft_ir::random::bits(5, 0, tensor, i));
        let near = |bits: u32| (f64::from(bits) / f64::from(u32::MAX) - 0.5) as f32 * 24.0;
        if i % 3 == 0 { (f32::from_bits(a), f32::from_bits(b)) } else { (near(a), near(b)) }
    });
    let both: Vec<_> = pairs.chain(drawn).collect();
    [both.iter().map(|p| f64::from(p.0)).collect(), both.iter().map(|p| f64::from(p.1)).collect()]
}

/// What the CPU's kernel makes of the operands.
fn on_cpu(function: &Function, operands: &[Vec<u8>]) -> Vec<f64> {
    let kernel = all().find(|k| k.name == function.op).expect("an op that has a kernel");
    let len = operands[0].len();
    let (dims, node) = ([len / 4], Node::new(function.op, &[], &[]));
    let memory = operands.iter().map(|bytes| {
        let mut memory = Memory::zeroed(len);
        memory.bytes_mut()[..len].copy_from_slice(bytes);
        memory
    });
    let (memory, mut out) = (memory.collect::<Vec<_>>(), Memory::zeroed(len));
    let view = |m| Operand::View(View { dtype: DType::Float, dims: &dims, strides: &[1], data: m });
    let result = ViewMut { dtype: DType::Float, dims: &dims, data: &mut out.bytes_mut()[..len] };
    let mut call = Call {
        node: &node,
        opset: 18,
        inputs: memory[..function.n].iter().map(|m| view(m.bytes())).collect(),
        outputs: vec![Some(result)],
        scratch: &mut [],
        threads: Threads::ONE,
    };
    (kernel.run)(&mut call).expect("the kernel runs");
    drop(call);
    decode(Element::F32, &out.bytes()[..len])
}

/// A kernel for each function, in one module.
fn module() -> Module {
    let kernels = FUNCTIONS.iter().enumerate().map(|(i, f)| {
        format!(
            "extern \"C\" __global__ void k{i}(const float* x, const float* y, float* z, int n) {{\n  const int i = \
             blockIdx.x * 256 + threadIdx.x;\n  if (i >= n) return;\n  [[maybe_unused]] const float a = x[i], b = \
             y[i];\n  z[i] = graft::{};\n}}\n",
            f.expression
        )
    });
    Module::generated(format!(
        "#include \"cuda/quick.cuh\"\nusing namespace graft;\n{}",
        kernels.collect::<String>()
    ))
}

/// The steps from one number to the other; none between two NaNs.
fn apart(a: f64, b: f64) -> u64 {
    let place = |x: f64| {
        let magnitude = i64::from((x as f32).to_bits() & 0x7fff_ffff);
        if x.is_sign_negative() { -magnitude - 1 } else { magnitude }
    };
    if a.is_nan() && b.is_nan() { 0 } else { place(a).abs_diff(place(b)) }
}

const NAMES: [&str; 22] = [
    "k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9", "k10", "k11", "k12", "k13", "k14", "k15",
    "k16", "k17", "k18", "k19", "k20", "k21",
];

#[test]
fn functions_are_the_cpus() {
    let Some(toolchain) = toolchain(Sanitizer::None, &[]) else { return };
    let mut emulator = Emulator::start(toolchain).unwrap_or_else(|e| panic!("{e}"));
    let (operands, module) = (operands(), module());
    let (n, bytes) = (operands[0].len(), operands.each_ref().map(|x| encode(Element::F32, x)).to_vec());
    for (function, kernel) in FUNCTIONS.iter().zip(NAMES) {
        let buffers = [Buffer::Operand(0), Buffer::Operand(1), Buffer::Result(0)].map(Argument::Buffer);
        let launch = Launch {
            kernel,
            module: module.clone(),
            grid: [n.div_ceil(256), 1, 1],
            block: 256,
            shared: 0,
            arguments: buffers.into_iter().chain([Argument::Int(n as i32)]).collect(),
            library: None,
            traffic: Traffic::default(),
            tiled: None,
            stack: None,
        };
        let plan = Plan { launches: vec![launch], workspace: 0 };
        let job = Job { plan, operands: bytes.clone(), results: vec![4 * n], in_place: Vec::new() };
        let outcome = emulator.run(&job, 0, 1).unwrap_or_else(|e| panic!("{}: {e}", function.op));
        let (found, expected) = (decode(Element::F32, &outcome.results[0]), on_cpu(function, &bytes));
        for (i, (&found, expected)) in found.iter().zip(expected).enumerate() {
            let (a, b) = (operands[0][i], operands[1][i]);
            let op = function.op;
            assert!(
                function.may.allows(found, expected, a),
                "{op} ({a:e}, {b:e}): {found:e}, not {expected:e}, by {}",
                function.expression
            );
        }
    }
}
