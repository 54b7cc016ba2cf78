//! Chains of element-wise ops, generated from their texts: as a kernel of their own here, as what follows a large product in
//! `epilogue.rs`.
use crate::cuda::{
    Argument::{self, Buffer as At, Long},
    Buffer, Launch, Module, Plan, Shape, Target, Traffic,
};
use graft_ir::DType;
use std::{fmt::Write, ops::Range};

/// Where an op of a chain finds an operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// In memory: the operand of the chain with this number.
    Input(usize),
    /// In a register: the result of the chain's op with this number.
    Made(usize),
}

/// Element-wise ops whose results have the same sizes.
#[derive(Debug, Default)]
pub struct Chain<'a> {
    pub(super) dims: Vec<usize>,
    /// What lies in memory, and the numbers under which launches find it.
    pub(super) inputs: Vec<Shape<'a>>,
    operands: Vec<usize>,
    /// Each op's line of code and the type of its result.
    pub(super) ops: Vec<(String, DType)>,
}

/// What a chain's code is put together from.
pub(super) struct Code {
    /// Declarations of parameters, and the arguments that they take.
    pub(super) parameters: Vec<(String, Argument)>,
    /// Lines that say where along each axis an element lies.
    pub(super) coordinates: String,
    /// Each operand's type, and where its element lies.
    pub(super) operands: Vec<(&'static str, String)>,
    /// Lines that compute every op's result from the operands' values `x0`, `x1`, ….
    pub(super) ops: String,
    /// Lines that store results at element `i`.
    pub(super) stores: String,
}

/// Names of indices, and the axes that each runs over.
pub(super) type Indices = Vec<(&'static str, Range<usize>)>;

/// Neighbouring axes that are joined: the number of the first one, and their elements.
type Axis = (usize, usize);

/// The threads of a block.
const THREADS: usize = 256;

/// Blocks for each multiprocessor, at most: threads of fewer blocks go on with further elements.
const BLOCKS: usize = 16;

impl<'a> Chain<'a> {
    /// A chain whose results have these sizes.
    pub fn new(dims: &[usize]) -> Chain<'a> {
        Chain { dims: dims.into(), ..Chain::default() }
    }
    /// Adds an operand that lies in memory, where launches find it as `operand`, and says its number in the chain.
    pub fn input(&mut self, shape: Shape<'a>, operand: usize) -> usize {
        self.inputs.push(shape);
        self.operands.push(operand);
        self.inputs.len() - 1
    }
    /// Adds an op by its text, its operands and the type of its result, and says its number.
    pub fn op(&mut self, text: &str, operands: &[Source], result: DType) -> usize {
        let mut line = text.to_string();
        for (i, source) in operands.iter().enumerate() {
            let name = match source {
                Source::Input(n) => format!("x{n}"),
                Source::Made(n) => format!("y{n}"),
            };
            line = line.replace(&format!("{{{i}}}"), &name);
        }
        self.ops.push((line, result));
        self.ops.len() - 1
    }
    /// The launch that computes the results of the ops with these numbers, which are the plan's results in this order;
    /// `None` if an element's type has no name in CUDA C++, or an operand does not broadcast to the results.
    pub fn plan(&self, results: &[usize], target: Target) -> Option<Plan> {
        let n = self.len();
        if n == 0 {
            return Some(Plan::default());
        }
        let results: Vec<(usize, usize)> = results.iter().enumerate().map(|(to, &op)| (op, to)).collect();
        let mut code = self.code(&results, &[("i", 0..self.dims.len())])?;
        code.parameters.push(("i64 n".into(), Long(n as i64)));
        let grid = [n.div_ceil(THREADS).min(BLOCKS * target.multiprocessors), 1, 1];
        let arguments = code.parameters.iter().map(|(_, argument)| *argument).collect();
        let launch = Launch {
            block: THREADS,
            shared: 0,
            traffic: self.traffic(&results),
            ..Launch::new("map", Module::generated(code.kernel()), grid, arguments)
        };
        Some(Plan { launches: vec![launch], workspace: 0 })
    }
    /// The elements of each result.
    pub(super) fn len(&self) -> usize {
        self.dims.iter().product()
    }
    /// What it costs to compute all ops and to store the `results`, pairs of op and place.
    pub(super) fn traffic(&self, results: &[(usize, usize)]) -> Traffic {
        let n = self.len();
        let bytes = |dtype: DType, n: usize| (n * dtype.bits() / 8) as u64;
        let read: u64 = self.inputs.iter().map(|s| bytes(s.dtype, crate::extent(s.dims, s.strides))).sum();
        let issued: u64 = self.inputs.iter().map(|s| bytes(s.dtype, n)).sum();
        let written: u64 = results.iter().map(|&(op, _)| bytes(self.ops[op].1, n)).sum();
        Traffic { flops: (n * self.ops.len()) as u64, ideal: read + written, issued: issued + written }
    }
    /// The code that computes all ops for the element that `indices` tell, which share the chain's axes among them, and
    /// stores the `results`: pairs of an op and the number of the launch's result.
    pub(super) fn code(
        &self,
        results: &[(usize, usize)],
        indices: &[(&'static str, Range<usize>)],
    ) -> Option<Code> {
        let starts: Vec<usize> = indices.iter().map(|(_, axes)| axes.start).collect();
        let (dims, strides) = self.axes(&starts)?;
        let ways: Vec<Way> = strides.iter().map(|s| Way::of(s)).collect();
        let (mut parameters, mut ops, mut stores) = (Vec::new(), String::new(), String::new());
        for (i, (shape, &operand)) in self.inputs.iter().zip(&self.operands).enumerate() {
            let declared = format!("const {}* p{i}", kind(shape.dtype)?);
            parameters.push((declared, At(Buffer::Operand(operand))));
        }
        for (i, &(op, to)) in results.iter().enumerate() {
            let kind = kind(self.ops[op].1)?;
            parameters.push((format!("{kind}* q{i}"), At(Buffer::Result(to))));
            let _ = writeln!(stores, "    q{i}[i] = element<{kind}>(y{op});");
        }
        for (k, (text, dtype)) in self.ops.iter().enumerate() {
            let text = if has_quick_form(text, *dtype) { format!("quick::{text}") } else { text.clone() };
            let _ = writeln!(ops, "    const auto y{k} = value(element<{}>({text}));", kind(*dtype)?);
        }
        let mut coordinates = String::new();
        if ways.contains(&Way::Strided) {
            for (index, axes) in joined(&dims, indices) {
                coordinates += &along(index, axes.clone());
                let sizes = axes.skip(1).map(|axis| (format!("i64 d{axis}"), Long(dims[axis].1 as i64)));
                parameters.extend(sizes);
            }
        }
        let mut operands = Vec::new();
        for (i, ((shape, strides), way)) in self.inputs.iter().zip(&strides).zip(&ways).enumerate() {
            operands.push((kind(shape.dtype)?, way.place(i, strides.len())));
            if *way == Way::Strided {
                let named = strides.iter().enumerate();
                parameters.extend(named.map(|(axis, &s)| (format!("i64 s{i}_{axis}"), Long(s as i64))));
            }
        }
        Some(Code { parameters, coordinates, operands, ops, stores })
    }
    /// The axes of the results, as few as will do, and each operand's strides along them. No axis is joined with the one before it where one of `starts` is its number.
    fn axes(&self, starts: &[usize]) -> Option<(Vec<Axis>, Vec<Vec<usize>>)> {
        let rank = self.dims.len();
        let spread = |s: &Shape<'_>| -> Option<Vec<usize>> {
            let missing = rank.checked_sub(s.dims.len())?;
            let own = s.dims.iter().zip(s.strides).map(|(&d, &stride)| if d == 1 { 0 } else { stride });
            Some(std::iter::repeat_n(0, missing).chain(own).collect())
        };
        let spread: Vec<Vec<usize>> = self.inputs.iter().map(spread).collect::<Option<_>>()?;
        let (mut dims, mut kept) = (Vec::<Axis>::new(), vec![Vec::new(); spread.len()]);
        for axis in (0..rank).filter(|&axis| self.dims[axis] != 1) {
            let d = self.dims[axis];
            let is_apart = |&(first, _): &Axis| starts.iter().any(|s| (first + 1..=axis).contains(s));
            let joins =
                |(s, kept): (&Vec<usize>, &Vec<usize>)| kept.last().is_some_and(|&k| k == s[axis] * d);
            if !dims.last().is_none_or(is_apart) && spread.iter().zip(&kept).all(joins) {
                dims.last_mut().map(|(_, last)| *last *= d)?;
                kept.iter_mut().zip(&spread).for_each(|(k, s)| *k.last_mut().expect("an axis") = s[axis]);
            } else {
                dims.push((axis, d));
                kept.iter_mut().zip(&spread).for_each(|(k, s)| k.push(s[axis]));
            }
        }
        // Operands that take all elements in order may join axes that others keep apart.
        let orders = crate::row_major(&dims.iter().map(|&(_, d)| d).collect::<Vec<_>>());
        kept.iter_mut().filter(|k| **k == orders).for_each(|k| *k = vec![1]);
        Some((dims, kept))
    }
}

/// The same indices over axes that were joined.
fn joined(dims: &[Axis], indices: &[(&'static str, Range<usize>)]) -> Indices {
    let place = |axis: usize| dims.partition_point(|&(first, _)| first < axis);
    indices.iter().map(|(index, axes)| (*index, place(axes.start)..place(axes.end))).collect()
}

/// The functions of `quick.cuh`.
const QUICK: &[&str] = &["gelu", "gelu_grad", "gelu_tanh", "gelu_tanh_grad", "sigmoid", "silu", "tanh"];

/// Whether an op is a function whose result of this type does not show how it is computed.
fn has_quick_form(text: &str, result: DType) -> bool {
    let function = text.split('(').next().unwrap_or_default();
    matches!(result, DType::Bfloat16 | DType::Float16) && QUICK.contains(&function)
}

/// The lines that make coordinates along `axes` of an index over them.
fn along(index: &str, axes: Range<usize>) -> String {
    let (mut lines, first) = (String::new(), axes.start);
    if axes.is_empty() {
        return lines;
    }
    let _ = writeln!(lines, "    i64 rest{first} = {index};");
    for axis in axes.skip(1).rev() {
        let _ = writeln!(lines, "    const i64 r{axis} = divide(rest{first}, d{axis});");
        let _ = write!(
            lines,
            "    const i64 c{axis} = rest{first} - r{axis} * d{axis};\n    rest{first} = r{axis};\n"
        );
    }
    let _ = writeln!(lines, "    const i64 c{first} = rest{first};");
    lines
}

impl Code {
    /// A kernel by itself.
    fn kernel(&self) -> String {
        let declared: Vec<&str> = self.parameters.iter().map(|(declared, _)| declared.as_str()).collect();
        let mut body = self.coordinates.clone();
        for (i, (_, place)) in self.operands.iter().enumerate() {
            let _ = writeln!(body, "    const auto x{i} = value(p{i}[{place}]);");
        }
        // Within the namespace, so that `exp` is ours and not the compiler's.
        format!(
            "#include \"elementwise/elementwise.cuh\"\n\nnamespace graft {{\nextern \"C\" __global__ void \
             __launch_bounds__({THREADS})\nmap({}) {{\n  for (i64 i = blockIdx.x * {THREADS}ll + threadIdx.x; i < n; i += \
             gridDim.x * {THREADS}ll) {{\n{body}{}{}  }}\n}}\n}}\n",
            declared.join(", "),
            self.ops,
            self.stores
        )
    }
}

/// How an operand's elements are found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// In the results' order.
    Ordered,
    /// All are the same one.
    Same,
    /// By coordinates and strides.
    Strided,
}

impl Way {
    fn of(strides: &[usize]) -> Way {
        match strides {
            [1] => Way::Ordered,
            _ if strides.iter().all(|&s| s == 0) => Way::Same,
            _ => Way::Strided,
        }
    }
    /// The place of operand `i`, which has strides along so many axes.
    fn place(self, i: usize, rank: usize) -> String {
        match self {
            Way::Ordered => "i".into(),
            Way::Same => "0".into(),
            Way::Strided => {
                (0..rank).map(|axis| format!("c{axis} * s{i}_{axis}")).collect::<Vec<_>>().join(" + ")
            }
        }
    }
}

/// The type of an element in memory.
pub(super) fn kind(dtype: DType) -> Option<&'static str> {
    Some(match dtype {
        DType::Float => "float",
        DType::Double => "double",
        DType::Bfloat16 => "bf16",
        DType::Float16 => "f16",
        DType::Int64 => "i64",
        DType::Int32 => "int",
        DType::Uint8 => "unsigned char",
        DType::Bool => "bool",
        _ => return None,
    })
}
