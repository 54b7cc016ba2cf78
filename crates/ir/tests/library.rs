//! Every library function runs at every opset that graft knows, and gives the same there; those of the optimisers and
//! of broadcasting are held against their formulas.
use graft_ir::{Array, Data, Dim, Graph, Precision, check, eval, infer, library, parse, random};
use std::collections::HashSet;

const OPSETS: &[i64] = &[14, 17, 18, 20, 21];

/// One call of each function, as the body of a graph with the inputs `(…) => (results) {`.
const CALLS: &[&str] = &[
    "(float[2, 3] p, float[2, 3] g, float[2, 3] m, float[2, 3] v, float lr, int64 step) => (p2, m2, v2) {
       p2, m2, v2 = graft.AdamW <weight_decay = 0.1> (p, g, m, v, lr, step) }",
    "(float[1, 2, 3, 4] q, float[1, 2, 5, 4] k, float[1, 2, 5, 2] v, float[3, 5] bias) => (y, lse) {
       y, lse = graft.Attention <scale = 0.5> (q, k, v, bias) }",
    "(float[1, 2, 3, 2] dy, float[1, 2, 3, 4] q, float[1, 2, 5, 4] k, float[1, 2, 5, 2] v, float[3, 5] bias,
       float[1, 2, 3, 1] lse) => (dq, dk, dv, dbias) {
       dq, dk, dv, dbias = graft.AttentionGrad <scale = 0.5> (dy, q, k, v, bias, lse) }",
    "(float dloss, float[4, 3] logits) => (dlogits) { labels = Constant <value = int64[4] {0, 2, -100, 1}> ()
       dlogits = graft.CrossEntropyGrad (dloss, logits, labels) }",
    "(float[4] share, float[4, 3] logits) => (dlogits) { labels = Constant <value = int64[4] {0, 2, 1, 1}> ()
       dlogits = graft.CrossEntropyRows (share, logits, labels) }",
    "(int64 seed, int64 step, int64 tensor) => (r) { shape = Constant <value = int64[2] {2, 3}> ()
       r = graft.Bits (seed, step, tensor, shape) }",
    "(float[2, 3] x) => (y) { y = graft.Detach (x) }",
    "(float[2, 3] x, int64 seed, int64 step, int64 tensor) => (y) {
       y = graft.Dropout <threshold = 1073741824, scale = 1.5> (x, seed, step, tensor) }",
    "(float[2, 3] dy, float[2, 3] x, int64 seed, int64 step, int64 tensor) => (dx) {
       dx = graft.DropoutGrad <threshold = 1073741824, scale = 1.5> (dy, x, seed, step, tensor) }",
    "(float[4, 2] dy) => (dx) { indices = Constant <value = int64[4] {2, 0, -1, 2}> ()
       shape = Constant <value = int64[2] {3, 2}> () dx = graft.GatherGrad (dy, indices, shape) }",
    "(float[2, 3] x) => (y) { y = graft.Gelu (x) }",
    "(float[2, 3] dy, float[2, 3] x) => (dx) { dx = graft.GeluGrad (dy, x) }",
    "(float[2, 3] x) => (y) { y = graft.GeluTanh (x) }",
    "(float[2, 3] dy, float[2, 3] x) => (dx) { dx = graft.GeluTanhGrad (dy, x) }",
    "(float[1, 4, 3, 4] q, float[1, 2, 5, 4] k, float[1, 2, 5, 2] v, float bias) => (y, lse) {
       y, lse = graft.GroupedAttention <scale = 0.5, times = [2], heads = [4]> (q, k, v, bias) }",
    "(float[1, 4, 3, 2] dy, float[1, 4, 3, 4] q, float[1, 2, 5, 4] k, float[1, 2, 5, 2] v, float bias,
       float[1, 4, 3, 1] lse) => (dq, dk, dv, dbias) {
       dq, dk, dv, dbias = graft.GroupedAttentionGrad <scale = 0.5, times = [2], heads = [4]> (dy, q, k, v, bias, lse) }",
    "(float[2, 3] p, float[2, 3] g, float[2, 3] m, float[2, 3] s) => (i, m2, s2) {
       i, m2, s2 = graft.Importance (p, g, m, s) }",
    "(float[2, 2, 3] x, float[3] scale, float[3] bias) => (y, mean, inv_std) {
       y, mean, inv_std = graft.LayerNorm (x, scale, bias) }",
    "(float[2, 2, 3] dy, float[2, 2, 3] x, float[3] s, float[3] b, float[2, 2, 1] mean, float[2, 2, 1] inv_std)
       => (dx, ds, db) { dx, ds, db = graft.LayerNormGrad (dy, x, s, b, mean, inv_std) }",
    "(float[3, 3] m, float[3] mask) => (counted) { counted = graft.Counted (m, mask) }",
    "(float[3, 4] m, float[3] mask) => (square) { square = graft.OrthogonalGap (m, mask) }",
    "(float[3, 4] m, float[3] mask) => (norm) { norm = graft.OrthogonalNorm (m, mask) }",
    "(float[2, 4, 3] x) => (y) { shape = Constant <value = int64[2] {1, 3}> () y = graft.ReduceTo (x, shape) }",
    "(float[2, 2, 3, 4] x) => (y) { y = graft.RepeatHeads <times = [2], heads = [4]> (x) }",
    "(float[2, 4, 3, 4] dy, float[2, 2, 3, 4] x) => (dx) { dx = graft.RepeatHeadsGrad <times = [2]> (dy, x) }",
    "(float[2, 2, 3] x, float[3] scale) => (y, inv_rms) { y, inv_rms = graft.RmsNorm (x, scale) }",
    "(float[2, 2, 3] dy, float[2, 2, 3] x, float[3] scale, float[2, 2, 1] inv_rms) => (dx, dscale) {
       dx, dscale = graft.RmsNormGrad (dy, x, scale, inv_rms) }",
    "(float[2, 2, 3, 4] x, float[2, 1, 3, 4] cos, float[3, 4] sin) => (y) { y = graft.Rotary <half = [2]> (x, cos, sin) }",
    "(float[2, 2, 3, 4] dy, float[2, 2, 3, 4] x, float[2, 1, 3, 4] cos, float[3, 4] sin) => (dx, dcos, dsin) {
       dx, dcos, dsin = graft.RotaryGrad <half = [2]> (dy, x, cos, sin) }",
    "(float[2, 3] p, float[2, 3] g, float lr) => (p2) { p2 = graft.Sgd <weight_decay = 0.1> (p, g, lr) }",
    "(float[2, 3] p, float[2, 3] g, float[2, 3] m, float lr) => (p2, m2) {
       p2, m2 = graft.SgdMomentum <momentum = 0.8, weight_decay = 0.1> (p, g, m, lr) }",
    "(float[2, 3] x) => (y) { y = graft.Silu (x) }",
    "(float[2, 3] dy, float[2, 3] y) => (dx) { dx = graft.SoftmaxGrad (dy, y) }",
    "(int64 seed, int64 step, int64 tensor) => (u) { shape = Constant <value = int64[2] {2, 3}> ()
       u = graft.Uniform (seed, step, tensor, shape) }",
];

