use crate::{Fault, Launch, Memory, Module, Schedule, Statistics};

/// Runs the only kernel of `ptx` on one block, with the buffers as its arguments; what they hold then.
fn run(ptx: &str, threads: u32, buffers: &[Vec<u8>]) -> Result<(Vec<Vec<u8>>, Statistics), Fault> {
    let module = Module::parse(ptx).unwrap_or_else(|e| panic!("{e}"));
    let mut memory = Memory::new();
    let places: Vec<u64> = buffers.iter().map(|b| memory.allocate(b.len())).collect();
    for (&at, buffer) in places.iter().zip(buffers) {
        memory.write(at, buffer).expect("it fits");
    }
    let arguments: Vec<[u8; 8]> = places.iter().map(|p| p.to_le_bytes()).collect();
    let arguments: Vec<&[u8]> = arguments.iter().map(<[u8; 8]>::as_slice).collect();
    let launch = Launch {
        grid: [1; 3],
        block: [threads, 1, 1],
        shared: 4096,
        arguments: &arguments,
        schedule: Schedule::Forward,
        parallel: false,
    };
    let statistics = module.kernels()[0].launch(&launch, &memory)?;
    let read = |(&at, buffer): (&u64, &Vec<u8>)| {
        let mut bytes = vec![0; buffer.len()];
        memory.read(at, &mut bytes).expect("it is there");
        bytes
    };
    Ok((places.iter().zip(buffers).map(read).collect(), statistics))
}

/// A kernel on the buffer `%rd1`, in which `%rd2` is the place of the thread's own word, and `%r1` its number.
fn kernel(body: &str) -> String {
    format!(
        ".version 8.8\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 k_0)\n{{\n.reg .pred %p<9>;\n.reg \
         .b16 %rs<9>;\n.reg .b32 %r<19>;\n.reg .f32 %f<9>;\n.reg .b64 %rd<9>;\n.reg .f64 %fd<9>;\nld.param.u64 %rd1, \
         [k_0];\nmov.u32 %r1, %tid.x;\nmul.wide.u32 %rd2, %r1, 4;\nadd.s64 %rd2, %rd1, %rd2;\n{body}\nret;\n}}\n"
    )
}

/// What `body` makes of 32 words.
fn words(body: &str, given: impl Fn(u32) -> u32) -> Vec<u32> {
    let bytes = (0..32).flat_map(|i| given(i).to_le_bytes()).collect();
    let (after, _) = run(&kernel(body), 32, &[bytes]).unwrap_or_else(|e| panic!("{e}"));
    after[0].as_chunks::<4>().0.iter().map(|&b| u32::from_le_bytes(b)).collect()
}

/// What `body` does wrong, on 32 words.
fn fault(body: &str) -> String {
    run(&kernel(body), 32, &[vec![0; 128]]).expect_err("a fault").to_string()
}

#[test]
fn lanes_that_branch_apart_come_together_again() {
    // The length of 3n+1 sequences, which differs from lane to lane; then the sum of all lanes.
    let body = "ld.global.u32 %r2, [%rd2];\nmov.u32 %r3, 0;\nL1:\nsetp.eq.s32 %p1, %r2, 1;\n@%p1 bra L2;\nand.b32 %r4, %r2, \
                1;\nsetp.eq.b32 %p2, %r4, 1;\n@%p2 mad.lo.s32 %r2, %r2, 3, 1;\n@!%p2 shr.u32 %r2, %r2, 1;\nadd.s32 %r3, \
                %r3, 1;\nbra.uni L1;\nL2:\nredux.sync.add.s32 %r5, %r3, -1;\nst.global.u32 [%rd2], %r5;";
    let steps = |mut n: u32| {
        let mut steps = 0;
        while n != 1 {
            n = if n % 2 == 1 { 3 * n + 1 } else { n / 2 };
            steps += 1;
        }
        steps
    };
    let all: u32 = (1..=32).map(steps).sum();
    assert_eq!(words(body, |i| i + 1), vec![all; 32]);
}

#[test]
fn sixteen_bits_wrap_and_extend() {
    let body = "ld.global.s8 %rs1, [%rd2];\nmul.lo.s16 %rs2, %rs1, %rs1;\nadd.s16 %rs2, %rs2, -3;\nshr.s16 %rs3, %rs2, \
                2;\nmin.s16 %rs3, %rs3, %rs1;\ncvt.s32.s16 %r2, %rs3;\nst.global.u32 [%rd2], %r2;";
    let expected = |i: u32| {
        let x = i16::from((i * 9) as i8);
        let y = x.wrapping_mul(x).wrapping_sub(3);
        i32::from((y >> 2).min(x)).cast_unsigned()
    };
    assert_eq!(words(body, |i| i * 9), (0..32).map(expected).collect::<Vec<_>>());
}

