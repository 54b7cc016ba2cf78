//! Sessions against the interpreter: plans, views, state, threads, feeds.
use graft_exec::{Device, Options, Session};
use graft_ir::{Code, DType, Graph, Kind, Tensor, Type, eval, parse, random};

/// A graph from text; the header is the same for all.
fn graph(text: &str) -> Graph {
    parse(&format!("<ir_version: 10, opset_import: [\"\" : 18, \"graft\" : 1]>\n{text}")).unwrap()
}

fn session(graph: &Graph, aliases: &[(&str, &str)], threads: usize) -> Session {
    let aliases: Vec<(String, String)> = aliases.iter().map(|&(i, o)| (i.into(), o.into())).collect();
    let options = Options { threads: Some(threads), ..Options::default() };
    Session::new(graph, &aliases, &options).unwrap()
}

fn floats(seed: u64, dims: &[usize]) -> Tensor {
    let n = dims.iter().product();
    let values: Vec<f32> = (0..n).map(|i| 2.0 * random::uniform(seed, 0, 0, i as u64) - 1.0).collect();
    Tensor::f32(dims, &values)
}

/// Fills weights whose data the text leaves out.
fn with_weights(mut graph: Graph) -> Graph {
    for (i, p) in graph.params.clone().into_iter().enumerate() {
        if graph[p].tensor.is_none() {
            let sizes = graph[p].ty.as_ref().and_then(Type::sizes).unwrap();
            graph[p].tensor = Some(floats(1000 + i as u64, &sizes));
        }
    }
    graph
}

/// Runs `graph` on 1, 2 and 4 threads, twice each, and by the interpreter; all must agree, the threads bit for bit.
fn agree(graph: &Graph, feeds: &[(&str, Tensor)]) -> Vec<Tensor> {
    let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(n, t)| (*n, t)).collect();
    let inputs: Vec<Option<Tensor>> = graph
        .inputs
        .iter()
        .map(|&v| feeds.iter().find(|f| f.0 == graph.name(v)).map(|f| f.1.clone()))
        .collect();
    let expected = eval::eval_tensors(graph, &inputs).unwrap();
    let mut first: Option<Vec<Tensor>> = None;
    for threads in [1, 2, 4] {
        let mut session = session(graph, &[], threads);
        for _ in 0..2 {
            let outputs: Vec<Tensor> = session.run(&feeds).unwrap().into_iter().map(|o| o.1).collect();
            assert_eq!(session.notices(), [""; 0], "kernels serve the whole graph");
            for ((actual, expected), &v) in outputs.iter().zip(&expected).zip(&graph.outputs) {
                close(graph.name(v), actual, expected);
            }
            assert_eq!(first.get_or_insert(outputs.clone()), &outputs, "{threads} threads");
        }
    }
    first.unwrap()
}

fn close(name: &str, actual: &Tensor, expected: &Tensor) {
    assert_eq!((actual.dtype(), actual.dims()), (expected.dtype(), expected.dims()), "`{name}`");
    let expected = expected.to_f64().unwrap();
    let finite = expected.iter().filter(|e| e.is_finite());
    // Rounding errors of a chain of products are relative to the largest values on the way.
    let tolerance = 1e-5 * finite.fold(1.0, |m: f64, e| m.max(e.abs()));
    for (a, e) in actual.to_f64().unwrap().into_iter().zip(expected) {
        assert!((a - e).abs() <= tolerance || (a.is_nan() && e.is_nan()), "`{name}`: {a}, not {e}");
    }
}