/// The call of a function.
fn call_of(function: &str) -> &'static str {
    let is_it = |call: &&&str| call.contains(&format!("= {function} "));
    CALLS.iter().find(is_it).expect("every function has a call")
}

/// A graph with one call, types inferred; verified, text round trip included.
fn graph(call: &str, opset: i64) -> Graph {
    let mut graph = parse(&format!("<ir_version: 10, opset_import: [\"\" : {opset}]> g {call}")).unwrap();
    let ops: Vec<String> = graph.nodes.iter().map(|n| n.op.clone()).filter(|op| op.contains('.')).collect();
    ops.iter().for_each(|op| library::require(&mut graph, op).unwrap());
    check(&graph).unwrap();
    infer::infer(&mut graph).unwrap_or_else(|e| panic!("opset {opset}: {e}"));
    let text = graph.to_string();
    assert_eq!(parse(&text).unwrap().to_string(), text);
    graph
}

/// Numbers between 0.1 and 1.1 for each float input (second moments and learning rates are positive); 3 for integers.
fn feeds(graph: &Graph) -> Vec<Array> {
    let feed = |(i, &v): (usize, &graft_ir::Value)| {
        let ty = graph[v].ty.as_ref().unwrap();
        let dims = ty.sizes().unwrap();
        let n: usize = dims.iter().product();
        if !ty.dtype.is_float() {
            return Array::int(ty.dtype, dims, vec![3; n]);
        }
        let draw = |j| 0.1 + f64::from(random::uniform(7, 1, i as u64, j as u64));
        Array::float(ty.dtype, dims, (0..n).map(draw).collect())
    };
    graph.inputs.iter().enumerate().map(feed).collect()
}

