//! Element-wise kernels for CUDA, made for the occasion: one kernel for a chain of ops, from their expressions in the
//! table.
use crate::{
    Device, Operands,
    cuda::{
        Argument::{self, Buffer as At, Long},
        Buffer, Launch, Module, Plan, Shape, Site, Target, Traffic,
    },
    device::Work,
};
use graft_ir::{DType, infer::dtype_attr};
use std::fmt::Write;

/// The text of an op in CUDA C++, with `{0}`, `{1}`, … for the elements of its operands.
#[derive(Clone, Copy)]
pub enum Expression {
    /// The same for every type that the kernel serves.
    Text(&'static str),
    /// Made for the node; `None` where it cannot be.
    Made(fn(&Site<'_>) -> Option<String>),
}

/// A device's column for an op with this text.
pub(super) const fn text(text: &'static str) -> Device {
    map(Expression::Text(text))
}

/// A device's column for an op whose text depends on the node.
pub(super) const fn made(make: fn(&Site<'_>) -> Option<String>) -> Device {
    map(Expression::Made(make))
}

const fn map(expression: Expression) -> Device {
    Device { work: Work::Map(expression), ..Device::NONE }.strided(Operands::All).in_place(&[
        (0, 0),
        (1, 0),
        (2, 0),
    ])
}

impl Expression {
    /// The text for the node at `site`; `None` where there is none.
    pub fn text(self, site: &Site<'_>) -> Option<String> {
        match self {
            Expression::Text(text) => Some(text.into()),
            Expression::Made(make) => make(site),
        }
    }
}

/// Where an op of a chain finds an operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// In memory: the operand of the chain with this number.
    Input(usize),
    /// In a register: the result of the chain's op with this number.
    Made(usize),
}

/// Element-wise ops whose results have the same sizes, to be one kernel.
#[derive(Debug, Default)]
pub struct Chain<'a> {
    dims: Vec<usize>,
    /// What lies in memory, and the numbers under which launches find it.
    inputs: Vec<Shape<'a>>,
    operands: Vec<usize>,
    /// Each op's line of code and the type of its result.
    ops: Vec<(String, DType)>,
}

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
        let n: usize = self.dims.iter().product();
        if n == 0 {
            return Some(Plan::default());
        }
        let (dims, strides) = self.axes()?;
        let ways: Vec<Way> = strides.iter().map(|s| Way::of(s)).collect();
        let mut arguments: Vec<Argument> = self.operands.iter().map(|&i| At(Buffer::Operand(i))).collect();
        arguments.extend((0..results.len()).map(|i| At(Buffer::Result(i))));
        arguments.push(Long(n as i64));
        arguments.extend(dims.iter().skip(1).map(|&d| Long(d as i64)));
        for (strides, _) in strides.iter().zip(&ways).filter(|(_, way)| **way == Way::Strided) {
            arguments.extend(strides.iter().map(|&s| Long(s as i64)));
        }
        let bytes = |dtype: DType, n: usize| (n * dtype.bits() / 8) as u64;
        let read = self.inputs.iter().map(|s| bytes(s.dtype, crate::extent(s.dims, s.strides)));
        let issued = self.inputs.iter().map(|s| bytes(s.dtype, n));
        let written: u64 = results.iter().map(|&r| bytes(self.ops[r].1, n)).sum();
        let launch = Launch {
            kernel: "map",
            module: Module::generated(self.text(results, &ways, dims.len())?),
            grid: [n.div_ceil(THREADS).min(BLOCKS * target.multiprocessors), 1, 1],
            block: THREADS,
            shared: 0,
            arguments,
            library: None,
            traffic: Traffic {
                flops: (n * self.ops.len()) as u64,
                ideal: read.sum::<u64>() + written,
                issued: issued.sum::<u64>() + written,
            },
        };
        Some(Plan { launches: vec![launch], workspace: 0 })
    }
    /// The axes of the results, as few as will do, and each operand's strides along them.
    fn axes(&self) -> Option<(Vec<usize>, Vec<Vec<usize>>)> {
        let rank = self.dims.len();
        let spread = |s: &Shape<'_>| -> Option<Vec<usize>> {
            let missing = rank.checked_sub(s.dims.len())?;
            let own = s.dims.iter().zip(s.strides).map(|(&d, &stride)| if d == 1 { 0 } else { stride });
            Some(std::iter::repeat_n(0, missing).chain(own).collect())
        };
        let spread: Vec<Vec<usize>> = self.inputs.iter().map(spread).collect::<Option<_>>()?;
        let (mut dims, mut kept) = (Vec::new(), vec![Vec::new(); spread.len()]);
        for axis in (0..rank).filter(|&axis| self.dims[axis] != 1) {
            let d = self.dims[axis];
            let joins =
                |(s, kept): (&Vec<usize>, &Vec<usize>)| kept.last().is_some_and(|&k| k == s[axis] * d);
            if !dims.is_empty() && spread.iter().zip(&kept).all(joins) {
                dims.last_mut().map(|last| *last *= d)?;
                kept.iter_mut().zip(&spread).for_each(|(k, s)| *k.last_mut().expect("an axis") = s[axis]);
            } else {
                dims.push(d);
                kept.iter_mut().zip(&spread).for_each(|(k, s)| k.push(s[axis]));
            }
        }
        // Operands that take all elements in order may join axes that others keep apart.
        let orders = crate::row_major(&dims);
        kept.iter_mut().filter(|k| **k == orders).for_each(|k| *k = vec![1]);
        Some((dims, kept))
    }
    /// The kernel.
    fn text(&self, results: &[usize], ways: &[Way], rank: usize) -> Option<String> {
        let mut parameters = Vec::new();
        for (i, shape) in self.inputs.iter().enumerate() {
            parameters.push(format!("const {}* p{i}", kind(shape.dtype)?));
        }
        for (i, &r) in results.iter().enumerate() {
            parameters.push(format!("{}* q{i}", kind(self.ops[r].1)?));
        }
        parameters.push("i64 n".into());
        parameters.extend((1..rank).map(|axis| format!("i64 d{axis}")));
        let mut body = String::new();
        if ways.contains(&Way::Strided) {
            body += "    i64 rest = i;\n";
            for axis in (1..rank).rev() {
                let _ = write!(body, "    const i64 c{axis} = rest % d{axis};\n    rest /= d{axis};\n");
            }
            body += "    const i64 c0 = rest;\n";
        }
        for (i, way) in ways.iter().enumerate() {
            let at = match way {
                Way::Ordered => "i".to_string(),
                Way::Same => "0".into(),
                Way::Strided => {
                    parameters.extend((0..rank).map(|axis| format!("i64 s{i}_{axis}")));
                    (0..rank).map(|axis| format!("c{axis} * s{i}_{axis}")).collect::<Vec<_>>().join(" + ")
                }
            };
            let _ = writeln!(body, "    const auto x{i} = value(p{i}[{at}]);");
        }
        for (k, (text, dtype)) in self.ops.iter().enumerate() {
            let _ = writeln!(body, "    const auto y{k} = value(element<{}>({text}));", kind(*dtype)?);
        }
        for (i, &r) in results.iter().enumerate() {
            let _ = writeln!(body, "    q{i}[i] = element<{}>(y{r});", kind(self.ops[r].1)?);
        }
        // Within the namespace, so that `exp` is ours and not the compiler's.
        Some(format!(
            "#include \"elementwise/elementwise.cuh\"\n\nnamespace graft {{\nextern \"C\" __global__ void \
             __launch_bounds__({THREADS})\nmap({}) {{\n  for (i64 i = blockIdx.x * {THREADS}ll + threadIdx.x; i < n; i += \
             gridDim.x * {THREADS}ll) {{\n{body}  }}\n}}\n}}\n",
            parameters.join(", ")
        ))
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
}

