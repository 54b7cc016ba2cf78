//! Chains of element-wise ops as epilogues: what the kernel of a large product does with the elements of a tile before it
//! stores them. The product's result is rounded as if it had been stored, and every op computes as in a kernel of its own;
//! so results have the same bits either way.
use super::chain::{Chain, Code, Source};
use crate::cuda::{Argument, Buffer::Result, Element, Epilogue, Launch, Module, Plan, Shape, Traffic};
use graft_ir::DType;
use std::fmt::Write;

/// What a kernel's arguments may take, in bytes; each is counted as the longest.
const LARGEST_PARAMETERS: usize = 4096;

impl Chain<'_> {
    /// Adds, as its first op, the product whose epilogue the chain is to be; its elements are of this type.
    pub fn product(&mut self, result: DType) -> usize {
        self.op("value(sum)", &[], result)
    }
    /// The plan with the chain, whose first op stands for result `of`, as the epilogue of the launch that makes it. `results`
    /// are pairs of an op and the number of the plan's result that it is stored as; what is left out is not stored.
    ///
    /// `None` if no launch in the plan makes the result and takes an epilogue, another one uses it, or the sizes differ; and
    /// where a library is to do the product.
    pub fn follow(&self, plan: &Plan, of: usize, results: &[(usize, usize)]) -> Option<Plan> {
        let uses = |launch: &Launch| {
            let is_it = |a: &&Argument| **a == Argument::Buffer(Result(of));
            launch.arguments.iter().filter(is_it).count()
        };
        let at = plan.launches.iter().position(|l| l.tiled.is_some_and(|tiled| tiled.to == Result(of)))?;
        let is_alone = plan.launches.iter().map(uses).sum::<usize>() == 1;
        let launch = self.behind(&plan.launches[at], results).filter(|_| is_alone)?;
        let mut plan = plan.clone();
        plan.launches[at] = launch;
        Some(plan)
    }
    /// The launch with the chain behind it.
    fn behind(&self, launch: &Launch, results: &[(usize, usize)]) -> Option<Launch> {
        // What a library does ends in a plain store.
        let tiled = launch.tiled.filter(|_| launch.library.is_none())?;
        let (_, product) = self.ops.first()?;
        let (n, rank) = (self.len(), self.dims.len());
        // The axes from `first` on are the product's columns.
        let first =
            (0..=rank).rev().find(|&axis| self.dims[axis..].iter().product::<usize>() == tiled.cols)?;
        let fits = n == tiled.rows * tiled.cols && Element::of(*product) == Some(tiled.element);
        let code = self.code(results, &[("row", 0..first), ("col", first..rank)]).filter(|_| fits)?;
        let stored = (n * tiled.element.bytes()) as u64;
        let (before, Traffic { flops, ideal, issued }) = (launch.traffic, self.traffic(results));
        let module = launch.module.clone().with_epilogue(self.text(&code, results));
        let more = code.parameters.into_iter().map(|(_, argument)| argument);
        let arguments: Vec<Argument> = launch.arguments.iter().copied().chain(more).collect();
        (8 * arguments.len() <= LARGEST_PARAMETERS).then(|| Launch {
            module,
            arguments,
            traffic: Traffic {
                flops: before.flops + flops - n as u64,
                ideal: before.ideal + ideal - stored,
                issued: before.issued + issued - stored,
            },
            tiled: None,
            ..launch.clone()
        })
    }
    /// Its code as an epilogue, by the name of the ops and of those that are stored: `y1=plus(y0,x0),y2=gelu(y1):y1,y2`.
    fn text(&self, code: &Code, results: &[(usize, usize)]) -> Epilogue {
        let ops = self.ops.iter().enumerate().skip(1);
        let ops: Vec<String> = ops.map(|(k, (text, _))| format!("y{k}={}", text.replace(' ', ""))).collect();
        let stored: Vec<String> = results.iter().map(|(op, _)| format!("y{op}")).collect();
        Epilogue { name: format!("{}:{}", ops.join(","), stored.join(",")), text: code.epilogue() }
    }
}

/// The module with examples of epilogues: a bias; a residual; and, what takes the most registers, a bias and an expensive
/// function, both stored. None if it is for no element.
pub(crate) fn examples(module: &Module) -> Vec<Module> {
    let is_for = |element: &Element| module.defines.iter().any(|(_, value)| value == element.name());
    let element = [Element::Bf16, Element::F16, Element::F32].into_iter().find(is_for);
    let Some(dtype) = element.map(Element::dtype) else { return Vec::new() };
    let add = "plus({0}, {1})";
    let of = |operand: &[usize], texts: &[&str]| {
        let mut chain = Chain::new(&[2, 2]);
        let strides = crate::row_major(operand);
        let mut last = chain.product(dtype);
        let x = Source::Input(chain.input(Shape { dtype, dims: operand, strides: &strides, known: None }, 0));
        let mut ops = Vec::new();
        for text in texts {
            last = chain.op(text, &[Source::Made(last), x], dtype);
            ops.push((last, ops.len()));
        }
        let code = chain.code(&ops, &[("row", 0..1), ("col", 1..2)])?;
        Some(module.clone().with_epilogue(chain.text(&code, &ops)))
    };
    [of(&[2], &[add]), of(&[2, 2], &[add]), of(&[2], &[add, "gelu({0})"])].into_iter().flatten().collect()
}

impl Code {
    /// The text that takes the place of `gemm/epilogue.cuh`.
    fn epilogue(&self) -> String {
        let (mut declared, mut given, mut members) = (String::new(), Vec::new(), String::new());
        for (parameter, _) in &self.parameters {
            let _ = write!(declared, ", {parameter}");
            let _ = writeln!(members, "  {parameter};");
            given.push(parameter.rsplit([' ', '*']).next().unwrap_or_default());
        }
        let (mut operands, mut places, mut values) = (String::new(), Vec::new(), String::new());
        for (i, (kind, place)) in self.operands.iter().enumerate() {
            let _ = write!(operands, " {kind} x{i};");
            places.push(format!("p{i}[{place}]"));
            let _ = writeln!(values, "    const auto x{i} = value(of.x{i});");
        }
        let (given, places) = (given.join(", "), places.join(", "));
        let Code { coordinates, ops, stores, .. } = self;
        format!(
            "#pragma once\n#include \"elementwise/elementwise.cuh\"\n\n#define GRAFT_EPILOGUE_PARAMETERS {declared}\n#define \
             GRAFT_EPILOGUE graft::Epilogue{{{given}}}\n\nnamespace graft {{\nstruct Epilogue {{\n  static constexpr bool \
             IS_ANY = true;\n{members}  struct Operands {{{operands} }};\n  __device__ __forceinline__ Operands load(i64 i, \
             i64 row, i64 col) const {{\n{coordinates}    return {{{places}}};\n  }}\n  template <class T> __device__ \
             __forceinline__ void store(const Operands& of, T sum, i64 i) const {{\n{values}{ops}{stores}  }}\n}};\n}}\n"
        )
    }
}