fn run(graph: &Graph, feeds: &[Array]) -> Vec<Array> {
    let fed: Vec<Option<Array>> = feeds.iter().cloned().map(Some).collect();
    eval::eval(graph, &fed, Precision::Exact).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn every_function_has_a_call() {
    let called: HashSet<String> =
        CALLS.iter().flat_map(|c| graph(c, 18).nodes.into_iter().map(|n| n.op)).collect();
    let missing: Vec<&str> = library::functions().filter(|f| !called.contains(*f)).collect();
    assert!(missing.is_empty(), "no call of {missing:?}");
}

#[test]
fn every_call_gives_the_same_at_every_opset() {
    for call in CALLS {
        let newest = graph(call, 18);
        let feeds = feeds(&newest);
        let expected = run(&newest, &feeds);
        for &opset in OPSETS {
            let graph = graph(call, opset);
            let found = run(&graph, &feeds);
            assert_eq!(found, expected, "opset {opset}: {call}");
            for (&v, array) in graph.outputs.iter().zip(&found) {
                let inferred = graph.shape(v).unwrap_or_else(|| panic!("opset {opset}: no rank: {call}"));
                let fits = |(d, &n): (&Dim, &usize)| d.as_size().is_none_or(|d| d == n);
                assert_eq!(inferred.len(), array.dims.len(), "{call}");
                assert!(
                    inferred.iter().zip(&array.dims).all(fits),
                    "{inferred:?} for {:?}: {call}",
                    array.dims
                );
            }
        }
    }
}

/// Sums `x` of shape `dims` down to `to`, element by element.
fn sum_to(x: &[f64], dims: &[usize], to: &[usize]) -> Vec<f64> {
    let mut sums = vec![0.0; to.iter().product()];
    for (i, value) in x.iter().enumerate() {
        let (mut rest, mut at, mut stride) = (i, 0, 1);
        for (axis, &size) in dims.iter().enumerate().rev() {
            let (index, missing) = (rest % size, dims.len() - to.len());
            rest /= size;
            if let Some(&kept) = axis.checked_sub(missing).map(|a| &to[a]) {
                at += stride * if kept == 1 { 0 } else { index };
                stride *= kept;
            }
        }
        sums[at] += value;
    }
    sums
}

#[test]
fn reduce_to_sums_what_was_broadcast() {
    let cases: &[(&[usize], &[usize])] = &[
        (&[2, 4, 3], &[2, 4, 3]),
        (&[2, 4, 3], &[4, 1]),
        (&[2, 4, 3], &[1, 1, 3]),
        (&[2, 4, 3], &[]),
        (&[2, 1, 3], &[1, 3]),
        (&[2, 0, 3], &[1, 3]),
        (&[2, 0, 3], &[0, 1]),
        (&[], &[]),
    ];
    for (dims, to) in cases {
        let list = |d: &[usize]| d.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        let ty = if dims.is_empty() { "float".into() } else { format!("float[{}]", list(dims)) };
        let call = format!(
            "({ty} x) => (y) {{ shape = Constant <value = int64[{}] {{{}}}> () y = graft.ReduceTo (x, shape) }}",
            to.len(),
            list(to)
        );
        for &opset in OPSETS {
            let graph = graph(&call, opset);
            let n: usize = dims.iter().product();
            let x: Vec<f64> = (0..n).map(|i| (i * i) as f64).collect();
            let y = run(&graph, &[Array::float(graft_ir::DType::Float, dims.to_vec(), x.clone())]);
            assert_eq!(
                (&y[0].dims[..], y[0].floats().unwrap()),
                (*to, &sum_to(&x, dims, to)[..]),
                "{dims:?} to {to:?}"
            );
        }
    }
}

fn floats(array: &Array) -> &[f64] {
    array.floats().unwrap()
}

#[track_caller]
fn assert_close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-12 * b.abs().max(1.0);
    assert!(found.iter().zip(expected).all(close), "{found:?}\n{expected:?}");
}