const ATTENTION: &str = "
g (float[batch, seq, 8] x) => (float[batch, seq, 8] y, float[batch, 8] first) <float[8, 8] wq, float[8, 8] wk, float[8, 8] wv> {
  heads = Constant <value = int64[4] {0, 0, 2, 4}> ()
  merged = Constant <value = int64[3] {0, 0, 8}> ()
  zero = Constant <value = int64 {0}> ()
  q = MatMul (x, wq)
  q4 = Reshape (q, heads)
  qt = Transpose <perm = [0, 2, 1, 3]> (q4)
  wkt = Transpose <perm = [1, 0]> (wk)
  k = MatMul (x, wkt)
  k4 = Reshape (k, heads)
  kt = Transpose <perm = [0, 2, 3, 1]> (k4)
  v = MatMul (x, wv)
  v4 = Reshape (v, heads)
  vt = Transpose <perm = [0, 2, 1, 3]> (v4)
  scores = MatMul (qt, kt)
  mixed = Tanh (scores)
  context = MatMul (mixed, vt)
  back = Transpose <perm = [0, 2, 1, 3]> (context)
  joined = Reshape (back, merged)
  sum = Add (joined, x)
  y = Relu (sum)
  first = Gather <axis = 1> (y, zero)
}";

#[test]
fn attention_agrees_for_changing_shapes() {
    let graph = with_weights(graph(ATTENTION));
    for (batch, seq) in [(1, 1), (2, 5), (3, 17), (0, 4), (16, 33)] {
        agree(&graph, &[("x", floats(7, &[batch, seq, 8]))]);
    }
}

#[test]
fn plans_are_kept_and_the_arena_shares_memory() {
    let graph = with_weights(graph(ATTENTION));
    let mut session = session(&graph, &[], 1);
    let mut sizes = vec![];
    for (batch, seq) in [(4, 16), (2, 16), (4, 16), (4, 16)] {
        let x = floats(7, &[batch, seq, 8]);
        session.run(&[("x", &x)]).unwrap();
        sizes.push(session.footprint().activations);
    }
    assert_eq!(sizes[0], sizes[1], "a smaller plan fits in the arena of a larger one");
    // Input, three projections, scores and context of 4·16·8 or 4·2·16·16 floats would take 22528 bytes unshared.
    assert!(sizes[0] < 20000, "{} bytes", sizes[0]);
    assert_eq!(session.footprint_for(&[("x", &[4, 16, 8])]).unwrap(), session.footprint());
    assert_eq!(session.footprint().weights, 3 * 8 * 8 * 4);
}

#[test]
fn views_of_views_of_constants_and_inputs() {
    let graph = with_weights(graph(
        "g (float[n, 6] x) => (float[] a, float[] b, float[] c, float[] d, float[] e, float[] f) <float[4, 6] w> {
           starts = Constant <value = int64[2] {1, -3}> ()
           ends = Constant <value = int64[2] {9, 1000}> ()
           axes = Constant <value = int64[2] {0, 1}> ()
           steps = Constant <value = int64[2] {2, 1}> ()
           one = Constant <value = int64[1] {1}> ()
           wt = Transpose (w)
           sliced = Slice (wt, starts, ends, axes, steps)
           last = Transpose (sliced)
           f = MatMul (last, sliced)
           a = MatMul (x, wt)
           xt = Transpose (x)
           b = MatMul (w, xt)
           left, right = Split <axis = 1, num_outputs = 2> (x)
           c = Mul (left, right)
           up = Unsqueeze (wt, one)
           d = Neg (up)
           wide = Constant <value = int64[3] {2, 4, 6}> ()
           expanded = Expand (w, wide)
           e = Identity (expanded)
         }",
    ));
    agree(&graph, &[("x", floats(3, &[5, 6]))]);
}

const COUNTER: &str = "
g (float[2] p, float[2] q, float[2] d, float[k] x) => (float[2] next_p, float[2] next_q, float[2] seen, float[k] y) {
  next_p = Add (p, d)
  next_q = Identity (p)
  two = Constant <value = float {2}> ()
  seen = Mul (p, two)
  y = Neg (x)
}";