#[test]
fn wide_integers_are_exact() {
    let body = "ld.global.u32 %r2, [%rd2];\nmul.wide.u32 %rd3, %r2, -1431655765;\nmul.hi.u64 %rd4, %rd3, \
                -7046029254386353131;\ndiv.u64 %rd5, %rd4, 1000003;\nrem.s64 %rd6, %rd5, 977;\nadd.s64 %rd7, %rd5, \
                %rd6;\nshr.u64 %rd7, %rd7, 3;\ncvt.u32.u64 %r3, %rd7;\nclz.b64 %r4, %rd3;\nadd.s32 %r3, %r3, \
                %r4;\nst.global.u32 [%rd2], %r3;";
    let given = |i: u32| i.wrapping_mul(0x9E37_79B9);
    let expected = |i: u32| {
        let product = u64::from(given(i)) * u64::from(0xAAAA_AAABu32);
        let high = ((u128::from(product) * u128::from(-7_046_029_254_386_353_131i64 as u64)) >> 64) as u64;
        let quotient = high / 1_000_003;
        let sum = quotient + quotient % 977;
        ((sum >> 3) as u32).wrapping_add(product.leading_zeros())
    };
    assert_eq!(words(body, given), (0..32).map(expected).collect::<Vec<_>>());
}

#[test]
fn floats_are_rounded_once() {
    let body = "ld.global.f32 %f1, [%rd2];\ncvt.f64.f32 %fd1, %f1;\nfma.rn.f64 %fd2, %fd1, %fd1, 0d3FF0000000000000;\nsqrt.rn.f64 \
                %fd3, %fd2;\ndiv.rn.f64 %fd4, %fd1, %fd3;\ncvt.rn.f32.f64 %f2, %fd4;\nfma.rn.f32 %f3, %f2, %f1, \
                0f3DCCCCCD;\nmax.f32 %f3, %f3, 0fBF000000;\ncvt.rni.s32.f32 %r2, %f3;\ncvt.rn.f32.s32 %f4, %r2;\nadd.f32 \
                %f3, %f3, %f4;\nst.global.f32 [%rd2], %f3;";
    let given = |i: u32| (i as f32).sin() * 7.0;
    let expected = |i: u32| {
        let x = given(i);
        let d = f64::from(x);
        let ratio = (d / d.mul_add(d, 1.0).sqrt()) as f32;
        let y = ratio.mul_add(x, 0.1f32).max(-0.5);
        (y + y.round_ties_even()).to_bits()
    };
    assert_eq!(words(body, |i| given(i).to_bits()), (0..32).map(expected).collect::<Vec<_>>());
}

#[test]
fn unordered_comparisons_tell_nan() {
    let body = "ld.global.f32 %f1, [%rd2];\nsetp.lt.f32 %p1, %f1, 0f3F800000;\nsetp.geu.f32 %p2, %f1, 0f3F800000;\nsetp.nan.f32 \
                %p3, %f1, %f1;\nselp.u32 %r2, 1, 0, %p1;\nselp.u32 %r3, 2, 0, %p2;\nselp.u32 %r4, 4, 0, %p3;\nor.b32 %r2, \
                %r2, %r3;\nor.b32 %r2, %r2, %r4;\nst.global.u32 [%rd2], %r2;";
    let given = |i: u32| [0.5f32, 1.0, 2.0, f32::NAN][i as usize % 4].to_bits();
    assert_eq!(words(body, given), (0..32).map(|i| [1, 2, 2, 6][i % 4]).collect::<Vec<_>>());
}

#[test]
fn bits_are_moved_as_the_isa_says() {
    let body = "ld.global.u32 %r2, [%rd2];\nprmt.b32 %r3, %r2, 305419896, 30292;\nbfe.s32 %r4, %r2, 3, 7;\nbfi.b32 %r5, %r2, \
                %r3, 8, 12;\nshf.l.wrap.b32 %r6, %r2, %r5, 37;\nlop3.b32 %r7, %r3, %r5, %r6, 150;\nbrev.b32 %r8, \
                %r4;\nadd.s32 %r7, %r7, %r8;\nst.global.u32 [%rd2], %r7;";
    let given = |i: u32| i.wrapping_mul(0x85EB_CA6B) ^ 0x1234_5678;
    let expected = |i: u32| {
        let x = given(i);
        let bytes = [x.to_le_bytes(), 305_419_896u32.to_le_bytes()].concat();
        let prmt = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        let bfe = (x << 22).cast_signed() >> 25;
        let bfi = (prmt & !0x000f_ff00) | (x & 0xfff) << 8;
        let shf = bfi << 5 | x >> 27;
        (prmt ^ bfi ^ shf).wrapping_add(bfe.cast_unsigned().reverse_bits())
    };
    assert_eq!(words(body, given), (0..32).map(expected).collect::<Vec<_>>());
}

