//! Runs a kernel on a case and judges what comes out.
use crate::{
    case::{Bound, Case},
    draw::Draw,
    layout::{Laid, lay},
};
use graft_ir::{Array, DType, Data, Error, Node, Tensor};
use graft_kernels::{Call, Kernel, Memory, Operand, Threads, ViewMut, supports};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::OnceLock;

/// What results and scratch memory hold before the call: no number that a kernel computes.
const STALE: u8 = 0xa5;

/// A call that is laid out.
struct Setting<'a> {
    kernel: &'a Kernel,
    node: Node,
    opset: i64,
    operands: Vec<Option<Laid>>,
    /// The results expected; `None` where one is not wanted.
    results: Vec<Option<&'a Array>>,
    /// Pairs (operand, result) that share memory.
    in_place: Vec<(usize, usize)>,
}

/// Lays `case` out, runs it on 1, 2 and 4 threads, and compares.
///
/// # Errors
/// What is wrong, as text.
pub(crate) fn check(kernel: &Kernel, mut case: Case, draw: &mut Draw) -> Result<(), String> {
    let mut operands = Vec::new();
    for (i, operand) in case.operands.iter_mut().enumerate() {
        let laid = operand.as_mut().map(|array| lay(array, kernel.strided.contains(i), draw));
        operands.push(laid.transpose().map_err(|e| e.to_string())?);
    }
    let reference = case.reference(kernel.name).map_err(|e| format!("{e}; {case:?}"))?;
    let wanted = wanted(kernel, &case, draw)?;
    let (graph, node) = case.node(kernel.name, &wanted).map_err(|e| e.to_string())?;
    let opset = graph.opset(node.domain_and_name().0).unwrap_or(1);
    let results: Vec<_> = reference.iter().zip(&wanted).map(|(r, w)| w.then_some(r)).collect();
    let in_place = in_place(kernel.in_place, &operands, &results, draw);
    let setting = Setting { kernel, node, opset, operands, results, in_place };
    let describe = |what: &str| {
        let sizes = setting.operands.iter().flatten().map(|o| (o.dtype, &o.dims, &o.strides));
        let (sizes, attrs, shared) = (sizes.collect::<Vec<_>>(), &case.attrs, &setting.in_place);
        format!(
            "{what}; opset {opset}, {attrs:?}, wanted {wanted:?}, in place {shared:?}, operands {sizes:?}"
        )
    };
    let one = setting.run(1).map_err(|e| describe(&e.to_string()))?;
    for threads in [2, 4] {
        let more = setting.run(threads).map_err(|e| describe(&e.to_string()))?;
        if one != more {
            return Err(describe(&format!("other bits on {threads} threads")));
        }
    }
    judge(kernel.name, &case, &setting.results, &one).map_err(|what| describe(&what))
}

/// A choice of results that the kernel serves; it must serve all of them together.
pub(crate) fn wanted(kernel: &Kernel, case: &Case, draw: &mut Draw) -> Result<Vec<bool>, String> {
    let all = vec![true; case.results];
    let serves = |wanted: &[bool]| -> Result<bool, String> {
        let (graph, node) = case.node(kernel.name, wanted).map_err(|e| e.to_string())?;
        let types: Vec<_> = node.inputs.iter().map(|v| v.and_then(|v| graph[v].ty.clone())).collect();
        Ok((kernel.supports)(&node, &types) && supports(&node, &types))
    };
    if !serves(&all)? {
        return Err("the kernel does not serve the case".into());
    }
    let some: Vec<bool> = all.iter().map(|_| !draw.one_in(3)).collect();
    Ok(if some.contains(&true) && serves(&some)? { some } else { all })
}

/// A choice of the pairs that the table allows.
pub(crate) fn in_place(
    pairs: &[(usize, usize)],
    operands: &[Option<Laid>],
    results: &[Option<&Array>],
    draw: &mut Draw,
) -> Vec<(usize, usize)> {
    let mut chosen: Vec<(usize, usize)> = Vec::new();
    for &(i, o) in pairs {
        let (Some(Some(x)), Some(Some(y))) = (operands.get(i), results.get(o)) else { continue };
        let fits = x.dtype == y.dtype && x.dims == y.dims && x.view().is_row_major() && !y.is_empty();
        if fits && chosen.iter().all(|c| c.0 != i && c.1 != o) && draw.flip() {
            chosen.push((i, o));
        }
    }
    chosen
}