#[test]
fn adamw_is_its_formula() {
    let graph = graph(call_of("graft.AdamW"), 21);
    let feeds = feeds(&graph);
    let [p, g, m, v, lr] = [0, 1, 2, 3, 4].map(|i| floats(&feeds[i]));
    let Data::Int(step) = &feeds[5].data else { panic!("the step is an integer") };
    let out = run(&graph, &feeds);
    // Attributes are single, so the formula starts from the same numbers.
    let [b1, b2, eps, decay] = [0.9f32, 0.999, 1e-8, 0.1].map(f64::from);
    let (t, lr) = (step[0] as f64, lr[0]);
    let mut expected = [Vec::new(), Vec::new(), Vec::new()];
    for i in 0..p.len() {
        let m = b1 * m[i] + (1.0 - b1) * g[i];
        let v = b2 * v[i] + (1.0 - b2) * g[i] * g[i];
        let step = lr / (1.0 - b1.powf(t)) * m / (v.sqrt() / (1.0 - b2.powf(t)).sqrt() + eps);
        let next = [p[i] * (1.0 - lr * decay) - step, m, v];
        expected.iter_mut().zip(next).for_each(|(e, x)| e.push(x));
    }
    out.iter().zip(&expected).for_each(|(o, e)| assert_close(floats(o), e));
}

#[test]
fn sgd_is_its_formula() {
    let plain = graph(call_of("graft.Sgd"), 21);
    let feeds_plain = feeds(&plain);
    let [p, g, lr] = [0, 1, 2].map(|i| floats(&feeds_plain[i]));
    let decay = f64::from(0.1f32);
    let expected: Vec<f64> = p.iter().zip(g).map(|(p, g)| p - lr[0] * (g + decay * p)).collect();
    assert_close(floats(&run(&plain, &feeds_plain)[0]), &expected);

    let momentum = graph(call_of("graft.SgdMomentum"), 21);
    let feeds = feeds(&momentum);
    let [p, g, m, lr] = [0, 1, 2, 3].map(|i| floats(&feeds[i]));
    let next: Vec<f64> = (0..p.len()).map(|i| f64::from(0.8f32) * m[i] + g[i] + decay * p[i]).collect();
    let expected: Vec<f64> = p.iter().zip(&next).map(|(p, m)| p - lr[0] * m).collect();
    let out = run(&momentum, &feeds);
    assert_close(floats(&out[0]), &expected);
    assert_close(floats(&out[1]), &next);
}

#[test]
fn bits_are_the_published_vectors_at_every_opset() {
    // Seed, step, tensor, index and the bits; the vector of the largest index is held by the generator's own test.
    let vectors = [
        (0, 1, 0, 0, 0x82d9_4f3a),
        (0, 1, 0, 1, 0x4017_6816),
        (0, 1, 3, 7, 0xfaa4_3493),
        (42, 1000, 17, 123_456, 0x9240_2891),
    ];
    for (seed, step, tensor, index, expected) in vectors {
        let call = format!(
            "(int64 seed, int64 step, int64 tensor) => (r, u) {{ shape = Constant <value = int64[1] {{{}}}> ()
               r = graft.Bits (seed, step, tensor, shape) u = graft.Uniform (seed, step, tensor, shape) }}",
            index + 1
        );
        for &opset in OPSETS {
            let feeds = [seed, step, tensor].map(|n| Array::int(graft_ir::DType::Int64, vec![], vec![n]));
            let out = run(&graph(&call, opset), &feeds);
            assert_eq!(
                out[0].ints().unwrap()[index],
                expected,
                "opset {opset}: {seed} {step} {tensor} {index}"
            );
            let u = random::uniform(seed as u64, step as u64, tensor as u64, index as u64);
            assert_eq!(out[1].floats().unwrap()[index], f64::from(u));
        }
    }
}

#[test]
fn dropout_keeps_a_share_and_its_mean() {
    let call = "(float[100, 100] x, int64 seed, int64 step, int64 tensor) => (y) {
       y = graft.Dropout <threshold = 1073741824, scale = 1.3333334> (x, seed, step, tensor) }";
    let graph = graph(call, 17);
    let at = |step: i64| {
        let int = |n| Array::int(graft_ir::DType::Int64, vec![], vec![n]);
        let ones = Array::float(graft_ir::DType::Float, vec![100, 100], vec![1.0; 10_000]);
        run(&graph, &[ones, int(5), int(step), int(2)]).remove(0)
    };
    let y = at(1);
    let dropped = floats(&y).iter().filter(|y| **y == 0.0).count();
    assert!((2300..2700).contains(&dropped), "{dropped} of 10000 for p = 1/4");
    assert!((floats(&y).iter().sum::<f64>() / 1e4 - 1.0).abs() < 0.03);
    assert_eq!(y, at(1));
    assert_ne!(y, at(2));
}