#[test]
fn state_lives_on_and_reads_come_before_writes() {
    let graph = graph(COUNTER);
    for threads in [1, 2] {
        let mut session = session(&graph, &[("p", "next_p"), ("q", "next_q")], threads);
        let (d, x) = (Tensor::f32(&[2], &[1.0, 10.0]), Tensor::f32(&[1], &[4.0]));
        let error = session.run(&[("d", &d), ("x", &x)]).unwrap_err();
        assert_eq!((error.code, error.message.contains("`p` is not set")), (Code::FEED, true));
        session.set_state("p", &Tensor::f32(&[2], &[0.0, 0.0])).unwrap();
        session.set_state("q", &Tensor::f32(&[2], &[9.0, 9.0])).unwrap();
        for i in 0..4 {
            // Other sizes make other plans and a larger arena; the state must survive them.
            let x = floats(1, &[1 + 100 * i]);
            let outputs = session.run(&[("d", &d), ("x", &x)]).unwrap();
            let old = i as f32;
            assert_eq!(outputs[0], ("seen".into(), Tensor::f32(&[2], &[2.0 * old, 20.0 * old])));
            assert_eq!(outputs.len(), 2);
            assert_eq!(session.state("p").unwrap(), Tensor::f32(&[2], &[old + 1.0, 10.0 * (old + 1.0)]));
            assert_eq!(session.state("q").unwrap(), Tensor::f32(&[2], &[old, 10.0 * old]));
        }
    }
}

#[test]
fn states_can_be_exchanged() {
    let graph = graph(
        "g (float[2] a, float[2] b) => (float[2] x, float[2] y) { x = Identity (b)\n y = Identity (a) }",
    );
    let mut session = session(&graph, &[("a", "x"), ("b", "y")], 1);
    session.set_state("a", &Tensor::f32(&[2], &[1.0, 2.0])).unwrap();
    session.set_state("b", &Tensor::f32(&[2], &[3.0, 4.0])).unwrap();
    assert_eq!(session.run(&[]).unwrap(), []);
    assert_eq!(session.state("a").unwrap(), Tensor::f32(&[2], &[3.0, 4.0]));
    assert_eq!(session.state("b").unwrap(), Tensor::f32(&[2], &[1.0, 2.0]));
}

#[test]
fn a_param_that_is_an_input_is_a_default() {
    let mut graph = graph("g (float[n] x, float s) => (float[n] y) <float s = {2}> { y = Mul (x, s) }");
    let x = Tensor::f32(&[2], &[1.0, 3.0]);
    let mut s = session(&graph, &[], 1);
    assert_eq!(s.run(&[("x", &x)]).unwrap()[0].1, Tensor::f32(&[2], &[2.0, 6.0]));
    let five = Tensor::f32(&[], &[5.0]);
    assert_eq!(s.run(&[("s", &five), ("x", &x)]).unwrap()[0].1, Tensor::f32(&[2], &[5.0, 15.0]));
    assert_eq!(s.run(&[("x", &x)]).unwrap()[0].1, Tensor::f32(&[2], &[2.0, 6.0]));
    // As state it starts with its default.
    let out = graph.outputs[0];
    graph.values[out.0 as usize].ty = None;
    graph.inputs.rotate_left(1);
    let mut s = session(
        &self::graph("g (float s) => (float t) <float s = {2}> { t = Add (s, s) }"),
        &[("s", "t")],
        1,
    );
    s.run(&[]).unwrap();
    assert_eq!(s.state("s").unwrap(), Tensor::f32(&[], &[4.0]));
}

#[test]
fn calls_without_a_kernel_are_inlined() {
    let graph = graph(
        "g (float[n, 3] x) => (float[n, 3] y, float[n, 3] z) { y, z = graft.Twice (x) }
         <domain: \"graft\", opset_import: [\"\" : 18]>
         Twice (x) => (y, z) { t = Tanh (x)\n y = Add (t, t)\n z = graft.Half (y) }
         <domain: \"graft\", opset_import: [\"\" : 18]>
         Half (x) => (y) { h = Constant <value = float {0.5}> ()\n y = Mul (x, h) }",
    );
    agree(&graph, &[("x", floats(5, &[4, 3]))]);
}