/// The type of an element in memory.
fn kind(dtype: DType) -> Option<&'static str> {
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

/// The launch of one op by itself.
pub(crate) fn plan(expression: Expression, site: &Site<'_>) -> Option<Plan> {
    let result = site.output(0)?;
    let mut chain = Chain::new(result.dims);
    let mut operands = Vec::new();
    for (i, shape) in site.inputs.iter().enumerate() {
        // One that is left out has no place in a text.
        operands.push(Source::Input(shape.map_or(usize::MAX, |shape| chain.input(shape, i))));
    }
    let op = chain.op(&expression.text(site)?, &operands, result.dtype);
    chain.plan(&[op], site.target)
}

/// `a op b op c …` by a function of two.
pub(super) fn fold(site: &Site<'_>, function: &str) -> Option<String> {
    let rest = 1..site.inputs.len();
    Some(rest.fold("{0}".into(), |sum: String, i| format!("{function}({sum}, {{{i}}})")))
}

/// Integer division is refused unless no divisor can be 0, which would have to be reported.
pub(super) fn divided(site: &Site<'_>, floats: &str, integers: &str) -> Option<String> {
    let dtype = site.input(0)?.dtype;
    if !dtype.is_int() {
        return Some(floats.into());
    }
    let divisors = site.input(1)?.ints()?;
    divisors.iter().all(|&n| n != 0 && n != -1).then(|| integers.into())
}

/// Casts, but for those that would be rounded twice.
pub(super) fn cast(site: &Site<'_>) -> Option<String> {
    let (from, to) = (site.input(0)?.dtype, dtype_attr(site.node, "to").ok()??);
    let is_half = |d: DType| matches!(d, DType::Bfloat16 | DType::Float16);
    let is_short = |d: DType| matches!(d, DType::Float | DType::Bool | DType::Uint8) || is_half(d);
    if is_half(to) {
        return is_short(from).then(|| "convert<float>({0})".into());
    }
    kind(to).map(|to| format!("convert<{to}>({{0}})"))
}

/// Bounds are operands, or attributes before opset 11.
pub(super) fn clip(site: &Site<'_>) -> Option<String> {
    let bound = |i: usize, attr: &str| -> Option<Option<String>> {
        match site.input(i) {
            Some(bound) if bound.len() == 1 => Some(Some(format!("{{{i}}}"))),
            Some(_) => None,
            None => Some(site.node.float(attr).ok()?.map(number)),
        }
    };
    let (low, high) = (bound(1, "min")?, bound(2, "max")?);
    let raised = low.map_or("{0}".into(), |low| format!("({{0}} < {low} ? {low} : {{0}})"));
    Some(high.map_or(raised.clone(), |high| format!("({raised} > {high} ? {high} : {raised})")))
}

/// A float as C++ text, bit by bit.
fn number(x: f32) -> String {
    format!("as_float({:#x}u)", x.to_bits())
}