impl Setting<'_> {
    /// The bytes of each wanted result.
    fn run(&self, threads: usize) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let len = |a: &Array| a.len() * a.dtype.bits() / 8;
        let mut memory: Vec<Memory> = self.results.iter().map(|r| stale(r.map_or(0, len))).collect();
        for &(i, o) in &self.in_place {
            if let Some(operand) = &self.operands[i] {
                memory[o].bytes_mut().copy_from_slice(operand.memory.bytes());
            }
        }
        let shared = |i: usize| self.in_place.iter().find(|pair| pair.0 == i).map(|pair| pair.1);
        let inputs = self.operands.iter().enumerate().map(|(i, laid)| match (shared(i), laid) {
            (Some(result), _) => Operand::InPlace(result),
            (None, Some(laid)) => Operand::View(laid.view()),
            (None, None) => Operand::Absent,
        });
        let inputs = inputs.collect();
        let mut scratch = stale(self.scratch_bytes());
        let outputs = self.results.iter().zip(&mut memory).map(|(result, memory)| {
            let result = (*result)?;
            let data = &mut memory.bytes_mut()[..len(result)];
            Some(ViewMut { dtype: result.dtype, dims: &result.dims, data })
        });
        let outputs = outputs.collect();
        let mut call = Call {
            node: &self.node,
            opset: self.opset,
            inputs,
            outputs,
            scratch: scratch.bytes_mut(),
            threads: Threads::new(threads),
        };
        pool(threads).install(|| (self.kernel.run)(&mut call))?;
        drop(call);
        let bytes = |(r, m): (&Option<&Array>, &Memory)| r.map(|r| m.bytes()[..len(r)].to_vec());
        Ok(self.results.iter().zip(&memory).map(bytes).collect())
    }
    fn scratch_bytes(&self) -> usize {
        let operands: Vec<&[usize]> =
            self.operands.iter().map(|o| o.as_ref().map_or(&[][..], |o| &o.dims)).collect();
        let results: Vec<&[usize]> = self.results.iter().map(|r| r.map_or(&[][..], |r| &r.dims)).collect();
        (self.kernel.scratch)(&self.node, &operands, &results)
    }
}

fn stale(len: usize) -> Memory {
    let mut memory = Memory::zeroed(len);
    memory.bytes_mut().fill(STALE);
    memory
}

/// A pool of `threads` threads, as a session has it.
fn pool(threads: usize) -> &'static ThreadPool {
    static POOLS: [OnceLock<ThreadPool>; 5] = [const { OnceLock::new() }; 5];
    let build = || ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be started");
    POOLS[threads].get_or_init(build)
}

/// Compares results with the reference.
pub(crate) fn judge(
    op: &str,
    case: &Case,
    expected: &[Option<&Array>],
    found: &[Option<Vec<u8>>],
) -> Result<(), String> {
    let terms = match case.bound {
        Bound::Terms(_) => case.magnitudes().reference(op).map_err(|e| e.to_string())?,
        _ => Vec::new(),
    };
    let made = match case.bound {
        Bound::Made(_, of) => of(case),
        _ => Vec::new(),
    };
    for (o, (expected, found)) in expected.iter().zip(found).enumerate() {
        let (Some(expected), Some(found)) = (expected, found) else { continue };
        let tensor = Tensor::new(expected.dtype, expected.dims.clone(), found.clone().into());
        let found = tensor.and_then(|t| Array::from_tensor(&t)).map_err(|e| e.to_string())?;
        let terms = terms.get(o).map_or(&[][..], |t| t.floats().unwrap_or_default());
        let made = made.get(o).map_or(0.0, |&m| m);
        compare(case, expected, &found, terms, made).map_err(|what| format!("result {o}: {what}"))?;
    }
    Ok(())
}

fn compare(case: &Case, expected: &Array, found: &Array, terms: &[f64], made: f64) -> Result<(), String> {
    let (expected_elements, found_elements) = match (&expected.data, &found.data) {
        (Data::Float(e), Data::Float(f)) => (e, f),
        (e, f) if e == f => return Ok(()),
        _ => return Err(format!("{:?}, not {:?}", found.data, expected.data)),
    };
    // Rounding to nearest errs by half a unit in the last place at most.
    let (unit, smallest, largest_finite) = match case.element.unwrap_or(expected.dtype) {
        DType::Float16 => (2f64.powi(-11), 2f64.powi(-25), 65504.0),
        DType::Bfloat16 => (2f64.powi(-8), 2f64.powi(-134), 3.39e38),
        DType::Double => (2f64.powi(-53), 5e-324, f64::MAX),
        _ => (2f64.powi(-24), 2f64.powi(-150), f64::from(f32::MAX)),
    };
    let finite = expected_elements.iter().filter(|e| e.is_finite());
    let largest = finite.fold(0.0f64, |m, e| m.max(e.abs()));
    for (i, (&e, &f)) in expected_elements.iter().zip(found_elements).enumerate() {
        let allowed = match case.bound {
            Bound::Exact => 0.0,
            Bound::Own(n) => n * (unit * e.abs() + smallest),
            Bound::Unit(n) => n * unit * e.abs().max(1.0),
            Bound::Largest(n) => n * (unit * largest + smallest),
            Bound::Terms(n) => n * (unit * terms[i].abs() + smallest),
            Bound::Made(n, _) => n * (unit * made + smallest),
        };
        let overflows = e.abs() > largest_finite && f.is_infinite() && f.signum() == e.signum();
        if !(f == e || (f.is_nan() && e.is_nan()) || overflows || (f - e).abs() <= allowed) {
            let error = (f - e).abs() / (unit * e.abs());
            return Err(format!(
                "element {i} is {f:e}, not {e:e} ({error:.2} roundings; allowed {allowed:e})"
            ));
        }
    }
    Ok(())
}