#[test]
fn fields_of_64_bits_are_inserted() {
    let body = "ld.global.u32 %r2, [%rd2];\ncvt.u64.u32 %rd3, %r2;\nmov.u64 %rd4, -1;\nbfi.b64 %rd5, %rd3, %rd4, 28, \
                12;\nshr.u64 %rd6, %rd5, 16;\ncvt.u32.u64 %r3, %rd6;\nst.global.u32 [%rd2], %r3;";
    let given = |i: u32| i.wrapping_mul(0x85EB_CA6B);
    let expected = |i: u32| ((!(0xfffu64 << 28) | u64::from(given(i) & 0xfff) << 28) >> 16) as u32;
    assert_eq!(words(body, given), (0..32).map(expected).collect::<Vec<_>>());
}

#[test]
fn lanes_exchange_and_vote() {
    let body = "ld.global.u32 %r2, [%rd2];\nshfl.sync.bfly.b32 %r3|%p1, %r2, 5, 31, -1;\nshfl.sync.down.b32 %r4|%p2, %r2, 3, 31, \
                -1;\nshfl.sync.up.b32 %r5, %r2, 2, 0, -1;\nadd.s32 %r6, %r3, %r4;\nadd.s32 %r6, %r6, %r5;\nselp.u32 %r7, \
                1000, 0, %p2;\nadd.s32 %r6, %r6, %r7;\nsetp.gt.u32 %p3, %r2, 900;\nvote.sync.ballot.b32 %r8, %p3, \
                -1;\npopc.b32 %r8, %r8;\nadd.s32 %r6, %r6, %r8;\nst.global.u32 [%rd2], %r6;";
    let given = |i: u32| i * i;
    let expected = |i: u32| {
        let down = if i + 3 < 32 { given(i + 3) + 1000 } else { given(i) };
        let up = if i >= 2 { given(i - 2) } else { given(i) };
        given(i ^ 5) + down + up + 1
    };
    assert_eq!(words(body, given), (0..32).map(expected).collect::<Vec<_>>());
}

#[test]
fn what_is_wrong_is_named() {
    let cases = [
        (
            "ld.global.u32 %r2, [%rd2+4];",
            "thread (31, 0, 0): global load of 4 bytes at 0x1000000080: outside of every allocation; the nearest below has 128",
        ),
        ("ld.global.u32 %r2, [%rd2+2];", "misaligned"),
        ("ld.global.u32 %r2, [0];", "outside of every allocation"),
        ("st.shared.u32 [%r1], %r1;", "thread (0, 0, 0): shared store of 4 bytes at 0x0"),
        ("setp.lt.u32 %p1, %r1, 7;\n@%p1 bar.sync 0;", "thread (7, 0, 0): a lane is elsewhere"),
        ("setp.lt.u32 %p1, %r1, 7;\n@%p1 shfl.sync.bfly.b32 %r2, %r1, 1, 31, -1;", "should take part"),
        ("setp.eq.u32 %p1, %r1, 9;\n@%p1 trap;", "thread (9, 0, 0): trap"),
    ];
    for (body, words) in cases {
        let said = fault(body);
        assert!(said.contains(words), "`{body}`: {said}");
    }
}

#[test]
fn memory_that_nobody_wrote_is_not_read() {
    let module = Module::parse(&kernel("ld.global.u32 %r2, [%rd2];")).unwrap_or_else(|e| panic!("{e}"));
    let mut memory = Memory::new();
    let at = memory.allocate(128);
    memory.write(at, &[0; 64]).expect("it fits");
    let argument = at.to_le_bytes();
    let launch = Launch {
        grid: [1; 3],
        block: [32, 1, 1],
        shared: 0,
        arguments: &[&argument],
        schedule: Schedule::LockStep,
        parallel: true,
    };
    let fault = module.kernels()[0].launch(&launch, &memory).expect_err("half of it was not written");
    assert_eq!((fault.thread, fault.what.contains("nobody has written")), ([16, 0, 0], true), "{fault}");
    memory.free(at).expect("it is there");
    assert!(memory.free(at).is_err() && memory.write(at, &[0]).is_err());
}

