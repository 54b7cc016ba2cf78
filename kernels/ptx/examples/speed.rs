//! How long the interpreter takes for an instruction of a warp: `cargo run --release -p graft-ptx --example speed`.
use graft_ptx::{Launch, Memory, Module, Schedule};
use std::time::Instant;

/// How often each is measured; the fastest counts, as other programs may run beside this one.
const RUNS: usize = 50;
/// Turns of the loop, and how often it holds the instruction.
const TURNS: u32 = 500;
const UNROLLED: usize = 16;

/// Instructions, with the registers that they may use.
const INSTRUCTIONS: &[(&str, &str)] = &[
    ("fma.rn.f32", "fma.rn.f32 %f1, %f2, %f3, %f1;"),
    ("add.s32", "add.s32 %r4, %r5, %r4;"),
    ("mul.lo.s64", "mul.lo.s64 %rd4, %rd4, %rd5;"),
    ("setp and selp", "setp.lt.f32 %p2, %f1, %f2;\nselp.f32 %f4, %f1, %f3, %p2;"),
    ("fma.rn.f64", "fma.rn.f64 %fd1, %fd2, %fd3, %fd1;"),
    ("half of the lanes: fma.rn.f32", "@%p3 fma.rn.f32 %f1, %f2, %f3, %f1;"),
    ("cvt.rn.bf16.f32", "cvt.rn.bf16.f32 %rs1, %f1;"),
    ("ld.global.f32", "ld.global.f32 %f4, [%rd3];"),
    ("ld.global.v4.f32", "ld.global.v4.f32 {%f4, %f5, %f6, %f7}, [%rd6];"),
    ("st.global.f32", "st.global.f32 [%rd3], %f2;"),
    ("ld.shared.f32", "ld.shared.f32 %f4, [%r6];"),
    ("st.shared.f32", "st.shared.f32 [%r6], %f4;"),
    (
        "cp.async, 16 bytes",
        "cp.async.cg.shared.global [%r7], [%rd6], 16;\ncp.async.commit_group;\ncp.async.wait_group 0;",
    ),
    ("ldmatrix.x4", "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r8, %r9, %r10, %r11}, [%r7];"),
    (
        "mma.m16n8k16",
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f4, %f5, %f6, %f7}, {%r8, %r9, %r10, %r11}, {%r12, %r13}, \
         {%f4, %f5, %f6, %f7};",
    ),
    ("shfl.sync.bfly", "shfl.sync.bfly.b32 %r4, %r5, 3, 31, -1;"),
];

fn text(instruction: &str) -> String {
    let body = format!("{instruction}\n").repeat(UNROLLED);
    format!(
        ".version 8.8\n.target sm_80\n.address_size 64\n.extern .shared .align 16 .b8 memory[];\n.visible .entry k(.param \
         .u64 k_0)\n{{\n.reg .pred %p<9>;\n.reg .b16 %rs<9>;\n.reg .b32 %r<19>;\n.reg .f32 %f<9>;\n.reg .b64 \
         %rd<9>;\n.reg .f64 %fd<9>;\nld.param.u64 %rd1, [k_0];\nmov.u32 %r1, %tid.x;\nmul.wide.u32 %rd2, %r1, \
         4;\nadd.s64 %rd3, %rd1, %rd2;\nmul.wide.u32 %rd6, %r1, 16;\nadd.s64 %rd6, %rd1, %rd6;\nmov.u32 %r5, \
         memory;\nmad.lo.s32 %r6, %r1, 4, %r5;\nmad.lo.s32 %r7, %r1, 16, %r5;\nsetp.lt.u32 %p3, %r1, 16;\nmov.f32 %f1, \
         0f3F800000;\nmov.f32 %f2, 0f3F000000;\nmov.f32 %f3, 0f3E800000;\nmov.u32 %r2, {TURNS};\nL:\n{body}add.s32 \
         %r2, %r2, -1;\nsetp.ne.s32 %p1, %r2, 0;\n@%p1 bra L;\nret;\n}}\n"
    )
}

#[expect(clippy::print_stdout, reason = "a program that talks to people")]
fn main() {
    for (name, instruction) in INSTRUCTIONS {
        let module = Module::parse(&text(instruction)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut memory = Memory::new();
        let at = memory.allocate(4096);
        memory.write(at, &[0; 4096]).unwrap_or_else(|e| panic!("{e}"));
        let argument = at.to_le_bytes();
        let launch = Launch {
            grid: [1; 3],
            block: [32, 1, 1],
            shared: 4096,
            arguments: &[&argument],
            schedule: Schedule::Forward,
            parallel: false,
        };
        let run = |_| {
            let start = Instant::now();
            module.kernels()[0].launch(&launch, &memory).unwrap_or_else(|e| panic!("{name}: {e}"));
            start.elapsed().as_nanos()
        };
        let fastest = (0..RUNS).map(run).min().unwrap_or_default();
        let nanoseconds = fastest as f64 / (UNROLLED as f64 * f64::from(TURNS));
        println!("{name:<32} {nanoseconds:>7.1} ns");
    }
}