#[test]
fn what_has_no_kernel_is_interpreted_and_said_once() {
    let graph = graph("g (double[n] x) => (double[n] y, double[n] z) { y = Tanh (x)\n z = Tanh (y) }");
    let x = Tensor::from_f64(DType::Double, &[3], [0.5, -1.0, 2.0]).unwrap();
    let mut session = session(&graph, &[], 2);
    for _ in 0..2 {
        let outputs = session.run(&[("x", &x)]).unwrap();
        let expected = eval::eval_tensors(&graph, &[Some(x.clone())]).unwrap();
        assert_eq!(outputs.into_iter().map(|o| o.1).collect::<Vec<_>>(), expected);
    }
    assert_eq!(session.notices().len(), 1);
    assert!(session.notices()[0].contains("`Tanh` on (double) has no kernel"), "{:?}", session.notices());
}

#[test]
fn shapes_that_depend_on_data_are_interpreted() {
    let graph = graph(
        "g (float[n] x, float[1] s) => (int64[1, m] y, float[1] t) { y = NonZero (x)\n t = Add (s, s) }",
    );
    let mut session = session(&graph, &[("s", "t")], 1);
    session.set_state("s", &Tensor::f32(&[1], &[1.5])).unwrap();
    let x = Tensor::f32(&[4], &[0.0, 1.0, 0.0, 2.0]);
    assert_eq!(session.run(&[("x", &x)]).unwrap(), [("y".to_string(), Tensor::i64(&[1, 2], &[1, 3]))]);
    assert_eq!(session.state("s").unwrap(), Tensor::f32(&[1], &[3.0]));
    assert!(session.notices()[0].contains("depends on data"), "{:?}", session.notices());
}

#[test]
fn feeds_are_checked() {
    let graph = graph(
        "g (float[b, 3] x, float[b, 2] y) => (float[b, 3] z, float[b, 2] w) { z = Neg (x)\n w = Neg (y) }",
    );
    let mut session = session(&graph, &[], 1);
    let (x, y) = (floats(1, &[2, 3]), floats(1, &[2, 2]));
    let mut refused = |feeds: &[(&str, &Tensor)], message: &str| {
        let error = session.run(feeds).unwrap_err();
        assert_eq!(error.code, Code::FEED);
        assert!(error.message.contains(message), "{}", error.message);
    };
    refused(&[("x", &x)], "missing input `y`");
    refused(&[("x", &x), ("y", &y), ("zz", &y)], "no input `zz`");
    refused(&[("x", &x), ("y", &y), ("x", &x)], "`x` is fed twice");
    refused(
        &[("x", &x), ("y", &Tensor::i64(&[2, 2], &[0; 4]))],
        "`y` is fed as int64, but is declared as float",
    );
    refused(&[("x", &x), ("y", &floats(1, &[2]))], "`y` has sizes [2], but 2 axes are declared");
    refused(&[("x", &x), ("y", &floats(1, &[2, 5]))], "axis 1 of `y` has size 5, expected 2");
    refused(&[("x", &x), ("y", &floats(1, &[7, 2]))], "`b` is 2 in `x` but 7 in `y`");
}

#[test]
fn a_device_that_is_not_there_is_refused() {
    let options = Options { device: Device::Cuda, ..Options::default() };
    match Session::new(&graph("g (float x) => (float y) { y = Neg (x) }"), &[], &options) {
        Ok(session) => assert!(session.device().starts_with("cuda: "), "this machine has a GPU"),
        Err(error) => assert_eq!((error.code, error.code.kind), (Code::DEVICE, Kind::Unsupported)),
    }
}

#[test]
fn profiles_name_nodes_and_ops() {
    let graph =
        with_weights(graph("g (float[n, 64] x) => (float[n, 32] y) <float[64, 32] w> { y = MatMul (x, w) }"));
    let options = Options { threads: Some(1), profile: true, ..Options::default() };
    let mut session = Session::new(&graph, &[], &options).unwrap();
    let x = floats(2, &[10, 64]);
    for _ in 0..3 {
        session.run(&[("x", &x)]).unwrap();
    }
    let entries = session.profile().unwrap().by_op();
    assert_eq!(
        (entries[0].op.as_str(), entries[0].calls, entries[0].flops),
        ("MatMul", 3, 3 * 2 * 10 * 64 * 32)
    );
    assert_eq!(entries[0].bytes, 3 * 4 * (640 + 2048 + 320));
    assert!(entries[0].flops_per_second() > 0.0 && entries[0].by_kernel);
}