#[test]
fn what_is_not_known_is_refused() {
    let cases = [
        ("ex2.approx.f32 %f1, %f2;", "the opcode `ex2.approx.f32` is not interpreted"),
        ("add.ftz.f32 %f1, %f1, %f2;", "add.ftz.f32"),
        ("atom.global.add.u32 %r2, [%rd1], 1;", "atomic"),
        ("add.s32 %r1, %r2;", "operands"),
        ("add.s32 %rd1, %r1, %r2;", "not a register of 32"),
        ("bra NOWHERE;", "labels"),
        ("ld.global.u32 %r2, [%rd1", "`]` was expected"),
    ];
    for (body, words) in cases {
        let error = Module::parse(&kernel(body)).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.starts_with("PTX line 1") && error.contains(words), "`{body}`: {error}");
    }
}

#[test]
fn every_space_has_its_window() {
    // Four words of local memory, one of which is read by a number; a table of the module; shared memory by a generic address.
    let text = "
        .version 8.8
        .target sm_80
        .address_size 64
        .const .align 4 .b8 table[16] = {10, 0, 0, 0, 20, 0, 0, 0, 30, 0, 0, 0, 40};
        .visible .entry k(.param .u64 k_0)
        {
        .local .align 16 .b8 depot[16];
        .reg .b32 %r<20>;
        .reg .b64 %rd<20>;
        .shared .align 4 .b8 own[128];
        ld.param.u64 %rd1, [k_0];
        mov.u32 %r1, %tid.x;
        mul.wide.u32 %rd2, %r1, 4;
        add.s64 %rd3, %rd1, %rd2;
        mov.u64 %rd4, depot;
        add.s32 %r2, %r1, 100;
        add.s32 %r3, %r1, 200;
        st.local.v4.u32 [%rd4], {%r1, %r2, %r3, %r1};
        and.b32 %r4, %r1, 3;
        mul.wide.u32 %rd5, %r4, 4;
        add.s64 %rd6, %rd4, %rd5;
        ld.local.u32 %r5, [%rd6];
        mov.u64 %rd7, table;
        add.s64 %rd8, %rd7, %rd5;
        ld.const.u32 %r6, [%rd8];
        mov.u64 %rd9, own;
        cvta.shared.u64 %rd10, %rd9;
        add.s64 %rd11, %rd10, %rd2;
        st.u32 [%rd11], %r5;
        bar.sync 0;
        xor.b32 %r7, %r1, 1;
        mul.wide.u32 %rd12, %r7, 4;
        add.s64 %rd13, %rd9, %rd12;
        ld.shared.u32 %r8, [%rd13];
        add.s32 %r9, %r6, %r8;
        st.global.u32 [%rd3], %r9;
        ret;
        }";
    let (after, _) = run(text, 32, &[vec![0; 128]]).unwrap_or_else(|e| panic!("{e}"));
    let of_lane = |i: u32| [i, i + 100, i + 200, i][i as usize % 4];
    let expected = (0..32).flat_map(|i| (10 * (i % 4 + 1) + of_lane(i ^ 1)).to_le_bytes());
    assert_eq!(after[0], expected.collect::<Vec<u8>>());
}

#[test]
fn tables_of_branches_and_counts_of_barriers() {
    let body = "and.b32 %r2, %r1, 3;\nT: .branchtargets A, B, A, C;\nmov.u32 %r3, 0;\nbrx.idx %r2, T;\nA:\nadd.s32 %r3, %r3, \
                1;\nbra.uni D;\nB:\nadd.s32 %r3, %r3, 10;\nC:\nadd.s32 %r3, %r3, 100;\nD:\nsetp.gt.u32 %p1, %r3, \
                5;\nbar.red.popc.u32 %r4, 0, %p1;\nbar.red.or.pred %p2, 0, %p1;\nselp.u32 %r5, 1000, 0, %p2;\nadd.s32 \
                %r3, %r3, %r4;\nadd.s32 %r3, %r3, %r5;\nst.global.u32 [%rd2], %r3;";
    let expected = (0..32).map(|i| [1, 110, 1, 100][i % 4] + 16 + 1000).collect::<Vec<u32>>();
    assert_eq!(words(body, |_| 0), expected);
}
